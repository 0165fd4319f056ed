"""A small aggregate, ready batches, and listeners that write down what they hear."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn, optim

from torchsystem import Aggregate
from torchsystem.services import Consumer, Producer
from torchsystem.training.events import Lifecycle


class Learner(Aggregate):
    """A linear classifier that counts its calls."""

    def __init__(self, *, patience: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.nn = nn.Linear(2, 2)
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = optim.SGD(self.nn.parameters(), lr=0.1)
        self.patience = patience
        self.calls: list[str] = []

    def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.append("fit")
        assert self.phase == "train"
        loss = self.criterion(self.nn(inputs), targets)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return self.nn(inputs).argmax(1), loss

    def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.append("evaluate")
        assert self.phase == "evaluation"
        assert not torch.is_grad_enabled()
        predictions = self.nn(inputs)
        return predictions.argmax(1), self.criterion(predictions, targets)

    def onepoch(self) -> None:
        if self.patience is not None and self.epoch >= self.patience:
            raise StopIteration("the patience is over")


def loader(count: int = 3, samples: int = 4) -> list[tuple[Tensor, Tensor]]:
    """Make batches that are the same in every run."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(samples, 2, generator=generator), torch.arange(samples) % 2) for _ in range(count)]


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def written(producer: Producer) -> list[Any]:
    """Return the list to which every event of a producer is written."""
    log: list[Any] = []
    consumer = Consumer("writer")

    @consumer.handler
    def write(event: Lifecycle) -> None:
        log.append(event)

    producer.register(consumer)
    return log


def names(log: list[Any]) -> list[str]:
    """Name the events."""
    return [type(event).__name__ for event in log]
