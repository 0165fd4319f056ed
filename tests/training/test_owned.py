"""Optimizations wherever they stand in an aggregate, and those that take the place of others on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from tests.training.fakes import loader, names, written
from torchsystem import Aggregate
from torchsystem.training import Optimization, Supervised, Training, WeightAverage, device
from torchsystem.training.events import BatchEnded, OptimizerStepped
from torchsystem.training.owned import optimizations_of, optimizers_of


@pytest.fixture
def training() -> Training:
    """Return a training on the CPU."""
    made = Training()
    made.override(device, lambda: "cpu")
    return made


def part() -> Supervised:
    """Make an aggregate that accumulates two losses, and halves its rate with each epoch."""
    torch.manual_seed(0)
    network = nn.Linear(2, 2)
    optimizer = optim.SGD(network.parameters(), lr=0.1)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    return Supervised(network, nn.CrossEntropyLoss(), Optimization(optimizer, scheduler, accumulate=2))


class Whole(Aggregate):
    """An aggregate that leaves learning to what is inside it."""

    def __init__(self, hold: Callable[[Any, Supervised], None]) -> None:
        super().__init__()
        inner = part()
        self.learn = inner.fit
        hold(self, inner)

    def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.learn(inputs, targets)


def as_aggregate(whole: Any, inner: Supervised) -> None:
    """Hold it as an aggregate inside another."""
    whole.inner = inner


def in_a_dictionary(whole: Any, inner: Supervised) -> None:
    """Hold what learns in a dictionary."""
    whole.nn, whole.by_name = inner.nn, {"one": inner.optimization}


def in_a_list(whole: Any, inner: Supervised) -> None:
    """Hold what learns in a tuple in a list."""
    whole.nn, whole.several = inner.nn, [(inner.optimization,)]


@pytest.mark.parametrize("hold", [as_aggregate, in_a_dictionary, in_a_list])
def test_an_optimization_is_served_wherever_it_stands(training: Training, hold: Any) -> None:
    """Its last group is stepped on, its scheduler moves, and its steps are told and counted, as those of any other."""
    left_alone, whole = part(), Whole(hold)
    training.handle("fit", left_alone, {"train": loader(3)}, epochs=2)
    log = written(training.producer)
    training.handle("fit", whole, {"train": loader(3)}, epochs=2)
    (own,) = optimizations_of(whole)
    assert own.steps == left_alone.optimization.steps == whole.progress.step == 4
    assert own.learning_rates == left_alone.optimization.learning_rates == {"optimizer": [0.025]}
    assert names(log).count("OptimizerStepped") == 4
    alone = left_alone.optimization.optimizers["optimizer"].param_groups[0]["params"]
    assert all(map(torch.equal, own.optimizers["optimizer"].param_groups[0]["params"], alone))


def test_each_is_found_once_and_none_is_looked_for_in_data() -> None:
    """Held twice, it is one; what is full of data is not gone through item by item."""
    whole: Any = Aggregate()
    whole.inner, whole.other = part(), part()
    whole.again = {"first": whole.inner.optimization}
    whole.data = [whole.inner.optimization] * 1000
    whole.plain = optim.SGD(whole.inner.parameters(), lr=0.1)
    assert [*map(id, optimizations_of(whole))] == [id(whole.inner.optimization), id(whole.other.optimization)]
    assert list(optimizers_of(whole)) == ["optimizer", "plain", "other.optimization.optimizer"]


def test_an_optimizer_that_is_held_beside_its_optimization_is_one(training: Training) -> None:
    """So a search need not be told which of the two to tune."""
    model: Any = part()
    model.optimizer = model.optimization.optimizers["optimizer"]
    assert optimizers_of(model) == {"optimizer": model.optimizer}
    found = training.handle("tune-learning-rate", model, loader(1), lowest=1e-3, highest=100.0)
    assert found.suggestion > 0


class Replacing(Aggregate):
    """An aggregate that goes on with another optimizer after its first epoch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.nn = nn.Linear(2, 2)
        self.optimization = Optimization(optim.SGD(self.nn.parameters(), lr=0.1))

    def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        output = self.nn(inputs)
        loss = nn.functional.cross_entropy(output, targets)
        self.optimization.step(loss)
        return output, loss

    def onepoch(self) -> None:
        if self.epoch == 1:
            self.optimization = Optimization(optim.Adam(self.nn.parameters(), lr=0.1), accumulate=2)


def test_an_optimization_that_replaces_another_goes_on_counting(training: Training) -> None:
    """A budget of steps ends the run though the new one begins at 0; its steps are told, its last group stepped on."""
    log = written(training.producer)
    model = Replacing()
    training.handle("fit", model, {"train": loader(3)}, steps=6)
    counted = [event.progress.step for event in log if isinstance(event, BatchEnded)]
    assert counted == [1, 2, 3, 3, 4, 5, 5, 6]  # three batches; then a group of two and one of one; then a group
    assert len([event for event in log if isinstance(event, OptimizerStepped)]) == 6
    assert model.progress.step == 6
    assert log[-1].reason == "6 steps are done"
    training.handle("fit", model, {"train": loader(3)}, steps=7)
    assert model.progress.step == 7


def test_steps_that_were_made_by_hand_before_a_run_count() -> None:
    """The budget is that of the optimization, whoever has made its steps."""
    training = Training()
    training.override(device, lambda: "cpu")
    model = Replacing()
    for inputs, targets in loader(2):
        model.fit(inputs, targets)
    training.handle("fit", model, {"train": loader(9)}, steps=5)
    assert (model.optimization.steps, model.progress.step, model.progress.batch) == (5, 5, 3)


def test_an_average_within_a_part_is_of_that_part(training: Training) -> None:
    """What is inside an aggregate may average itself; steps of the whole are its steps."""
    whole = Whole(as_aggregate)
    inner: Any = whole.inner
    average = WeightAverage(inner.nn, inner.optimization.optimizers["optimizer"], decay=0.5)
    training.handle("fit", whole, {"train": loader(4)}, epochs=1)
    assert average.steps == 2
