"""Batches: how many samples they have, and how they are brought to a device, whatever they are made of."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from torchsystem.errors import InvalidBatch
from torchsystem.training.batches import samples_in, to_device

META = torch.device("meta")
Pair = namedtuple("Pair", ["inputs", "targets"])  # noqa: PYI024 - what loaders give has no types either


@dataclass(frozen=True, slots=True)
class Frozen:
    """A batch that is an object, and refuses to be changed."""

    inputs: Tensor
    names: list[str]


class Sized:
    """Knows by itself, whatever is in it."""

    def __init__(self) -> None:
        self.inputs = torch.zeros(9, 2)

    def __len__(self) -> int:
        return 3


def rows(count: int = 3) -> Tensor:
    """Make samples."""
    return torch.zeros(count, 2)


def named(batches: list[Any]) -> list[str]:
    """Name cases by what they are."""
    return [f"{type(batch).__name__} {number}" for number, batch in enumerate(batches)]


COUNTED: list[Any] = [
    (rows(), torch.zeros(7)),
    [rows()],
    rows(),
    {"inputs": rows(), "targets": torch.zeros(7)},
    UserDict(inputs=rows()),
    Pair(rows(), torch.zeros(7)),
    ((rows(), torch.zeros(7)), torch.zeros(7)),
    (None, rows()),
    {"names": ["one", "another", "third"], "targets": rows()},
    (["one", "another", "third"], rows()),
    (("one", "another", "third"),),
    {"names": ["a long one", "b", "c"]},
    (torch.tensor(0.5), rows()),
    {"temperature": torch.tensor(0.5), "weight": 2.0, "inputs": rows()},
    (np.zeros((3, 2)), np.zeros(7)),
    (np.array(0.5), rows()),
    (torch.zeros(3, 0), rows(7)),
    pack_sequence([torch.zeros(4, 2), torch.zeros(3, 2), torch.zeros(1, 2)]),
    (pack_sequence([torch.zeros(4, 2), torch.zeros(3, 2), torch.zeros(1, 2)]), torch.zeros(7)),
    SimpleNamespace(name="a text", inputs=rows()),
    {"inputs": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(1), torch.zeros(4)], layout=torch.jagged)},
    (torch.eye(3).to_sparse(), torch.zeros(7)),
    Frozen(rows(), ["a"]),
    Sized(),
    (Sized(), torch.zeros(7)),
]


@pytest.mark.parametrize("batch", COUNTED, ids=named(COUNTED))
def test_samples_are_counted_whatever_a_batch_is(batch: Any) -> None:
    """By the first tensor in it, or by its own length; not by the letters of a text, nor by a number beside it."""
    assert samples_in(batch) == 3


@pytest.mark.parametrize(
    "kind", [lambda one: one, lambda one: (one, one), lambda one: {"x": one}], ids=["alone", "in a tuple", "by name"]
)
def test_a_tensor_without_dimensions_is_one_sample(kind: Any) -> None:
    """Where nothing says more, as in a loader that makes no batches."""
    assert samples_in(kind(torch.tensor(1.0))) == 1


UNKNOWN: list[Any] = [(), [], {}, 3, (3,), ["a text"], {"name": "a text"}, None, (None,), SimpleNamespace()]


@pytest.mark.parametrize("batch", UNKNOWN, ids=named(UNKNOWN))
def test_a_batch_of_which_nobody_can_tell_is_refused(batch: Any) -> None:
    """By name, and not by what some operation on it says."""
    with pytest.raises(InvalidBatch, match=f"{type(batch).__qualname__}: nobody can tell how many samples it has"):
        samples_in(batch)


@given(st.integers(0, 5), st.lists(st.sampled_from(["tuple", "list", "mapping"]), max_size=4))
def test_samples_are_counted_at_any_depth(count: int, around: list[str]) -> None:
    """However containers are put into one another."""
    batch: Any = (torch.zeros(count), torch.zeros(9))
    for kind in around:
        batch = {"tuple": (batch, "text"), "list": [batch], "mapping": {"inner": batch, "number": 1}}[kind]
    assert samples_in(batch) == count


class Moving:
    """Brings itself to a device."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device

    def to(self, device: torch.device) -> Moving:
        return Moving(device)


MOVED: list[Any] = [
    (rows(), "text"),
    [rows(), None],
    Pair(rows(), 3),
    {"inputs": rows()},
    OrderedDict(inputs=rows()),
    defaultdict(list, inputs=rows()),
    UserDict(inputs=rows()),
    Frozen(rows(), ["a"]),
    {"inner": (rows(), [Frozen(rows(), ["a"])])},
]


@pytest.mark.parametrize("batch", MOVED, ids=named(MOVED))
def test_a_batch_stays_of_its_kind_on_a_device(batch: Any) -> None:
    """Each tensor in it is brought there, nothing else changes, and the batch itself is left alone."""
    before = repr(batch)
    brought = to_device(batch, META)
    assert type(brought) is type(batch)
    assert devices_of(brought) == {META}
    assert repr(batch) == before


def test_what_can_move_moves_itself() -> None:
    """Also where it is a tuple, of which a part has to stay: the lengths of packed sequences do."""
    assert to_device((Moving(), rows()), META)[0].device == META
    packed: Any = to_device(pack_sequence([torch.zeros(2, 2), torch.zeros(1, 2)]), META)
    assert isinstance(packed, PackedSequence)
    assert packed.data.device == META
    assert packed.batch_sizes.device.type == "cpu"


def devices_of(value: Any) -> set[torch.device]:
    """Say where the tensors in something are."""
    if isinstance(value, Tensor):
        return {value.device}
    if isinstance(value, Frozen):
        return devices_of(value.inputs)
    parts = value.values() if hasattr(value, "values") else value
    return set().union(*map(devices_of, parts)) if isinstance(value, tuple | list | dict | UserDict) else set()
