"""Messages: facts that are told to whoever listens, as small plain objects."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial, partialmethod
from types import FunctionType
from typing import TYPE_CHECKING, TypeVar

from typing_extensions import dataclass_transform

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")

# What methods may be behind, and where it keeps them.
_MADE_OF_FUNCTIONS = (FunctionType, property, classmethod, staticmethod, partial, partialmethod, cached_property)
_BEHIND = ("fget", "fset", "fdel", "func", "__func__", "__wrapped__")


@dataclass_transform(field_specifiers=(field,))
def event(cls: type[T]) -> type[T]:
    """Make a class an event: a slotted dataclass, as cheap to create as one written by hand.

    Events can be weakly referenced, pickled and copied, and may derive from other events: whoever listens to the base
    hears them too. Any object may be dispatched; this decorator is a convenience, not a condition.

    Args:
        cls: A class with annotated fields, as for `dataclasses.dataclass`.

    Returns:
        The class made anew with slots, under the same name.

    Examples:
        >>> @event
        ... class Trained:
        ...     epoch: int
        ...     loss: float = 0.0
        >>> Trained(3, loss=0.25)
        Trained(epoch=3, loss=0.25)
    """
    weakly_referenceable = any(base.__weakrefoffset__ for base in cls.__bases__)
    slotted = dataclass(slots=True, weakref_slot=not weakly_referenceable)(cls)
    _point_super_to(slotted, cls)
    return slotted


def _point_super_to(slotted: type, original: type) -> None:
    """Let `super()` and `__class__` in the methods mean the slotted class, not the one it replaced.

    All methods of a class share one cell for it; before Python 3.14 `dataclass(slots=True)` forgets to fill it anew.
    """
    for function in _functions(vars(slotted).values()):
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # not filled yet
                if cell.cell_contents is original:
                    cell.cell_contents = slotted
                    return


def _functions(members: Iterable[object]) -> Iterator[FunctionType]:
    """Yield every plain function in the body of a class, also those behind descriptors and decorators."""
    left, seen = list(members), set[int]()
    while left:
        member = left.pop()
        if isinstance(member, _MADE_OF_FUNCTIONS) and id(member) not in seen:
            seen.add(id(member))
            left += [getattr(member, name, None) for name in _BEHIND]
            if isinstance(member, FunctionType):
                yield member
                left += _contents(member)


def _contents(function: FunctionType) -> Iterator[object]:
    """Yield what the cells of a function hold."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # not filled yet
            yield cell.cell_contents
