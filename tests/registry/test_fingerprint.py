"""The identity of weights: equal content, equal fingerprint; one bit differs, and so does it."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributed import HashStore, destroy_process_group, init_process_group
from torch.nn import BatchNorm2d, Conv2d, LazyLinear, Linear, Sequential
from torch.optim import Adam

from torchsystem.errors import NoCanonicalForm
from torchsystem.registry import fingerprint

# All but the quantized ones, which are no plain arrays, and those smaller than a byte, which torch itself cannot copy.
DTYPES = sorted(
    {
        each
        for each in vars(torch).values()
        if isinstance(each, torch.dtype) and not re.search(r"\.q|int[1-7]$", str(each))
    },
    key=str,
)


def filled(dtype: torch.dtype, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Make a tensor of random bits."""
    generator = torch.Generator().manual_seed(seed)
    count = torch.empty(shape, dtype=dtype).numel() * dtype.itemsize
    data = torch.randint(0, 2 if dtype is torch.bool else 256, (count,), dtype=torch.uint8, generator=generator)
    return data.view(dtype).reshape(shape)


def test_the_form_is_written_down() -> None:
    """Anyone can compute a fingerprint from the documented form."""
    bias, steps = torch.tensor([1.0, -2.0]), torch.tensor(3)
    document = {
        "dict": {
            "bias": {"tensor": ["torch.float32", [2], sha256(np.array([1, -2], "<f4").tobytes()).hexdigest()]},
            "groups": {"list": [{"dict": {"lr": 0.1, "params": {"list": [0]}}}]},
            "state": {"items": [[0, {"tensor": ["torch.int64", [], sha256(np.int64(3).tobytes()).hexdigest()]}]]},
        }
    }
    written = json.dumps(document).encode()
    state = {"state": {0: steps}, "groups": [{"params": [0], "lr": 0.1}], "bias": bias}
    assert fingerprint(state) == f"sha256:{sha256(written).hexdigest()}"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_every_dtype_has_a_content(dtype: torch.dtype) -> None:
    """Whatever the elements are, they count, and so does their type."""
    tensor = filled(dtype, (2, 3, 4))
    assert fingerprint({"x": tensor}) == fingerprint({"x": tensor.transpose(0, 2).contiguous().transpose(0, 2)})
    assert fingerprint({"x": tensor}) != fingerprint({"x": filled(dtype, (2, 3, 4), seed=1)})
    assert fingerprint({"x": tensor}) != fingerprint(
        {"x": tensor.view(torch.uint8 if dtype != torch.uint8 else torch.int8)}
    )


