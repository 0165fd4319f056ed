"""How frozen arguments look to those who ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchsystem.errors import CannotBuild
from torchsystem.registry.canonical import form_named
from torchsystem.registry.decode import decode
from torchsystem.registry.freeze import freeze
from torchsystem.registry.names import find
from torchsystem.registry.values import Construction, Foreign, Formless, Frozen, Unknown, as_json, text


def as_argument(value: Frozen) -> Any:
    """Give a frozen value as the user knows it: lists for tuples, a registered object as its name and arguments.

    A value that JSON does not know is itself for as long as it lives and is what it was; otherwise it is made anew. If
    there is no way back, it is itself, changed or not, and after that what it was made of.
    """
    match value:
        case tuple():
            return [as_argument(item) for item in value]
        case dict():
            return {key: as_argument(item) for key, item in value.items()}
        case Construction() if value.arguments:
            return {"name": value.name, "arguments": as_argument(value.arguments)}
        case Construction():
            return value.name
        case Foreign() | Unknown():
            return _seen(value)
        case _:
            return value


def _seen(value: Foreign | Unknown) -> Any:
    seen = value.look()
    if isinstance(value, Unknown):
        return value if seen is None else seen
    return _made(value) if seen is None or _has_changed(seen, value) else seen


def _has_changed(seen: object, value: Foreign) -> bool:
    form = form_named(value.kind)
    if form is None or form.make is None:  # such as a tensor: there would be nothing to give instead
        return False
    try:
        return text(freeze(seen)) != text(value)
    except Formless:
        return False


def _made(value: Foreign) -> Any:
    try:
        return decode(as_json(value), _find, _part)
    except (CannotBuild, Formless):
        return as_argument(value.content)


def _find(name: str) -> Any:
    thing = find(name)
    if thing is None:
        raise LookupError(name)
    return thing


def _part(name: str, arguments: Mapping[str, Any]) -> Any:
    message = f"{name} of {len(arguments)} arguments is not built for a look at it."
    raise CannotBuild(message)
