"""Kept memory: a copy of a state that costs no new memory, and that nothing changes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn, optim

from tests.storage.models import Learner, advance, told
from torchsystem.storage import Repository
from torchsystem.storage.buffers import Buffers


def test_memory_is_used_again_for_the_same_name() -> None:
    """As long as it fits; what a state no longer has is let go."""
    buffers = Buffers()
    buffers.begin()
    weight, bias = buffers.copy("weight", torch.ones(2)), buffers.copy("bias", torch.ones(3))
    buffers.begin()
    assert buffers.copy("weight", torch.zeros(2)) is weight
    buffers.begin()
    assert buffers.copy("weight", torch.zeros(3)) is not weight
    assert buffers.copy("bias", torch.zeros(3)) is not bias


def test_it_can_be_switched_off() -> None:
    """Then each copy is new."""
    buffers = Buffers(keep=False)
    buffers.begin()
    weight = buffers.copy("weight", torch.ones(2))
    buffers.begin()
    assert buffers.copy("weight", torch.zeros(2)) is not weight
    assert torch.equal(weight, torch.ones(2))


def test_what_is_shared_is_copied_once_and_what_only_was_there_is_not() -> None:
    """An address tells nothing once its tensor is gone."""
    buffers = Buffers()
    buffers.begin()
    tied = torch.ones(4)
    assert buffers.copy("one", tied) is buffers.copy("two", tied)
    assert buffers.copy("part", tied[:2]) is not buffers.copy("whole", tied)
    copies = [buffers.copy(f"gathered.{number}", torch.full((1000,), float(number))) for number in range(50)]
    assert [copy[0].item() for copy in copies] == list(range(50))


def test_a_view_that_reads_otherwise_is_copied_by_itself() -> None:
    """A conjugate, or negative, view has the address of what it is a view of, and other values."""
    buffers = Buffers()
    buffers.begin()
    tensor = torch.tensor([1 + 2j])
    assert buffers.copy("tensor", tensor).item() == 1 + 2j
    assert buffers.copy("conjugate", tensor.conj()).item() == 1 - 2j
    assert buffers.copy("imaginary", tensor.imag).item() == 2
    assert buffers.copy("negative", tensor.conj().imag).item() == -2


def test_two_tensors_of_one_name_are_two() -> None:
    """Names may read alike."""
    buffers = Buffers()
    for _ in range(2):
        buffers.begin()
        one, other = buffers.copy("a.b", torch.zeros(1)), buffers.copy("a.b", torch.ones(1))
        assert (one.item(), other.item()) == (0, 1)


def test_copies_lie_in_one_piece_and_know_no_graph() -> None:
    """Whatever they are copies of."""
    buffers = Buffers()
    buffers.begin()
    copy = buffers.copy("weight", torch.ones(2, 3, requires_grad=True).T * 2)
    assert copy.is_contiguous()
    assert not copy.requires_grad
    assert copy.shape == (3, 2)


def test_what_is_saved_is_the_state_at_the_call(tmp_path: Path) -> None:
    """Training goes on at once, and changes nothing of it; with kept memory and without."""
    for number, keep in enumerate((True, False)):
        with Repository(tmp_path / str(number), buffers=keep) as repository:
            learner = Learner()
            for epoch in range(1, 6):
                repository.save(advance(learner, epoch), wait=False)
                advance(learner, 99)
            for epoch in range(1, 6):
                assert told(repository.restore(Learner(), checkpoint=epoch)) == {float(epoch)}


def test_a_state_that_grows_is_saved_whole(tmp_path: Path) -> None:
    """An optimizer has a state only after its first step, and a layer may be added."""
    module = nn.Linear(2, 2)
    with Repository(tmp_path) as repository:
        repository.save({"weight": module.weight}, id="x")
        optimizer = optim.Adam(module.parameters())
        module(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        repository.save({"weight": module.weight, "moment": optimizer.state[module.weight]["exp_avg"]}, id="x")
        assert repository.restore({}, id="x").keys() == {"weight", "moment"}
