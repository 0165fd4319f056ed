"""What is remembered about an object: how it was constructed, and the name and hash set by hand.

The record lies beside the object, not in it: nothing of ours shows up in `vars(obj)`, nor in a state dict, an equality
or a `repr` made from it. It lives as long as its object does, and goes with its copies and pickles.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

from torchsystem.registry.values import Construction

_INSIDE = "__torchsystem_identity__"


class Identity:
    """How an object was constructed, and the name and hash that were set by hand, if any."""

    __slots__ = ("construction", "hash", "name")

    def __init__(
        self, construction: Construction | None = None, name: str | None = None, digest: str | None = None
    ) -> None:
        self.construction = construction
        self.name = name
        self.hash = digest

    def __reduce__(self) -> tuple[type[Identity], tuple[Construction | None, str | None, str | None]]:
        return Identity, (self.construction, self.name, self.hash)

    def copy(self) -> Identity:
        """Give a copy with a name and a hash of its own to set."""
        return Identity(self.construction, self.name, self.hash)


class _Reference(weakref.ref[object]):
    """A weak reference that carries the identity of what it refers to."""

    __slots__ = ("identity", "key")

    identity: Identity
    key: int


# By id, never by equality: two equal objects are two. Only what is alive is in here.
_alive: dict[int, _Reference] = {}


def _forget(reference: weakref.ref[object]) -> None:
    if isinstance(reference, _Reference):
        _alive.pop(reference.key, None)


def has_place(cls: type) -> bool:
    """Tell whether the objects of a class can have a record: they need a `__weakref__` or a `__dict__`."""
    return bool(cls.__weakrefoffset__ or cls.__dictoffset__)


def remember(obj: object, identity: Identity) -> None:
    """Keep the identity of an object for as long as it lives."""
    try:
        reference = _Reference(obj, _forget)
    except TypeError:  # no `__weakref__`: a subclass of `int` or `tuple`, or slots with only a `__dict__`
        vars(obj)[_INSIDE] = identity
        return
    reference.identity = identity
    reference.key = key = id(obj)
    _alive[key] = reference


def without(state: object) -> object:
    """Give the state of an object as a pickle has it, without what is kept inside the object itself."""
    if isinstance(state, tuple):
        return tuple(map(without, state))
    if isinstance(state, dict) and _INSIDE in state:
        return {name: value for name, value in state.items() if name != _INSIDE} or None
    return state


def recall(obj: object) -> Identity | None:
    """Find what is remembered about an object; `None` if it is nothing."""
    reference = _alive.get(id(obj))
    if reference is not None:
        return reference.identity
    if type(obj).__weakrefoffset__ == 0 and type(obj).__dictoffset__ != 0:
        inside = vars(obj).get(_INSIDE)
        return inside if isinstance(inside, Identity) else None
    return None


def revive(identity: Identity, make: Callable[..., object], arguments: tuple[object, ...]) -> object:
    """Make an object as `copy` and `pickle` do, and give it its identity back."""
    obj = make(*arguments)
    remember(obj, identity.copy())
    return obj
