"""Freezing: from what a constructor is given to what is remembered of it."""

from __future__ import annotations

import io
import weakref
from collections.abc import Callable, Iterator
from types import MethodWrapperType
from typing import Any

from torchsystem.errors import NoCanonicalForm
from torchsystem.registry.canonical import form_of
from torchsystem.registry.forms import Form
from torchsystem.registry.names import name_of_type
from torchsystem.registry.record import recall
from torchsystem.registry.values import PLAIN, Construction, Foreign, Formless, Frozen, Settled, Unknown, text


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
        return Unknown(f"{_article(type(value).__name__)} that contains itself", look=_look(value))


def thawed(construction: Construction) -> Construction:
    """Freeze anew what had no canonical form when it was frozen, and is still there: its form may be known by now."""
    return Construction(
        Settled(construction.name, {name: _thawed(value) for name, value in construction.arguments.items()})
    )


def _thawed(value: Frozen) -> Frozen:
    match value:
        case tuple():
            return tuple(_thawed(item) for item in value)
        case dict():
            return {key: _thawed(item) for key, item in value.items()}
        case Construction():
            return thawed(value)
        case Foreign():
            return Foreign(value.kind, _thawed(value.content), value.look)
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
    return Foreign("dict", tuple([(_freeze(key), _freeze(item)) for key, item in items.items()]), _look(items))


def _freeze_foreign(value: Any, form: Form) -> Frozen:
    look = _look(value)
    try:
        parts = form.take(value)
    except NoCanonicalForm as error:
        return Unknown(str(error), look=look)
    except Exception as error:  # noqa: BLE001 - whatever it is, the object can be made; it is told at `gethash`
        return Unknown(f"{_article(type(value).__name__)}, and taking it apart failed ({error!r})", look=look)
    content = _freeze(parts)
    if form.unordered and isinstance(content, tuple):
        content = _sorted(content)
    return Foreign(form.kind or name_of_type(type(value)), content, look)


def _sorted(parts: tuple[Frozen, ...]) -> tuple[Frozen, ...]:
    try:
        return tuple(sorted(parts, key=text))
    except Formless:
        return parts


def _freeze_subclass(value: Any) -> Frozen:
    """Freeze a value of a subclass of a plain type as `json` sees it, and a number of NumPy as the number it holds."""
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        return _freeze(value.item())
    match value:
        case int() | float():
            return int(value) if isinstance(value, int) else float(value)
        case str():
            return str.__str__(value)
        case list() | tuple():
            return _freeze_items(value)
        case dict():
            return _freeze_dict(value)
        case _:
            return _unknown(value)


def _unknown(value: Any) -> Unknown:
    name = type(value).__name__
    look = _look(value)
    match value:
        case io.IOBase():
            return Unknown(f"{_article(name)}, a stream", look=look)
        case Iterator():
            return Unknown(f"{_article(name)}, which can be read only once", look=look)
        case MethodWrapperType():
            return Unknown(f"a method of {_article(type(value.__self__).__name__)}", look=look)
        case _:
            remedy = f"Write `register({name})` before that, or teach its form, `canonical.register({name}, function)`"
            return Unknown(f"{_article(name)}, which was not registered when it was made", remedy, look)


def _article(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in {"a", "e", "i", "o", "u"} else f"a {noun}"


def _look(value: object) -> Callable[[], object]:
    """Give a look at a value that does not keep it alive, unless it is a bare `object()`, which holds nothing."""
    if type(value) is object:
        return lambda: value
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: None
