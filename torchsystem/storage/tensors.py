"""Files of tensors in the format of safetensors: a header in JSON, and the bytes. There is nothing in them to run.

They are written here, piece by piece, so that each piece can be hashed while it is written and none is copied; they are
read by the package.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import Buffer

from torchsystem.errors import BrokenCheckpoint, MissingExtra, Unstorable
from torchsystem.storage.ports import Chunk

# The names that the format has for types of tensors.
TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.int64: "I64",
    torch.uint64: "U64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}
ALIGNMENT = 8


def require() -> Any:
    """Return the package that reads such files.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        return import_module("safetensors.torch")
    except ModuleNotFoundError as error:
        message = "checkpoints need safetensors, which is not installed. Write: pip install 'torchsystem[storage]'"
        raise MissingExtra(message, name=error.name) from error


def check(name: str, tensor: Tensor) -> None:
    """Refuse a tensor whose values are not there, or not as one piece of memory.

    Raises:
        Unstorable: It is one.
    """
    if tensor.is_meta or tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
        what = "has no values: it is on the meta device" if tensor.is_meta else "is sparse, nested or quantized"
        message = f"{name} {what}, and cannot be stored. Make it a dense tensor with values before saving."
        raise Unstorable(message)


def pieces(tensors: Mapping[str, Tensor]) -> list[Chunk]:
    """Give the pieces of a file of tensors, which share the memory of the tensors.

    Args:
        tensors: Tensors by name; of a type that the format does not know, their bytes are written.
    """
    if sys.byteorder != "little":
        message = "files of tensors hold little-endian numbers, and this machine has others."
        raise Unstorable(message)
    header: dict[str, Any] = {}
    views: list[Chunk] = []
    position = 0
    for name, tensor in sorted(tensors.items(), key=_widest_first):
        view = _bytes_of(tensor)
        known = tensor.dtype in TYPES
        header[name] = {
            "dtype": TYPES.get(tensor.dtype, "U8"),
            "shape": list(tensor.shape) if known else [len(view)],
            "data_offsets": [position, position + len(view)],
        }
        views.append(view)
        position += len(view)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return [memoryview(len(text).to_bytes(8, "little") + text), *views]


def read(data: bytes) -> dict[str, Tensor]:
    """Read a file of tensors.

    Raises:
        BrokenCheckpoint: It is none.
    """
    safetensors = require()
    try:
        tensors: dict[str, Tensor] = safetensors.load(data)
    except Exception as error:
        message = f"it is no file of tensors ({error})"
        raise BrokenCheckpoint(message) from error
    return tensors


def _widest_first(item: tuple[str, Tensor]) -> tuple[int, str]:
    """Sort so that every tensor lies where numbers of its type may lie."""
    name, tensor = item
    return -(tensor.element_size() if tensor.dtype in TYPES else 1), name


def _bytes_of(tensor: Tensor) -> memoryview:
    if not tensor.numel():
        return memoryview(b"")
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    return memoryview(cast("Buffer", flat.view(torch.uint8).numpy()))
