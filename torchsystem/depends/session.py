"""One call shared by several functions: the steps of a pipeline see the same values, closed when all are done."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from torchsystem.depends.kinds import kind
from torchsystem.depends.mistakes import name_of
from torchsystem.depends.plan import Planner
from torchsystem.depends.sentinels import EMPTY
from torchsystem.depends.signature import VAR_KEYWORD, VAR_POSITIONAL, Parameters, parameters_of
from torchsystem.depends.solve import CallScope, spread
from torchsystem.errors import AsyncInSync, SessionEnded

R = TypeVar("R")


class Session:
    """Call functions with their dependencies, each made once for all of them: see `Provider.session`."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._scope = CallScope()
        self._is_open = False

    def __enter__(self) -> Self:
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_open = False
        self._scope.values.clear()
        self._scope.exit(error)

    def __call__(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
        """Call ``function``; a dependency passed explicitly is not made.

        Raises:
            AsyncInSync: ``function`` is async: nobody would wait for it.
            SessionEnded: The session's ``with`` block is over, or never began.
        """
        if not self._is_open:
            message = (
                f"{name_of(function)}: a session serves inside its block. Write `with provider.session() as call:`."
            )
            raise SessionEnded(message)
        if kind(function).is_async:
            message = f"{name_of(function)} is async, and a session does not wait. Write a sync function."
            raise AsyncInSync(message)
        parameters = parameters_of(function)
        if parameters is None:
            return function(*args, **kwargs)
        arguments = _bind(function, parameters, args, kwargs)
        plan = self._planner.plan(function, parameters)
        made_before = set(self._scope.values)
        try:
            self._scope.make(plan, arguments)
            positional, keywords = spread(parameters, arguments)
            return function(*positional, **keywords)
        finally:
            # What was filled from these arguments would be wrong for the next function.
            for node in [n for n in self._scope.values if not n.fixed and n not in made_before]:
                del self._scope.values[node]


def _bind(
    function: Callable[..., object], parameters: Parameters, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, object]:
    """Bind arguments by name, all but the dependencies that are to be made."""
    import inspect  # noqa: PLC0415 - it costs 10 ms at import

    arguments = dict(inspect.signature(function).bind_partial(*args, **kwargs).arguments)
    for name, kind_, default, dependency in parameters:
        if name in arguments or dependency is not None:
            continue
        if kind_ == VAR_POSITIONAL:
            arguments[name] = ()
        elif kind_ == VAR_KEYWORD:
            arguments[name] = {}
        elif default is EMPTY:
            message = f"{name_of(function)}() missing 1 required positional argument: {name!r}"
            raise TypeError(message)
        else:
            arguments[name] = default
    return arguments
