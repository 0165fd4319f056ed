"""The identity of weights: a hash of what they are, wherever and however they are stored.

The form, version 1: the SHA-256 of one JSON document with sorted keys, in which a tensor is
`{"tensor": [dtype, shape, digest]}` with the SHA-256 of its elements, row by row and little-endian; a dict is
`{"dict": {...}}`, or `{"items": [[key, value], ...]}` if a key is a number; a list or tuple is `{"list": [...]}`; and
None, booleans, numbers and strings are themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from torchsystem.errors import NoCanonicalForm
from torchsystem.registry.values import JSON, PLAIN


def fingerprint(weights: Module | Mapping[str, Any]) -> str:
    """Give the identity of weights: equal exactly if names, dtypes, shapes and every bit of the values are.

    It does not matter on which device they are, in which layout and strides, whether they are shared, nor in which
    order they were put in. For sharded weights this is a collective operation, to be called on every rank.

    Args:
        weights: A module, or a state dict: of a module or an optimizer, or any dict of tensors and plain values, also
            nested.

    Returns:
        `"sha256:"` and 64 hexadecimal digits.

    Raises:
        NoCanonicalForm: Something in it has no content: a tensor on the meta device, an object that is no value.

    Examples:
        ```python
        import torch
        from torch.nn import Linear

        from torchsystem.registry import fingerprint

        linear = Linear(3, 2)
        before = fingerprint(linear)
        assert before == fingerprint(dict(reversed(linear.state_dict().items())))

        with torch.no_grad():
            linear.bias[0] += 1
        assert fingerprint(linear) != before
        ```
    """
    state = weights.state_dict() if isinstance(weights, Module) else weights
    if not isinstance(state, Mapping):
        message = f"{type(weights).__name__} has no weights. Give a module or a state dict."
        raise NoCanonicalForm(message)
    try:
        document = json.dumps(_describe(state, ()), sort_keys=True)
    except RecursionError:
        message = "the state contains itself, or is nested too deeply. Leave that out of the state dict."
        raise NoCanonicalForm(message) from None
    return f"sha256:{sha256(document.encode()).hexdigest()}"


class Content(NamedTuple):
    """What a tensor is, but for where and how it is stored."""

    dtype: str
    shape: list[int]
    digest: str


def content(tensor: Tensor) -> Content:
    """Read what a tensor is.

    Raises:
        NoCanonicalForm: It has no values, or more than one way to read them.
    """
    try:
        if type(tensor) is Tensor or type(tensor) is Parameter:
            return _content(tensor.detach() if tensor.requires_grad else tensor)
    except (BufferError, RuntimeError, TypeError, ValueError):
        pass  # not in one block of memory on the CPU, or of a type that NumPy does not know
    try:
        dense = _dense(tensor)
        row = dense.as_strided((dense.numel(),), (1,))  # also where the only element has another stride
        return Content(str(dense.dtype), list(dense.shape), _content(row.view(torch.uint8)).digest)
    except (RuntimeError, TypeError, ValueError) as error:
        why = str(error).partition("\n")[0]
        message = f"a {type(tensor).__name__} whose values cannot be read ({why})"
        raise NoCanonicalForm(message) from error


def _content(tensor: Tensor) -> Content:
    array: Any = tensor.numpy()
    return Content(str(tensor.dtype), list(tensor.shape), sha256(array).hexdigest())


def _dense(tensor: Tensor) -> Tensor:
    """Give a tensor as one block of memory on the CPU, row by row."""
    kind = "meta" if tensor.is_meta else "quantized" if tensor.is_quantized else "nested" if tensor.is_nested else None
    if kind is not None:
        message = f"it is a {kind} tensor"
        raise TypeError(message)
    data: Any = tensor.detach()
    if hasattr(data, "full_tensor"):  # sharded over ranks
        data = data.full_tensor()
    if data.layout is not torch.strided:
        data = data.to_dense()
    return cast("Tensor", data.cpu().resolve_conj().resolve_neg().contiguous())


def _describe(value: object, path: tuple[object, ...]) -> JSON:
    """Give the document of a state, in which tensors are their digests."""
    match value:
        case Tensor():
            return {"tensor": cast("JSON", _named(value, path))}
        case Mapping() if {str}.issuperset(map(type, value)):
            return {"dict": {key: _describe(item, (*path, key)) for key, item in value.items()}}
        case Mapping():
            items = [[_key(key, path), _describe(item, (*path, key))] for key, item in value.items()]
            return {"items": sorted(items, key=json.dumps)}
        case list() | tuple():
            return {"list": [_describe(item, (*path, index)) for index, item in enumerate(value)]}
        case _ if type(value) in PLAIN:
            return cast("JSON", value)
        case _:
            message = f"{_words(path)} is a {type(value).__name__}, which is neither a tensor nor a plain value."
            raise NoCanonicalForm(message)


def _named(tensor: Tensor, path: tuple[object, ...]) -> Content:
    try:
        return content(tensor)
    except NoCanonicalForm as error:
        message = f"{_words(path)} is {error}. Give it values, or leave it out of the state dict."
        raise NoCanonicalForm(message) from error


def _key(key: object, path: tuple[object, ...]) -> JSON:
    if type(key) in PLAIN:
        return cast("JSON", key)
    message = f"{_words(path)} has a {type(key).__name__} as a key. Name what it holds by strings or numbers."
    raise NoCanonicalForm(message)


def _words(path: tuple[object, ...]) -> str:
    return ".".join(map(str, path)) or "the state"
