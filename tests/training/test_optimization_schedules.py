"""What `Optimization` promises of learning rates, one rule per test."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn, optim
from torch.optim import lr_scheduler

from torchsystem.errors import InvalidOptimization, InvalidScheduler, MissingMetric, UnknownOptimizer
from torchsystem.training.optimization import Optimization


class Recorder(optim.SGD):
    """Keep the learning rates that steps were made with."""

    def __init__(self, parameters: Any, lr: Any) -> None:
        super().__init__(parameters, lr=lr)
        self.rates: list[float] = []

    def step(self, closure: Any = None) -> Any:
        self.rates.append(round(float(self.param_groups[0]["lr"]), 6))
        return super().step(closure)


def recorder(lr: Any = 1.0) -> Recorder:
    """Make an optimizer of one parameter."""
    return Recorder([nn.Parameter(torch.zeros(()))], lr)


def loss_of(optimizer: optim.Optimizer) -> Tensor:
    """Compute a loss of the parameter."""
    parameter: Tensor = optimizer.param_groups[0]["params"][0]
    return parameter * 1.0


def run(optimization: Optimization, optimizer: optim.Optimizer, epochs: int, batches: int) -> None:
    """Train for a while."""
    for _ in range(epochs):
        optimization.begin(batches)
        for _ in range(batches):
            optimization.step(loss_of(optimizer))
        optimization.finish()
        optimization.epoch_ended()


def test_a_scheduler_moves_per_epoch() -> None:
    """Unless it is told otherwise."""
    optimizer = recorder()
    run(Optimization(optimizer, lr_scheduler.ExponentialLR(optimizer, 0.5)), optimizer, 3, 2)
    assert optimizer.rates == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_a_scheduler_moves_per_step() -> None:
    """A real one: losses that were only gathered are none, and an incomplete group is one."""
    optimizer = recorder()
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    run(Optimization(optimizer, scheduler, per="step", accumulate=2), optimizer, 2, 3)
    assert optimizer.rates == [1, 0.5, 0.25, 0.125]


def test_a_plateau_is_of_a_metric() -> None:
    """The one that it was told to watch."""
    optimizer = recorder()
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    optimization = Optimization(optimizer, scheduler, metric="validation/loss")
    for value in (1.0, torch.tensor(2.0), 0.5, 0.6):
        optimization.step(loss_of(optimizer))
        optimization.epoch_ended({"train/loss": 0.0, "validation/loss": value})
    assert optimizer.rates == [1, 1, 0.5, 0.5]
    assert optimization.learning_rates == {"optimizer": [0.25]}


@pytest.mark.parametrize("metrics", [None, {}, {"train/loss": 1.0}])
def test_a_metric_that_does_not_come_is_an_error(metrics: Any) -> None:
    """It says what came."""
    optimizer = recorder()
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer)
    optimization = Optimization(optimizer, scheduler, metric="validation/loss")
    with pytest.raises(MissingMetric, match=f"reports {next(iter(map(repr, metrics or [])), 'nothing')}"):
        optimization.epoch_ended(metrics)


def test_a_plateau_waits_for_a_split_that_is_not_due() -> None:
    """It moves by what comes; only a metric that nobody waits for is missing."""
    optimizer = recorder()
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    optimization = Optimization(optimizer, scheduler, metric="validation/loss")
    for reported in ({"validation/loss": 1.0}, {}, {"train/loss": 0.0}, {"validation/loss": 2.0}):
        optimization.epoch_ended(reported, waiting={"validation"})
    assert (scheduler.last_epoch, optimization.learning_rates) == (2, {"optimizer": [0.5]})
    with pytest.raises(MissingMetric):
        optimization.epoch_ended({"train/loss": 0.0}, waiting={"test"})


def test_each_optimizer_has_its_own_scheduler() -> None:
    """Or none; and each moves by its own measure."""
    optimizers = {name: recorder() for name in ("body", "head", "rest")}
    schedulers = {name: lr_scheduler.ExponentialLR(optimizers[name], 0.5) for name in ("body", "head")}
    optimization = Optimization(optimizers, schedulers, per={"head": "step"})
    for _ in range(2):
        for _ in range(2):
            optimization.step({name: loss_of(optimizer) for name, optimizer in optimizers.items()})
        optimization.epoch_ended()
    assert [optimizer.rates for optimizer in optimizers.values()] == [
        [1, 1, 0.5, 0.5],
        [1, 0.5, 0.25, 0.125],
        [1, 1, 1, 1],
    ]
    assert optimization.schedulers == schedulers


@pytest.mark.parametrize("lr", [1.0, torch.tensor(1.0)], ids=["number", "tensor"])
def test_a_warm_up_leads_to_what_the_scheduler_says(lr: Any) -> None:
    """Linearly, by real steps, also over the ends of epochs; the optimizer shows the rate without it."""
    optimizer = recorder(lr)
    optimization = Optimization(optimizer, lr_scheduler.ExponentialLR(optimizer, 0.5), warmup=4)
    kept = optimizer.param_groups[0]["lr"]
    assert optimization.learning_rates == {"optimizer": [0.25]}
    run(optimization, optimizer, 3, 3)
    assert optimizer.rates == [0.25, 0.5, 0.75, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert optimization.learning_rates == {"optimizer": [0.125]}
    assert (optimizer.param_groups[0]["lr"] is kept) == isinstance(lr, Tensor)


def test_a_step_that_fails_in_the_warm_up_leaves_the_rate_as_it_was() -> None:
    """Schedulers would compute from it for ever."""

    class Failing(Recorder):
        def step(self, closure: Any = None) -> Any:  # noqa: ARG002 - as every optimizer's
            raise ArithmeticError

    optimizer = Failing([nn.Parameter(torch.zeros(()))], 1.0)
    optimization = Optimization(optimizer, warmup=4)
    with pytest.raises(ArithmeticError):
        optimization.step(loss_of(optimizer))
    assert optimizer.param_groups[0]["lr"] == 1.0
    assert optimization.steps == 0


@settings(max_examples=40)
@given(
    warmup=st.integers(0, 6),
    accumulate=st.integers(1, 3),
    per=st.sampled_from(["epoch", "step"]),
    epochs=st.lists(st.integers(1, 5), max_size=4),
)
def test_rates_are_what_a_simple_model_says(warmup: int, accumulate: int, per: Any, epochs: list[int]) -> None:
    """However warm-up, accumulation and schedule come together."""
    optimizer = recorder()
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimization = Optimization(optimizer, scheduler, accumulate=accumulate, warmup=warmup, per=per)
    expected: list[float] = []
    for epoch, batches in enumerate(epochs):
        run(optimization, optimizer, 1, batches)
        for _ in range(-(-batches // accumulate)):
            moves = epoch if per == "epoch" else len(expected)
            expected.append(0.5**moves * min(1.0, (len(expected) + 1) / max(warmup, 1)))
    assert optimizer.rates == pytest.approx(expected, abs=2e-6)
    assert optimization.steps == len(expected)


@pytest.mark.parametrize("per", ["epoch", "step"])
def test_a_fresh_copy_moves_its_own_rates(per: Any) -> None:
    """Without the warning that torch has for copies, whose optimizers lose a mark that schedulers look for."""
    original = optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    scheduler = lr_scheduler.SequentialLR(
        original, [lr_scheduler.ConstantLR(original, 0.5), lr_scheduler.ExponentialLR(original, 0.5)], milestones=[1]
    )
    twin = copy.deepcopy(Optimization(original, scheduler, per=per))
    optimizer = twin.optimizers["optimizer"]
    for _ in range(3):
        twin.step(loss_of(optimizer))
        twin.epoch_ended()
    assert twin.learning_rates == {"optimizer": [0.25]}
    assert original.param_groups[0]["lr"] == 0.5


def wrong_schedulers() -> dict[str, tuple[Any, type[Exception], str]]:
    """Name options that make no sense, the error, and what it says."""
    one, other = recorder(), recorder()
    exponential = lr_scheduler.ExponentialLR(one, 0.5)
    plateau = lr_scheduler.ReduceLROnPlateau(one)
    both = {"one": one, "other": other}
    return {
        "none": ({"optimizer": one, "scheduler": 0.5}, InvalidScheduler, "no scheduler"),
        "other": ({"optimizer": other, "scheduler": exponential}, InvalidScheduler, "another optimizer"),
        "unnamed": ({"optimizer": both, "scheduler": exponential}, InvalidOptimization, "several optimizers"),
        "unknown": ({"optimizer": both, "scheduler": {"on": exponential}}, UnknownOptimizer, "Did you mean 'one'"),
        "swapped": ({"optimizer": both, "scheduler": {"other": exponential}}, InvalidScheduler, "another optimizer"),
        "per": ({"optimizer": one, "scheduler": exponential, "per": "batch"}, InvalidOptimization, "'epoch' or 'step'"),
        "idle": ({"optimizer": one, "per": "step"}, InvalidOptimization, "no scheduler"),
        "unwatched": ({"optimizer": one, "scheduler": plateau}, InvalidOptimization, "metric='validation/loss'"),
        "plateau": (
            {"optimizer": one, "scheduler": plateau, "metric": "loss", "per": "step"},
            InvalidOptimization,
            "moves per epoch",
        ),
        "metric": ({"optimizer": one, "scheduler": exponential, "metric": "loss"}, InvalidOptimization, "watches"),
    }


@pytest.mark.parametrize("mistake", wrong_schedulers())
def test_schedules_that_mean_nothing_are_refused(mistake: str) -> None:
    """When they are given, and not when they would be needed."""
    options, error, message = wrong_schedulers()[mistake]
    with pytest.raises(error, match=message):
        Optimization(**options)
