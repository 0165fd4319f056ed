"""Freezing: from what a constructor is given to what is remembered of it."""

from __future__ import annotations

import io
import weakref
from collections.abc import Callable, Iterator
from types import MethodWrapperType
from typing import Any

from torchsystem.errors import NoCanonicalForm
from torchsystem.registry.canonical import form_of
from torchsystem.registry.forms import FORMS, Form
from torchsystem.registry.names import article, name_of_type
from torchsystem.registry.record import recall
from torchsystem.registry.values import PLAIN, Construction, Foreign, Formless, Frozen, Unknown, text

_UNORDERED = {form.kind for form in FORMS.values() if form.unordered}
_NUMBERS = frozenset("biufc")  # the kinds of NumPy's scalars that are numbers; dates, for one, are not


def freeze(value: object) -> Frozen:
    """Keep what makes the identity of a value, as it is at this moment.

    Nothing is consumed or changed, and no tensor is kept. What has no canonical form is no mistake yet: perhaps nobody
    asks for the hash.

    Args:
        value: What a constructor is given.

    Returns:
        A plain value itself; of anything else, a frozen copy of what it is made of.
    """
    try:
        return _freeze(value)
    except RecursionError:
        what = f"{article(type(value).__name__)} that contains itself, or is nested too deeply"
        return Unknown(what, look=_look(value))
    except Exception as error:  # noqa: BLE001 - whatever it is, the object can be made; it is told at `gethash`
        return _broken(value, error)


def thawed(value: Frozen) -> Frozen:
    """Freeze anew what had no canonical form when it was frozen, and is still there: its form may be known by now."""
    match value:
        case tuple():
            return tuple(thawed(item) for item in value)
        case dict():
            return {key: thawed(item) for key, item in value.items()}
        case Construction():
            return value.mapped(thawed)
        case Foreign():
            content = thawed(value.content)
            return Foreign(value.kind, _sorted(content) if value.kind in _UNORDERED else content, value.look)
        case Unknown():
            seen = value.look()
            return value if seen is None else freeze(seen)
        case _:
            return value


def _freeze(value: Any) -> Frozen:
    kind = type(value)
    if kind in PLAIN:
        plain: Frozen = value
        return plain
    if kind is list or kind is tuple:
        return _freeze_items(value)
    if kind is dict:
        return _freeze_dict(value)
    construction = _construction(value)
    if construction is not None:
        return construction
    form = form_of(kind)
    return _freeze_subclass(value) if form is None else _freeze_foreign(value, form)


def _construction(value: object) -> Construction | None:
    """Find how a registered object was constructed, under the name that it has now."""
    identity = recall(value)
    if identity is None or identity.construction is None or identity.name is None:
        return None if identity is None else identity.construction
    return identity.construction.renamed(identity.name)


def _freeze_items(items: list[Any] | tuple[Any, ...]) -> Frozen:
    kept = tuple(items)
    return kept if PLAIN.issuperset(map(type, kept)) else tuple([_freeze(item) for item in kept])


def _freeze_dict(items: dict[Any, Any]) -> Frozen:
    if {str}.issuperset(map(type, items)):
        return {key: _freeze(item) for key, item in items.items()}
    pairs = tuple([(_freeze(key), _freeze(item)) for key, item in items.items()])
    named = {key: item for key, item in pairs if isinstance(key, str)}  # subclasses of strings are strings now
    return named if len(named) == len(pairs) else Foreign("dict", pairs)


def _freeze_foreign(value: Any, form: Form) -> Frozen:
    look = _look(value)
    try:
        parts = form.take(value)
    except NoCanonicalForm as error:
        return Unknown(str(error), look=look)
    except Exception as error:  # noqa: BLE001 - whatever it is, the object can be made; it is told at `gethash`
        return _broken(value, error)
    content = _freeze(parts)
    return Foreign(form.kind or name_of_type(type(value)), _sorted(content) if form.unordered else content, look)


def _sorted(parts: Frozen) -> Frozen:
    try:
        return tuple(sorted(parts, key=text)) if isinstance(parts, tuple) else parts
    except Formless:
        return parts


def _freeze_subclass(value: Any) -> Frozen:
    """Freeze a value of a subclass of a plain type as `json` sees it, and a number of NumPy as the number it holds."""
    kind = type(value)  # what it is, not what it says by its `__class__`
    for plain, read in _READ.items():
        if issubclass(kind, plain):
            return read(value)
    number = value.item() if kind.__module__ == "numpy" and _kind_of_number(value) in _NUMBERS else value
    return _unknown(value) if type(number) is kind else _freeze(number)  # a long double holds but itself


def _kind_of_number(value: Any) -> str | None:
    return getattr(getattr(value, "dtype", None), "kind", None)


def _broken(value: object, error: Exception) -> Unknown:
    what = f"{article(type(value).__name__)}, and taking it apart failed ({error!r})"
    return Unknown(what, look=_look(value))


def _unknown(value: Any) -> Unknown:
    name = type(value).__name__
    look = _look(value)
    match value:
        case io.IOBase():
            return Unknown(f"{article(name)}, a stream", look=look)
        case Iterator():
            return Unknown(f"{article(name)}, which can be read only once", look=look)
        case MethodWrapperType():
            return Unknown(f"a method of {article(type(value.__self__).__name__)}", look=look)
        case _:
            remedy = f"Write `register({name})` before that, or teach its form, `canonical.register({name}, function)`"
            return Unknown(f"{article(name)}, which was not registered when it was made", remedy, look)


def _look(value: object) -> Callable[[], object]:
    """Give a look at a value that does not keep it alive, unless it is a bare `object()`, which holds nothing."""
    if type(value) is object:
        return lambda: value
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: None


# By the methods of the plain types: those of a subclass may do anything.
_READ: dict[type, Callable[[Any], Frozen]] = {
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    list: _freeze_items,
    tuple: _freeze_items,
    dict: _freeze_dict,
}
