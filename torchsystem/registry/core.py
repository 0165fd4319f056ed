"""Registering a class: from then on its objects remember how they were constructed.

A registered class is the class it was: what registering adds is in `hooks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import RLock
from typing import TypeVar, overload

from torchsystem.errors import InvalidRegistration, NameTaken
from torchsystem.registry.hooks import constructor_signature, equip, registration_of, replace
from torchsystem.registry.record import has_place
from torchsystem.registry.registration import Registration, exclusions

C = TypeVar("C")

_one_at_a_time = RLock()  # of two threads that register one class, the second must see what the first did


@overload
def register(
    target: type[C],
    /,
    excluded_args: Iterable[int] | None = None,
    excluded_kwargs: Iterable[str] | None = None,
    *,
    name: str | None = None,
) -> type[C]: ...


@overload
def register(
    target: str | None = None,
    /,
    excluded_args: Iterable[int] | None = None,
    excluded_kwargs: Iterable[str] | None = None,
    *,
    name: str | None = None,
) -> Callable[[type[C]], type[C]]: ...


def register(
    target: type[C] | str | None = None,
    /,
    excluded_args: Iterable[int] | None = None,
    excluded_kwargs: Iterable[str] | None = None,
    *,
    name: str | None = None,
) -> type[C] | Callable[[type[C]], type[C]]:
    """Let the objects of a class remember how they were constructed.

    The class stays as it is, also for type checkers; so do its signature, subclasses, copies and pickles. A subclass is
    not registered by this: register it as well. Registering again changes nothing, but may exclude something if nobody
    has yet.

    Args:
        target: The class, or the name under which its objects are known (the name of the class, if not given).
        excluded_args: The positions of parameters that do not count, from 0, without `self`.
        excluded_kwargs: The names of parameters that do not count. Either way it does not matter how they are passed.
        name: The name, where the target is the class, or nothing.

    Returns:
        The class, or a decorator for it.

    Raises:
        InvalidRegistration: It is no class, its objects have no place for a record, or the name is no string.
        InvalidExclusion: There is no such parameter.
        NameTaken: The class is registered already under another name, or with other exclusions.

    Examples:
        ```python
        from torch.optim import SGD

        from torchsystem.registry import getarguments, register


        @register
        class Perceptron:
            def __init__(self, features: int, hidden: int = 64) -> None: ...


        register(SGD, excluded_args=[0])

        assert getarguments(Perceptron(features=784, hidden=64)) == {"features": 784}
        ```
    """
    if isinstance(target, str | None):
        name = one_name(target, name)
        return lambda cls: _register(cls, name, excluded_args, excluded_kwargs)
    return _register(target, name, excluded_args, excluded_kwargs)


def one_name(target: str | None, name: str | None) -> str | None:
    """Tell the name that is meant where it may be given in two places.

    Raises:
        InvalidRegistration: It is given in both.
    """
    if target is not None and name is not None:
        message = f"the name is {target!r}, and again {name!r}. Write `@register({target!r})`."
        raise InvalidRegistration(message)
    return name if target is None else target


def name_of(cls: type, name: str | None) -> str:
    """Tell the name that a class has, or that it gets when it is registered as `name`.

    Raises:
        InvalidRegistration: It is no class, or its objects have no place for a record.
        NameTaken: It has another name already.
    """
    _check(cls, name)
    before = registration_of(cls)
    if before is None:
        return cls.__name__ if name is None else name
    if name is None or name == before.name:
        return before.name
    message = (
        f"{cls.__module__}.{cls.__qualname__} is registered as {before.name!r} already, and the name is part of the "
        f"identity of its objects. Keep that name, or register a subclass as {name!r}."
    )
    raise NameTaken(message)


def _register(
    cls: type[C], name: str | None, excluded_args: Iterable[int] | None, excluded_kwargs: Iterable[str] | None
) -> type[C]:
    with _one_at_a_time:
        _settle(cls, name_of(cls, name), excluded_args, excluded_kwargs)
    return cls


def _settle(cls: type, name: str, excluded_args: Iterable[int] | None, excluded_kwargs: Iterable[str] | None) -> None:
    before = registration_of(cls)
    signature = constructor_signature(cls) if before is None else before.signature
    excluded = exclusions(cls, signature, excluded_args, excluded_kwargs)
    if before is None:
        equip(cls, Registration(cls, name, signature, excluded))
    elif excluded is None or excluded == before.stated:
        return
    elif before.stated is None:
        replace(before, before.without(excluded))
    else:
        message = (
            f"{cls.__module__}.{cls.__qualname__} is registered already, without {sorted(before.stated)}; now it would "
            f"be without {sorted(excluded)}. Say the same in both places, or register a subclass."
        )
        raise NameTaken(message)


def _check(cls: object, name: object) -> None:
    if not isinstance(cls, type):
        message = f"{cls!r} is not a class. Write `register(TheClass)`, or `@register` above it."
        raise InvalidRegistration(message)
    if not isinstance(name, str | None):
        message = f"the name of {cls.__module__}.{cls.__qualname__} is a string, and {name!r} is none."
        raise InvalidRegistration(message)
    if not has_place(cls):
        message = (
            f"{cls.__module__}.{cls.__qualname__} has slots, and none in which its objects could keep a record. "
            f"Add '__weakref__' to its __slots__ (weakref_slot=True for a dataclass)."
        )
        raise InvalidRegistration(message)
