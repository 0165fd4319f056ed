"""What `Optimization` promises of its state, and what it refuses when it is made, one rule per test."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn, optim
from torch.amp import GradScaler
from torch.optim import lr_scheduler

from torchsystem import Aggregate
from torchsystem.errors import (
    InvalidOptimization,
    InvalidOptimizer,
    MismatchedState,
    SharedParameter,
    UnknownOptimizer,
)
from torchsystem.training.optimization import Optimization

X = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))


class Adversaries(Aggregate):
    """An aggregate with everything on."""

    def __init__(self, seed: int = 0, accumulate: int = 3, *, scales: bool = True) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.generator, self.discriminator = nn.Linear(4, 4), nn.Linear(4, 1)
        optimizers = {
            "generator": optim.Adam(self.generator.parameters(), lr=0.01),
            "discriminator": optim.SGD(self.discriminator.parameters(), lr=0.1, momentum=0.9),
        }
        self.optimization = Optimization(
            optimizers,
            {name: lr_scheduler.ExponentialLR(optimizer, 0.9) for name, optimizer in optimizers.items()},
            accumulate=accumulate,
            clip_norm=1.0,
            per={"discriminator": "step"},
            warmup=4,
            scaler=GradScaler("cpu", init_scale=4.0, growth_interval=2) if scales else None,
        )

    def fit(self, batch: int) -> None:
        """Learn from a batch; the generator every other time."""
        judged: Tensor = self.discriminator(self.generator(X[batch : batch + 2]))
        if batch % 2:
            self.optimization.step(generator=-judged.mean(), discriminator=judged.square().mean())
        else:
            self.optimization.step(discriminator=judged.square().mean())

    def learn(self, batches: range) -> Adversaries:
        """Learn from several."""
        for batch in batches:
            self.fit(batch)
        return self


def weights(model: nn.Module) -> Tensor:
    """Return all weights in one row."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@settings(max_examples=15)
@given(cut=st.integers(0, 12), way=st.sampled_from(["snapshot", "state_dict"]), scales=st.booleans())
def test_what_is_restored_goes_on_as_if_nothing_had_happened(cut: int, way: str, *, scales: bool) -> None:
    """Wherever it was cut, in the midst of a group too, whose gradients are part of the state."""
    straight = Adversaries(scales=scales)
    straight.optimization.begin(12)
    straight.learn(range(cut))
    resumed = Adversaries(seed=1, scales=scales).learn(range(2))
    if way == "snapshot":
        resumed.restore(straight.snapshot())
    else:
        resumed.load_state_dict(straight.state_dict())
        resumed.optimization.load_state_dict(copy.deepcopy(straight.optimization.state_dict()))
    for model in (straight, resumed):
        model.learn(range(cut, 12))
        model.optimization.finish()
        model.optimization.epoch_ended()
    assert torch.equal(weights(resumed), weights(straight))
    assert resumed.optimization.steps == straight.optimization.steps
    assert resumed.optimization.learning_rates == straight.optimization.learning_rates


def test_the_state_is_a_copy_of_nothing_but_tensors_and_plain_values() -> None:
    """So that it can be stored without anybody's code; and it can be changed by nobody in a snapshot."""
    model = Adversaries().learn(range(4))
    snapshot = model.snapshot()
    text = json.dumps(snapshot, default=lambda tensor: tensor.tolist())
    model.learn(range(4, 12))
    assert json.dumps(snapshot, default=lambda tensor: tensor.tolist()) == text


def test_a_warm_up_that_was_done_is_not_done_in_a_state_before_it() -> None:
    """A plain step notices that it is none any more."""
    parameter = nn.Parameter(torch.zeros(()))
    optimization = Optimization(optim.SGD([parameter], lr=1.0), warmup=2)
    state = json.loads(json.dumps(optimization.state_dict()))
    state["optimizers"]["optimizer"]["state"] = {}
    for _ in range(3):
        optimization.step(parameter * 1)
    assert parameter.item() == -2.5
    optimization.load_state_dict(state)
    optimization.step(parameter * 1)
    assert parameter.item() == -3.0


