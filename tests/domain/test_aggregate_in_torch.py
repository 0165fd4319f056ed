"""An aggregate is a module for what torch builds around modules: wrappers, sharding, compilation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from torchsystem.domain import Aggregate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Model(Aggregate):
    """A small aggregate that remembers its epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.nn = nn.Linear(2, 1)
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predict, in another way for each phase."""
        return self.nn(x) if self.training else -self.nn(x)

    def onepoch(self) -> None:
        """Remember the epoch."""
        self.seen.append(self.epoch)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[None]:
    """Make a world of one rank."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/world", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("world")
def test_ddp_wraps_an_aggregate() -> None:
    """DDP trains an aggregate, which stays itself inside."""
    model = Model()
    parallel = DistributedDataParallel(model)
    parallel(torch.ones(1, 2)).sum().backward()
    parallel.eval()
    parallel.module.epoch += 1
    assert parallel.module is model
    assert model.nn.weight.grad is not None
    assert (model.phase, model.seen) == ("evaluation", [1])


@pytest.mark.usefixtures("world")
def test_fsdp2_shards_an_aggregate() -> None:
    """FSDP2 changes the class of an aggregate, and everything of the aggregate still works."""
    model = Model()
    fully_shard(model, mesh=distributed.init_device_mesh("cpu", (1,)))
    model(torch.ones(1, 2)).sum().backward()
    model.phase = "evaluation"
    model.epoch += 1
    assert isinstance(model, Model)
    assert (model.phase, model.nn.training, model.seen) == ("evaluation", False, [1])
    assert list(model.state_dict()) == ["nn.weight", "nn.bias"]


def test_torch_compile_sees_the_phase() -> None:
    """A compiled forward follows a change of phase, and reads none of our attributes otherwise."""
    model = Model()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    x = torch.ones(1, 2)
    trained = compiled(x)
    model.phase = "evaluation"
    model.epoch += 1
    assert torch.equal(compiled(x), -trained)
    torch.compiler.reset()


def test_parameters_added_later_belong_to_the_aggregate() -> None:
    """Modules, parameters and buffers are registered as in any module."""
    model = Model()
    model.scale = nn.Parameter(torch.ones(1))
    model.register_buffer("count", torch.zeros(1))
    model.head = nn.Linear(1, 1)
    del model.nn
    assert set(model.state_dict()) == {"scale", "count", "head.weight", "head.bias"}
