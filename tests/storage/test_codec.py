"""The form on disk: plain data and tensors come back as they were, whatever they are."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torchsystem.errors import BrokenCheckpoint, UnkeepableValue, Unstorable
from torchsystem.storage.codec import Encoder, decode, from_json, to_json
from torchsystem.storage.tensors import TYPES, pieces, read

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(2**90), 2**90), st.floats(), st.text(max_size=5)
)
tensors = st.builds(
    lambda shape, dtype, seed: torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([*TYPES, torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2]),
    st.integers(0, 100),
)
keys = st.one_of(st.text(max_size=5), st.sampled_from(["$tensor", "$float", "$int", "$dict", "a.b", "a", "b", "0"]))
data = st.recursive(
    st.one_of(scalars, tensors),
    lambda inside: st.one_of(st.lists(inside, max_size=4), st.dictionaries(keys, inside, max_size=4)),
    max_leaves=20,
)


def through_files(value: Any) -> Any:
    """Write a value as files have it, and read it."""
    encoder = Encoder()
    text = to_json(encoder.encode(value))
    stored = b"".join(pieces(encoder.tensors))
    return decode(from_json(text), read(stored))


def equal(one: Any, other: Any) -> bool:  # noqa: PLR0911 - one for each kind
    """Compare to the bit, types and signs of zeros included."""
    if isinstance(one, Tensor):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        return not one.numel() or torch.equal(
            one.contiguous().reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)
        )
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    return bool(one == other)


@given(data)
def test_plain_data_come_back_as_they_were(value: Any) -> None:
    """Any nesting of lists and dictionaries, with any strings for keys, of plain values and tensors of any type."""
    assert equal(value, through_files(value))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(1.5),
        torch.tensor(2.5, dtype=torch.bfloat16),
        torch.empty(0),
        torch.empty(3, 0, 2, dtype=torch.int64),
        torch.arange(6).reshape(2, 3).T,
        torch.arange(8)[::2],
        torch.zeros(1).expand(4),
        torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.complex(torch.ones(2), torch.ones(2)).conj(),
        torch.tensor([float("nan"), float("inf"), -0.0]),
    ],
    ids=[
        "0-dim",
        "bfloat16",
        "empty",
        "empty in one dimension",
        "transposed",
        "strided",
        "expanded",
        "channels last",
        "conjugated",
        "not finite",
    ],
)
def test_tensors_of_any_layout_come_back(tensor: Tensor) -> None:
    """Values, type and shape are those of the tensor; it lies in one piece."""
    (back,) = through_files([tensor])
    assert back.is_contiguous()
    assert back.shape == tensor.shape
    assert back.dtype == tensor.dtype
    assert (
        torch.equal(back.nan_to_num(7.0), tensor.resolve_conj().nan_to_num(7.0))
        if tensor.is_floating_point()
        else torch.equal(back, tensor.resolve_conj())
    )


def test_a_shared_tensor_is_stored_once() -> None:
    """It stands in two places, and in one of them on the disk."""
    shared = torch.ones(3)
    encoder = Encoder()
    encoder.encode({"one": shared, "two": [shared]})
    assert list(encoder.tensors) == ["one"]
    back = through_files({"one": shared, "two": [shared]})
    assert torch.equal(back["one"], back["two"][0])


def test_names_that_read_alike_stay_apart() -> None:
    """`a.b` as one key and as two, and the name that the format keeps for itself."""
    value = {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}, "__metadata__": torch.ones(2), "\ud800": torch.ones(3)}
    assert equal(value, through_files(value))


def test_the_files_are_those_of_safetensors() -> None:
    """The package reads them as its own, and would have laid them out in the same order."""
    values = {
        "weight": torch.randn(3, 2),
        "bias": torch.ones(3, dtype=torch.float64),
        "count": torch.tensor(3, dtype=torch.uint8),
    }
    ours = b"".join(pieces(values))
    back = safetensors.torch.load(ours)
    assert back.keys() == values.keys()
    assert all(torch.equal(back[name], value) for name, value in values.items())
    assert len(ours) == len(safetensors.torch.save(values))


@pytest.mark.parametrize("value", [{1, 2}, object(), (1, 2), b"bytes", {1: 2}, 1j], ids=repr)
def test_what_is_not_plain_is_refused(value: Any) -> None:
    """By its place, so that it is found."""
    with pytest.raises(UnkeepableValue, match=r"state\.0 is"):
        Encoder().encode({"state": [value]})


@pytest.mark.parametrize("tensor", [torch.empty(2, device="meta"), torch.eye(2).to_sparse()], ids=["meta", "sparse"])
def test_a_tensor_without_dense_values_is_refused(tensor: Tensor) -> None:
    """There is nothing of it that could be written."""
    with pytest.raises(Unstorable, match=r"state\.mask"):
        Encoder().encode({"state": {"mask": tensor}})


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[" * 100_000, b"\xff", pickle.dumps(print)],
    ids=["nothing", "cut", "deep", "no text", "a pickle"],
)
def test_what_is_no_json_is_broken(text: bytes) -> None:
    """Whatever it is, it is named, and nothing else happens."""
    with pytest.raises(BrokenCheckpoint, match="it is no JSON"):
        from_json(text)


@pytest.mark.parametrize(
    "value",
    [
        {"$tensor": "nowhere"},
        {"$tensor": ["a"]},
        {"$tensor": "a", "dtype": "load", "shape": [1]},
        {"$tensor": "a", "dtype": "complex128", "shape": [9, 9]},
        {"$float": "much"},
        {"$int": 3},
        {"$dict": 3},
        {"$dict": [[[], 1]]},
    ],
    ids=json.dumps,
)
def test_what_was_written_by_nobody_is_broken(value: Any) -> None:
    """A file that claims to be ours, and is not, reaches nothing."""
    with pytest.raises(BrokenCheckpoint, match="nothing of ours"):
        decode(value, {"a": torch.zeros(16, dtype=torch.uint8)})


@pytest.mark.parametrize("file", [b"", b"\xff" * 20, pickle.dumps(print), b"\x08" + bytes(7) + b'{"a":{}}'])
def test_what_is_no_file_of_tensors_is_broken(file: bytes) -> None:
    """The package that reads it refuses it, and so do we, by our own name."""
    with pytest.raises(BrokenCheckpoint, match="no file of tensors"):
        read(file)
