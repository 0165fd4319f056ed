"""How frozen arguments look to those who ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchsystem.errors import CannotBuild
from torchsystem.registry.decode import decode
from torchsystem.registry.names import find
from torchsystem.registry.values import Construction, Foreign, Formless, Frozen, Unknown, as_json


def as_argument(value: Frozen) -> Any:
    """Give a frozen value as the user knows it: lists for tuples, a registered object as its name and arguments.

    A value that JSON does not know is itself for as long as it lives; otherwise it is made anew, or given as what it is
    made of where there is no way back.
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
            seen = value.look()
            return seen if seen is not None else value if isinstance(value, Unknown) else _made(value)
        case _:
            return value


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
