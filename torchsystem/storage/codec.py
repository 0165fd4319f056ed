"""Plain data as a file of JSON and tensors by name, and back; every value comes back as it was.

The JSON is the data, with what JSON does not know written as an object with one key:

- a tensor is ``{"$tensor": name}``, its name being the path to it, so that a file of tensors can be read by itself;
  one of a type that such files do not know lies there as bytes, and has ``"dtype"`` and ``"shape"`` here;
- infinite floats and those that are not a number are ``{"$float": "inf"}``;
- whole numbers of more than 64 bits are ``{"$int": "0x..."}``;
- a dictionary with a key that begins with ``$`` is ``{"$dict": [[key, value], ...]}``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchsystem.domain.plain import Plain
from torchsystem.errors import BrokenCheckpoint, UnkeepableValue
from torchsystem.storage.tensors import TYPES, check

WIDE = 1 << 63


class Encoder:
    """Take the tensors out of plain data, by name. A tensor that stands in several places is taken once.

    Attributes:
        tensors: What was taken out.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[int, str] = {}

    def encode(self, value: Plain, path: str = "") -> Any:
        """Return what is left, for JSON.

        Raises:
            UnkeepableValue: Something is neither a tensor nor plain.
            Unstorable: A tensor has no values, or not in one piece.
        """
        if isinstance(value, Tensor):
            return self._tensor(value, path)
        if value is None or type(value) in {bool, str}:
            return value
        if type(value) is int:
            return value if -WIDE <= value < WIDE else {"$int": hex(value)}
        if type(value) is float:
            return value if math.isfinite(value) else {"$float": str(value)}
        if type(value) is list:
            return [self.encode(item, _inside(path, str(index))) for index, item in enumerate(value)]
        if type(value) is dict and all(type(key) is str for key in value):
            parts = {key: self.encode(part, _inside(path, key)) for key, part in value.items()}
            return {"$dict": list(map(list, parts.items()))} if any(key.startswith("$") for key in parts) else parts
        message = (
            f"{path} is {value!r}: a checkpoint holds tensors and plain values, and no {type(value).__qualname__}."
        )
        raise UnkeepableValue(message)

    def _tensor(self, tensor: Tensor, path: str) -> dict[str, Any]:
        check(path, tensor)
        extra: dict[str, Any] = {}
        if tensor.dtype not in TYPES:
            extra = {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
        name = self._names.get(id(tensor))
        if name is None:
            name = self._names[id(tensor)] = self._free_name(path)
            self.tensors[name] = tensor
        return {"$tensor": name, **extra}

    def _free_name(self, path: str) -> str:
        """Let the path be the name, unless another has it, or no such file can hold it."""
        name = free = path.encode(errors="backslashreplace").decode()
        number = 1
        while free in self.tensors or free == "__metadata__":
            number += 1
            free = f"{name}#{number}"
        return free


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Plain:
    """Give back what was encoded.

    Raises:
        BrokenCheckpoint: It was not encoded like that.
    """
    try:
        return _decode(value, tensors)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        message = f"what is written there was written by nothing of ours ({type(error).__name__}: {error})"
        raise BrokenCheckpoint(message) from error


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Plain:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    parts: dict[str, Any] = value
    if "$tensor" in parts:
        tensor = tensors[parts["$tensor"]]
        return _revived(tensor, parts["dtype"], parts["shape"]) if "dtype" in parts else tensor
    if "$float" in parts:
        return float(parts["$float"])
    if "$int" in parts:
        return int(parts["$int"], 16)
    pairs = parts["$dict"] if "$dict" in parts else parts.items()
    return {key: _decode(part, tensors) for key, part in pairs}


def _revived(tensor: Tensor, kind: str, shape: list[int]) -> Tensor:
    """Read bytes as a type that files of tensors do not know."""
    dtype = getattr(torch, kind)
    if not isinstance(dtype, torch.dtype):
        message = f"{kind} is no type of tensors"
        raise TypeError(message)
    return (tensor.view(dtype) if tensor.numel() else torch.empty(0, dtype=dtype)).reshape(shape)


def to_json(value: Any) -> bytes:
    """Write what was encoded."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def from_json(data: bytes) -> Any:
    """Read what was written.

    Raises:
        BrokenCheckpoint: It is no JSON.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        message = f"it is no JSON ({error})"
        raise BrokenCheckpoint(message) from error


def _inside(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