def test_a_state_of_other_parts_is_refused() -> None:
    """By their names, and before anything is changed."""
    model = Adversaries().learn(range(6))
    other = Optimization(optim.SGD(model.parameters(), lr=0.1))
    before = model.optimization.steps
    with pytest.raises(MismatchedState, match="schedulers has generator, discriminator, and the state has nothing"):
        model.optimization.load_state_dict({**other.state_dict(), "scaler": {}})
    assert model.optimization.steps == before
    with pytest.raises(MismatchedState, match="scaler"):
        model.optimization.load_state_dict(Adversaries(scales=False).optimization.state_dict())


def test_the_parts_are_known_by_name() -> None:
    """For whoever keeps the state of all that is in an aggregate."""
    parts = Adversaries().optimization.parts()
    assert {name: list(part) if isinstance(part, dict) else type(part) for name, part in parts.items()} == {
        "schedulers": ["generator", "discriminator"],
        "optimizers": ["generator", "discriminator"],
        "descents": ["generator", "discriminator"],
        "scaler": GradScaler,
    }


# What is refused when it is made


def sgd() -> optim.Optimizer:
    """Make an optimizer."""
    return optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate": 0},
        {"accumulate": -1},
        {"accumulate": 1.5},
        {"accumulate": True},
        {"warmup": -1},
        {"warmup": 0.1},
        {"clip_norm": 0},
        {"clip_norm": -1.0},
        {"clip_norm": math.nan},
        {"clip_norm": math.inf},
        {"clip_norm": "1"},
        {"clip_norm": {"optimizer": 0.0}},
        {"clip_value": 0.0},
        {"clip_value": True},
        {"sequential": "no"},
        {"sequential": 1},
    ],
    ids=str,
)
def test_options_out_of_their_bounds_are_refused(options: dict[str, Any]) -> None:
    """By name, with what they may be."""
    with pytest.raises(InvalidOptimization, match=rf"{next(iter(options))}=.*write (a|True)"):
        Optimization(sgd(), **options)


@pytest.mark.parametrize("option", ["clip_norm", "clip_value"])
def test_options_for_unknown_optimizers_are_refused(option: str) -> None:
    """Nobody would notice that they do nothing."""
    with pytest.raises(UnknownOptimizer, match=f"{option}: .*'optimiser'. Did you mean 'optimizer'"):
        Optimization(sgd(), **{option: {"optimiser": 1.0}})  # type: ignore[arg-type]


@pytest.mark.parametrize("optimizer", [{}, {1: sgd()}])
def test_optimizers_without_names_are_refused(optimizer: Any) -> None:
    """Losses come by name."""
    with pytest.raises(InvalidOptimization, match="several by name"):
        Optimization(optimizer)


@pytest.mark.parametrize("optimizer", [nn.Linear(1, 1).parameters(), None, "sgd", {"one": sgd(), "two": 0.1}])
def test_what_is_no_optimizer_is_refused(optimizer: Any) -> None:
    """With its name, if it has one."""
    with pytest.raises(InvalidOptimizer, match=r"torch\.optim\.Optimizer"):
        Optimization(optimizer)


def test_an_optimizer_that_steps_by_a_closure_is_refused() -> None:
    """It would want the loss, and not its gradients."""
    with pytest.raises(InvalidOptimizer, match="LBFGS"):
        Optimization(optim.LBFGS([nn.Parameter(torch.zeros(1))]))


@pytest.mark.parametrize("options", [{}, {"sequential": True, "accumulate": 2}])
def test_a_parameter_of_two_optimizers_is_refused(options: dict[str, Any]) -> None:
    """Unless the gradients of one are gone before those of the other are computed."""
    shared = nn.Parameter(torch.zeros(1))
    optimizers = {"one": optim.SGD([shared], lr=0.1), "two": optim.SGD([shared], lr=0.1)}
    with pytest.raises(SharedParameter, match="'one' and 'two'"):
        Optimization(optimizers, **options)


@pytest.mark.parametrize("losses", [-1, 2.0, True])
def test_an_epoch_of_no_whole_number_of_losses_is_refused(losses: Any) -> None:
    """Groups would come out wrong."""
    with pytest.raises(InvalidOptimization, match="losses"):
        Optimization(sgd()).begin(losses)
