"""The way back from a canonical form to a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from reprlib import repr as shortened
from typing import Any, TypeAlias

from torchsystem.errors import CannotBuild
from torchsystem.registry.canonical import form_named
from torchsystem.registry.forms import Find, make_dict
from torchsystem.registry.names import article
from torchsystem.registry.values import TAG, VERSION

Part: TypeAlias = Callable[[str, Mapping[str, Any]], object]
"""Builds a registered object from its name and arguments."""


def decode(value: Any, find_by_name: Find, part: Part) -> Any:
    """Give back the value of which something is the canonical form.

    Args:
        value: The canonical form.
        find_by_name: Finds functions and classes.
        part: Builds registered objects.

    Raises:
        CannotBuild: There is no way back.
    """
    match value:
        case list():
            return [decode(item, find_by_name, part) for item in value]
        case dict() if TAG in value:
            return _make(value, decode(value.get("value"), find_by_name, part), find_by_name)
        case {"name": str(name), "arguments": dict(arguments), **rest} if not rest:
            return part(name, arguments)
        case dict():
            return {key: decode(item, find_by_name, part) for key, item in value.items()}
        case _:
            return value


def _make(tagged: Mapping[str, Any], parts: Any, find_by_name: Find) -> object:
    version, kind = tagged[TAG], tagged.get("type")
    if version != VERSION:
        message = f"this is canonical form {version!r}, and version {VERSION} of it is known here."
        raise CannotBuild(message)
    if kind == "dict":
        return make_dict(parts)
    form = form_named(str(kind))
    if form is None or form.make is None:
        message = (
            f"there is no way back to {article(str(kind))}. Teach one, `canonical.register(..., rebuild=...)`, or pass "
            f"the value."
        )
        raise CannotBuild(message)
    try:
        return form.make(parts, find_by_name)
    except Exception as error:  # what is wrong with the parts may show anywhere: they come from anywhere
        why = error if isinstance(error, CannotBuild) else repr(error)
        message = f"{article(str(kind))} cannot be made of {shortened(parts)}: {why}"
        raise CannotBuild(message) from error
