"""What a batch costs in Python calls: a measure that knows no noise, beside a loop written by hand."""

from __future__ import annotations

import cProfile
import gc
import pstats
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from tests.training.fakes import Clock
from torchsystem import Aggregate
from torchsystem.services import Consumer
from torchsystem.training import EarlyStopping, Optimization, Training, accuracy, device, metrics
from torchsystem.training.events import BatchEnded, EpochEnded, GradientsUpdated, OptimizerStepped

Batches = list[tuple[Tensor, Tensor]]


class Classifier(Aggregate):
    """The aggregate of a quick start."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.nn = network
        self.criterion = nn.CrossEntropyLoss()
        self.optimization = Optimization(optim.SGD(network.parameters(), lr=0.05))

    def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Learn from a batch."""
        output = self.nn(inputs)
        loss = self.criterion(output, targets)
        self.optimization.step(loss)
        return output, loss


def network() -> nn.Module:
    """Make a small perceptron."""
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def by_hand(given: Batches) -> None:
    """Train and do nothing else."""
    model, criterion = network(), nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.05)
    for inputs, targets in given:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()


def by_hand_with_everything(given: Batches) -> None:
    """Train with metrics, as one writes them."""
    model, criterion = network(), nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.05)
    total, hits, seen = torch.zeros(()), torch.zeros((), dtype=torch.long), 0
    for inputs, targets in given:
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = criterion(outputs, targets)
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(targets)
        hits += (outputs.detach().argmax(1) == targets).sum()
        seen += len(targets)
    assert total.item() / seen >= 0
    assert hits.item() <= seen


def ours(given: Batches, *listeners: Consumer, **options: Any) -> None:
    """Train by the ready-made loop."""
    training = Training(**options)
    training.override(device, lambda: "cpu")
    training.producer.register(*listeners)
    training.handle("fit", Classifier(network()), {"train": given}, epochs=1)


def ours_with_everything(given: Batches) -> None:
    """Train with metrics, a listener of epochs, and early stopping."""
    training = Training()
    training.override(device, lambda: "cpu")
    training.override(metrics, lambda: {"accuracy": accuracy})
    training.producer.register(listening(EpochEnded), EarlyStopping("train/loss", "min", patience=1000))
    training.handle("fit", Classifier(network()), {"train": given}, epochs=1)


def listening(*kinds: type) -> Consumer:
    """Make a listener of some events that does nothing."""
    consumer = Consumer("listening")
    for kind in kinds:

        def hear(event: object) -> None:
            """Do nothing."""

        hear.__annotations__["event"] = kind
        consumer.handler(hear)
    return consumer


def calls_of(run: Callable[[Batches], None]) -> float:
    """Count the Python calls of one more batch."""
    counts: list[int] = []
    generator = torch.Generator().manual_seed(1)
    for number in (64, 192):  # both are folded an even number of times
        given = [(torch.randn(4, 8, generator=generator), torch.arange(4) % 3) for _ in range(number)]
        run(given[:1])  # what is done once for a process is no batch's business
        gc.collect()  # nor is what other tests have left behind
        gc.disable()  # nor what is called whenever there is garbage
        try:
            profile = cProfile.Profile()
            profile.runcall(run, given)
        finally:
            gc.enable()
        counts.append(vars(pstats.Stats(profile))["total_calls"])
    return (counts[1] - counts[0]) / 128


@pytest.mark.parametrize(
    ("loop", "hand"), [(ours, by_hand), (ours_with_everything, by_hand_with_everything)], ids=["bare", "everything on"]
)
def test_a_batch_costs_few_calls_more_than_by_hand(
    loop: Callable[[Batches], None], hand: Callable[[Batches], None]
) -> None:
    """Ten at most, bare and with per-batch loss and accuracy, listeners of epochs and early stopping."""
    assert calls_of(loop) < calls_of(hand) + 10.5  # what is done every few batches is no call of each


def test_one_event_per_batch_with_one_handler_costs_few_calls() -> None:
    """Building it, its progress, dispatching it, and the handler itself."""
    assert calls_of(lambda given: ours(given, listening(BatchEnded))) <= calls_of(ours) + 32


def test_what_nobody_hears_costs_nothing() -> None:
    """A listener of epochs is no business of a batch."""
    assert calls_of(lambda given: ours(given, listening(EpochEnded))) <= calls_of(ours) + 0.5


def test_each_further_event_is_as_cheap() -> None:
    """With those of an optimization heard, too, each is built once and handed to its handlers."""
    one = calls_of(lambda given: ours(given, listening(BatchEnded)))
    three = calls_of(lambda given: ours(given, listening(BatchEnded, GradientsUpdated, OptimizerStepped)))
    assert three <= one + 2 * 32 + 30  # the optimization does not take its shortest way, then


def test_a_budget_of_steps_costs_few_calls() -> None:
    """It is looked at between two batches, which needs no progress to be built."""
    training_clock = Clock()

    def budgeted(given: Batches) -> None:
        training = Training(clock=training_clock)
        training.override(device, lambda: "cpu")
        training.handle("fit", Classifier(network()), {"train": given}, steps=10_000, epochs=1)

    assert calls_of(budgeted) <= calls_of(ours) + 12
