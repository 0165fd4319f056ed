"""Depth: how far handlers that dispatch have led one another."""

from __future__ import annotations

from contextvars import ContextVar

from torchsystem.errors import DispatchTooDeep
from torchsystem.services.delivery import Route, deliver

# The types of the events that are being handled, outermost first. Context variables go along into the background.
_path: ContextVar[tuple[type, ...]] = ContextVar("torchsystem.services.depth", default=())


class Guard:
    """A route that refuses to be taken too deep.

    Args:
        route: The route.
        most: How many events may be handled within one another.
    """

    __slots__ = ("_most", "_route")

    def __init__(self, route: Route, most: int) -> None:
        self._route = route
        self._most = most

    def __call__(self, event: object) -> None:
        """Take the route.

        Raises:
            DispatchTooDeep: It would be too deep.
        """
        path = (*_path.get(), type(event))
        if len(path) > self._most:
            message = (
                f"{len(path)} events within one another, and max_depth={self._most}: {_shown(path)}. One of these "
                f"handlers must not dispatch, or not always."
            )
            raise DispatchTooDeep(message)
        token = _path.set(path)
        try:
            deliver(self._route, event)
        finally:
            _path.reset(token)


def _shown(path: tuple[type, ...]) -> str:
    """Show the way round, if the last event has occurred before; else the whole way."""
    *before, last = path
    start = len(before) - 1 - before[::-1].index(last) if last in before else 0
    return " → ".join(kind.__qualname__ for kind in path[start:])
