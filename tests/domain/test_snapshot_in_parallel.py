"""Snapshots of aggregates whose modules are wrapped for several ranks, and spread over them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import distributed, multiprocessing, nn, optim
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from torchsystem.domain import Aggregate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


class Model(Aggregate):
    """A small aggregate."""

    def __init__(self, *, seed: int = 0, around: Any = None) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.nn = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
        if around is not None:
            self.nn = around(self.nn)
        self.optimizer = optim.Adam(self.nn.parameters(), lr=0.01)

    def fit(self) -> float:
        """Learn."""
        self.optimizer.zero_grad()
        loss = self.nn(X).square().mean()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def wrapped(module: nn.Module) -> nn.Module:
    """Wrap a module for several ranks."""
    return DistributedDataParallel(module)


def spread(module: nn.Module) -> nn.Module:
    """Spread the parameters of a module over all ranks."""
    fully_shard(module, mesh=distributed.init_device_mesh("cpu", (distributed.get_world_size(),)))
    return module


def flat(value: Any) -> list[Any]:
    """List what a snapshot holds."""
    if isinstance(value, dict | list):
        return [leaf for part in (value.values() if isinstance(value, dict) else value) for leaf in flat(part)]
    return [value]


def goes_on_with_and_without(around: Any) -> None:
    """Take a snapshot with a wrapper, restore it with and without one, and train on: all three are the same."""
    model = Model(around=around)
    for _ in range(3):
        model.fit()
    snapshot = model.snapshot()
    assert set(snapshot["modules"]) == set(Model().state_dict())
    assert all(type(leaf) is torch.Tensor for leaf in flat(snapshot) if isinstance(leaf, torch.Tensor))
    others = Model(seed=1, around=around).restore(snapshot), Model(seed=2).restore(snapshot)
    expected = [model.fit() for _ in range(3)]
    for other in others:
        torch.testing.assert_close(other.snapshot()["modules"], snapshot["modules"], rtol=0, atol=0)
        torch.testing.assert_close([other.fit() for _ in range(3)], expected)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[None]:
    """Make a world of one rank."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/world", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("around", [wrapped, spread])
def test_a_snapshot_fits_with_and_without_wrappers(around: Any) -> None:
    """What was taken under DDP or FSDP2 has the names of a bare module, and restores into either."""
    goes_on_with_and_without(around)


def rank_of_two(rank: int, rendezvous: str) -> None:
    """Do the same as one of two ranks."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    goes_on_with_and_without(wrapped)
    goes_on_with_and_without(spread)
    distributed.barrier()  # a rank that leaves while the other still talks to it may bring that down
    distributed.destroy_process_group()
    os._exit(0)  # gloo's threads may still run when C++ ends, which then aborts a process that has done its work


def test_two_ranks_take_and_restore_whole_tensors(tmp_path: Path) -> None:
    """Where parameters are spread over two ranks, each takes a whole snapshot, and restores its share of one."""
    multiprocessing.spawn(rank_of_two, args=(f"file://{tmp_path}/world",), nprocs=2)
