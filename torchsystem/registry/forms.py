"""The canonical forms that come with the library: how each kind of value is taken apart, and made again."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePath
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodType
from typing import Any, NamedTuple, TypeAlias

import torch

from torchsystem.errors import NoCanonicalForm
from torchsystem.registry.fingerprint import content
from torchsystem.registry.names import findable_name, name_of_type

Find: TypeAlias = Callable[[str], Any]
"""Finds a class or a function by its name, or raises: because it is not there, or because it is not allowed."""


class Form(NamedTuple):
    """How a value is taken apart into simpler values, and made of them again, if there is a way back.

    Without a `kind`, a value is of the kind of its own type, by name. The parts of an `unordered` value are sorted by
    their own canonical form.
    """

    kind: str | None
    take: Callable[[Any], object]
    make: Callable[[Any, Find], object] | None = None
    unordered: bool = False


def _form(
    kind: str,
    take: Callable[[Any], object],
    make: Callable[[Any], object] | None = None,
    *,
    unordered: bool = False,
) -> Form:
    """Describe a form whose way back needs no names."""
    return Form(kind, take, None if make is None else lambda parts, _: make(parts), unordered)


def _torch_constants(kind: type) -> Form:
    """Describe values that print as the name they have in torch: `torch.float32`."""

    def make(name: str) -> object:
        constant = getattr(torch, name.removeprefix("torch."), None)
        if not isinstance(constant, kind):
            raise TypeError(name)
        return constant

    return _form(f"torch.{kind.__name__}", str, make)


def _take_array(array: Any) -> object:
    if array.dtype.hasobject:
        message = "an array of Python objects"
        raise NoCanonicalForm(message)
    kind = array.dtype.str if array.dtype.names is None else array.dtype.descr
    return {"dtype": kind, "shape": array.shape, "digest": _digest(array)}


def _digest(array: Any) -> str:
    try:
        return sha256(array).hexdigest()
    except (BufferError, TypeError, ValueError):  # not row by row in one block, or dates: only a copy can be read
        return sha256(array.tobytes()).hexdigest()


def _take_enum(member: Enum) -> object:
    cls = name_of_type(type(member))
    known = member.name in type(member).__members__  # a combination of flags has no name of its own
    return {"class": cls, "name": member.name} if known else {"class": cls, "value": member.value}


def _make_enum(parts: Mapping[str, Any], find: Find) -> object:
    cls = find(parts["class"])
    if not issubclass(cls, Enum):
        raise TypeError(parts["class"])
    return cls[parts["name"]] if "name" in parts else cls(parts["value"])


def _take_name(thing: Any) -> object:
    name = findable_name(thing)
    if name is None:
        kind = "class" if isinstance(thing, type) else "function"
        words = "a lambda" if thing.__name__ == "<lambda>" else f"the {kind} {thing.__qualname__}"
        message = f"{words}, which another process cannot find by name"
        raise NoCanonicalForm(message)
    return name


def _take_dataclass(value: Any) -> object:
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.compare}
    return {"class": name_of_type(type(value)), "fields": fields}


def _make_dataclass(parts: Mapping[str, Any], find: Find) -> object:
    cls, known = find(parts["class"]), parts["fields"]
    # What does not count in `==` is not known, and has its default.
    return cls(**{each.name: known[each.name] for each in dataclasses.fields(cls) if each.init and each.name in known})


def _take_pydantic(model: Any) -> object:
    fields = {name: getattr(model, name) for name in type(model).model_fields}
    return {"class": name_of_type(type(model)), "fields": fields | (model.model_extra or {})}


def _make_pydantic(parts: Mapping[str, Any], find: Find) -> object:
    cls = find(parts["class"])
    if not hasattr(cls, "model_validate"):
        raise TypeError(parts["class"])
    return cls.model_validate(parts["fields"])


def make_dict(pairs: list[list[Any]]) -> dict[Any, Any]:
    """Make a dict of pairs, whose keys may have been tuples."""
    return {_hashable(key): item for key, item in pairs}


def _hashable(value: Any) -> Any:
    """Make a tuple of what has become a list, and was an element of a set or a key before."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


DATACLASS = Form("dataclass", _take_dataclass, _make_dataclass)
_FUNCTION = Form("function", _take_name, lambda name, find: find(name))

FORMS: dict[type, Form] = {
    torch.Tensor: _form("torch.Tensor", lambda tensor: content(tensor)._asdict()),
    torch.Generator: _form(
        "torch.Generator",
        lambda generator: {"device": str(generator.device), "seed": generator.initial_seed()},
        lambda parts: torch.Generator(parts["device"]).manual_seed(parts["seed"]),
    ),
    torch.device: _form("torch.device", str, torch.device),
    **{kind: _torch_constants(kind) for kind in (torch.dtype, torch.layout, torch.memory_format)},
    PurePath: _form("path", PurePath.as_posix, Path),
    Enum: Form("enum", _take_enum, _make_enum),
    set: _form("set", tuple, lambda parts: set(map(_hashable, parts)), unordered=True),
    frozenset: _form("frozenset", tuple, lambda parts: frozenset(map(_hashable, parts)), unordered=True),
    OrderedDict: _form("OrderedDict", lambda each: tuple(each.items()), lambda pairs: OrderedDict(make_dict(pairs))),
    bytes: _form("bytes", bytes.hex, bytes.fromhex),
    bytearray: _form("bytearray", bytearray.hex, bytearray.fromhex),
    complex: _form("complex", lambda number: (number.real, number.imag), lambda parts: complex(*parts)),
    range: _form("range", lambda each: (each.start, each.stop, each.step), lambda parts: range(*parts)),
    slice: _form("slice", lambda each: (each.start, each.stop, each.step), lambda parts: slice(*parts)),
    partial: _form(
        "partial",
        lambda each: {"function": each.func, "args": each.args, "kwargs": dict(sorted(each.keywords.items()))},
        lambda parts: partial(parts["function"], *parts["args"], **parts["kwargs"]),
    ),
    type: Form("class", _take_name, lambda name, find: find(name)),
    **dict.fromkeys((FunctionType, BuiltinFunctionType, MethodDescriptorType, MethodType), _FUNCTION),
}
"""By type; a subclass has the form of its nearest base."""

FORMS_BY_NAME: dict[str, Form] = {
    "functools._lru_cache_wrapper": _FUNCTION,
    "numpy.ndarray": _form("numpy.ndarray", _take_array),
    "pydantic.main.BaseModel": Form("pydantic", _take_pydantic, _make_pydantic),
}
"""By the name of the type, for packages that are not imported for it."""
