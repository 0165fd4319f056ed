"""Delivery: how a message reaches those who hear it.

`deliver` is the whole of it. Everything else here and around is bookkeeping: a `Table` remembers, for each type of
event and for each topic, the tuple of callables that hear it, so that the next message of its kind costs one look
into a dictionary. Options of a handler live inside its callable: what is not used costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeAlias, TypeVar

Call: TypeAlias = Callable[..., object]
Route: TypeAlias = tuple[Call, ...]
K = TypeVar("K", bound=Hashable)

# Types can be made and topics invented without end: a table that is full starts anew.
MOST_ROUTES = 4096


def deliver(route: Route, message: object) -> None:
    """Hand a message to every callable of a route, in order; the first exception ends it.

    A route is a tuple: listeners that come or go meanwhile change the next delivery, never this one.
    """
    for call in route:
        call(message)


class Table(Generic[K]):
    """The routes that are known, by the type of an event or by topic; found on first use, forgotten on any change."""

    __slots__ = ("__weakref__", "routes")

    def __init__(self) -> None:
        self.routes: dict[K, Route] = {}

    def forget(self) -> None:
        """Start anew, because who hears what has changed."""
        self.routes = {}


def remember(routes: dict[K, Route], key: K, route: Route) -> Route:
    """Keep a route that was found, and return it.

    Args:
        routes: The routes of the table as they were *before* this one was looked for. If a listener has come since,
            the table has new ones by now, and what is outdated vanishes with the old.
        key: The type or the topic that the route is for.
        route: Who hears it.
    """
    if len(routes) >= MOST_ROUTES:
        routes.clear()
    routes[key] = route
    return route