@given(
    data=st.data(),
    shape=st.lists(st.integers(0, 4), max_size=4).map(tuple),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.complex64]),
)
def test_storage_does_not_matter(data: st.DataObject, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Strides, offsets, views, gradients and sharing are not content."""
    tensor = filled(dtype, shape)
    order = data.draw(st.permutations(range(len(shape))))
    permuted = tensor.permute(order).contiguous().permute([order.index(axis) for axis in range(len(shape))])
    padded = torch.cat([tensor.reshape(-1), torch.zeros(3, dtype=dtype)])[: tensor.numel()].view(shape)
    spread = torch.stack([tensor, torch.zeros_like(tensor)], dim=-1)[..., 0]
    parameter = torch.nn.Parameter(tensor.clone())
    assert len({fingerprint({"x": each}) for each in (tensor, permuted, padded, spread, parameter)}) == 1


@given(bit=st.integers(0, 31), index=st.integers(0, 11))
def test_one_bit_matters(bit: int, index: int) -> None:
    """Also the sign of a zero, and the payload of a NaN."""
    words = torch.zeros(12, dtype=torch.int32)
    before = fingerprint({"x": words.view(torch.float32)})
    words[index] ^= torch.tensor(1 << bit).to(torch.int32) if bit < 31 else torch.iinfo(torch.int32).min
    assert fingerprint({"x": words.view(torch.float32)}) != before


@given(names=st.lists(st.text(max_size=3), unique=True, max_size=5), data=st.data())
def test_the_order_of_insertion_does_not_matter_and_names_do(names: list[str], data: st.DataObject) -> None:
    """The same entries in another order are the same state; the same values under other names are not."""
    entries = [(name, torch.full((2,), float(index))) for index, name in enumerate(names)]
    shuffled = data.draw(st.permutations(entries))
    assert fingerprint(dict(shuffled)) == fingerprint(OrderedDict(entries))
    assert fingerprint(dict(entries)) != fingerprint({f"{name}'": value for name, value in entries} | {"": 1})
    if len(names) > 1:
        swapped = dict(zip(names, [value for _, value in entries[1:] + entries[:1]], strict=True))
        assert fingerprint(swapped) != fingerprint(dict(entries))


def test_states_that_differ_only_in_structure_differ() -> None:
    """No two states are written down alike."""
    x = torch.ones(2)
    states: list[dict[Any, Any]] = [
        {},
        {"a": {}},
        {"a": []},
        {"a": None},
        {"a": x},
        {"a": [x]},
        {"a": {"b": x}},
        {"a.b": x},
        {"a": {"0": x}},
        {"a": {0: x}},
        {"a": {"tensor": 1}},
        {"a": {"dict": {}}},
        {"a": x[:1]},
        {"a": x[None]},
        {"a": x.double()},
        {"a": 1},
        {"a": 1.0},
        {"a": True},
        {"a": "1"},
    ]
    assert len({fingerprint(state) for state in states}) == len(states)
    assert fingerprint({"a": (x, 1)}) == fingerprint({"a": [x, 1]})
    assert fingerprint({2: x, "1": x, 1.5: x}) == fingerprint({1.5: x, "1": x, 2: x})


def test_a_module_is_its_state_dict() -> None:
    """Equal weights are equal, whatever module they are in; another memory format is no other content."""
    module = Sequential(Conv2d(3, 4, 3), BatchNorm2d(4))
    before = fingerprint(module)
    assert before.startswith("sha256:")
    assert fingerprint(module.state_dict()) == before
    assert fingerprint(module.to(memory_format=torch.channels_last)) == before
    module[1].running_mean += 1
    assert fingerprint(module) != before


def test_an_optimizer_state_has_a_fingerprint() -> None:
    """Its keys are numbers, and its values tensors, numbers, None and tuples."""
    linear = Linear(2, 2)
    optimizer = Adam(linear.parameters())
    linear(torch.ones(1, 2)).sum().backward()
    before = fingerprint(optimizer.state_dict())
    optimizer.step()
    after = fingerprint(optimizer.state_dict())
    other = Adam(Linear(2, 2).parameters())
    other.load_state_dict(optimizer.state_dict())
    assert before != after == fingerprint(other.state_dict())


@pytest.mark.parametrize(
    "stored",
    [
        lambda dense: dense.to_sparse(),
        lambda dense: dense.to_sparse_csr(),
        lambda _: torch.sparse_coo_tensor(torch.tensor([[0, 0, 1], [0, 0, 1]]), torch.tensor([1.0, 1, 3]), (2, 2)),
        lambda dense: dense.to_mkldnn(),
        lambda dense: dense.to(torch.complex64).conj().real,
        lambda dense: torch.view_as_complex(torch.stack([dense, -dense], -1)).conj().imag,
        torch.nn.Buffer,
    ],
    ids=["coo", "csr", "uncoalesced", "mkldnn", "conjugate", "negative", "buffer"],
)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_layout_does_not_matter(stored: Any) -> None:
    """Sparse, in the layout of a library, or with its conjugation still to be done: equal values are equal."""
    dense = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    assert fingerprint({"x": stored(dense)}) == fingerprint({"x": dense.clone()})
    conjugate = torch.tensor([1 + 2j]).conj()
    assert fingerprint({"x": conjugate}) == fingerprint({"x": torch.tensor([1 - 2j])})
    assert fingerprint({"x": conjugate.imag}) == fingerprint({"x": torch.tensor([-2.0])})


def test_sharding_does_not_matter() -> None:
    """A tensor that is spread over ranks is the tensor it stands for."""
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415 - slow, and only for this test
    from torch.distributed.tensor import Shard, distribute_tensor  # noqa: PLC0415 - as above

    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        whole = filled(torch.float32, (4, 2))
        assert fingerprint({"x": distribute_tensor(whole, mesh, [Shard(0)])}) == fingerprint({"x": whole})
    finally:
        destroy_process_group()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_the_device_does_not_matter() -> None:
    """Moving weights to a GPU does not change them."""
    module = Sequential(Conv2d(3, 4, 3), BatchNorm2d(4)).to(torch.bfloat16)
    assert fingerprint(module) == fingerprint(module.to("cuda"))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"a": {"b": torch.empty(2, device="meta")}}, "a.b is a Tensor whose values cannot be read.*meta tensor"),
        (LazyLinear(3), "weight is a UninitializedParameter whose values cannot be read"),
        ({"a": [0, object()]}, "a.1 is a object, which is neither a tensor nor a plain value"),
        ({"a": {(1, 2): 3}}, "a has a tuple as a key"),
        (torch.ones(2), "Tensor has no weights. Give a module or a state dict"),
    ],
    ids=["meta", "lazy", "object", "key", "plain"],
)
def test_what_has_no_content_is_refused_by_name(state: Any, words: str) -> None:
    """A fingerprint of what has no values would be equal where nothing is."""
    with pytest.raises(NoCanonicalForm, match=words):
        fingerprint(state)


def test_a_state_that_contains_itself_is_refused() -> None:
    """Nothing can be said of it."""
    state: dict[str, Any] = {}
    state["self"] = state
    with pytest.raises(NoCanonicalForm, match="the state contains itself"):
        fingerprint(state)
