"""The loop: generators of epochs and batches, with the events of a run and its safe points built in.

They serve the user's own loop, and `Training` is made of them. Take our imports away, and a loop remains:

```python
from torch import nn, optim, tensor

from torchsystem.services import Producer
from torchsystem.training import Supervised, batches, epochs

network = nn.Linear(2, 2)
model = Supervised(network, nn.CrossEntropyLoss(), optim.SGD(network.parameters(), lr=0.1))
loader = [(tensor([[0.0, 1.0]]), tensor([1]))]
producer = Producer()

for epoch in epochs(model, producer, epochs=3):     # for epoch in range(3):
    for inputs, targets in batches(epoch, loader):  #     for inputs, targets in loader:
        predictions, loss = model.fit(inputs, targets)

assert model.epoch == 3
```
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from torchsystem.domain import Aggregate
from torchsystem.services import Producer
from torchsystem.training.batches import count, samples_in
from torchsystem.training.budget import Budget
from torchsystem.training.events import (
    BatchEnded,
    BatchStarted,
    EpochEnded,
    EpochStarted,
    GradientsUpdated,
    Lifecycle,
    OptimizerStepped,
    ProcessStarted,
    Trained,
    TrainingEnded,
    TrainingFailed,
    TrainingStarted,
    Validated,
)
from torchsystem.training.optimization import Optimization
from torchsystem.training.tracker import Clock, Tracker

B = TypeVar("B")


class Epoch:
    """One epoch under way.

    Attributes:
        number: How many epochs were finished before it.
        metrics: What was reported in it, by split and name: `"validation/loss"`.
    """

    __slots__ = ("fitted", "metrics", "number", "run")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.number = run.aggregate.epoch
        self.metrics: dict[str, float] = {}
        self.fitted: tuple[Any, Any] = (None, None)  # predictions and loss of the last batch, for who hears of it

    def report(self, split: str, metrics: Mapping[str, float]) -> None:
        """Make the metrics of a split known: `Trained` for `"train"`, `Validated` for any other."""
        self.metrics |= {f"{split}/{name}": value for name, value in metrics.items()}
        run = self.run
        if split == "train":
            run.tell(Trained, metrics)
        else:
            run.tell(Validated, split, metrics)


class Run:
    """A run in this process: what is trained, who hears of it, how long it may take, and whether it shall stop.

    Args:
        aggregate: What is trained.
        producer: Who hears of it.
        budget: How long to train, in all.
        clock: What tells seconds.
    """

    def __init__(
        self,
        aggregate: Aggregate,
        producer: Producer,
        budget: Budget,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        budget.check()
        self.aggregate = aggregate
        self.producer = producer
        self.budget = budget
        self.optimizations = [value for value in vars(aggregate).values() if isinstance(value, Optimization)]
        self.tracker = Tracker(aggregate, clock, self.optimizations)
        self.reason: str | None = None  # why the run is to end, as soon as the facts of the epoch are out
        self.is_cut = False  # the budget was used up between two batches
        self.has_failed = False

    def tell(self, kind: type[Lifecycle], *facts: object) -> None:
        """Dispatch an event, if anybody hears it. A stop that a listener asks for is noted, and undone by nobody."""
        if not self.producer.wants(kind):
            return
        try:
            self.producer.dispatch(kind(self.aggregate, self.tracker.progress(), *facts))
        except StopIteration as stop:
            self.stop(stop)

    def stop(self, stop: StopIteration) -> None:
        """Note that the run is to end after this epoch, and why; the first who asks is named.

        Raises:
            BaseException: What else failed when the stop was asked for: it is no reason, but a failure.
        """
        if stop.__cause__ is not None:
            raise stop.__cause__
        if self.reason is None:
            self.reason = str(stop) or "a stop was asked for"

    def epochs(self) -> Iterator[Epoch]:
        """Yield one epoch after the other, until the budget is used up or somebody asks for a stop."""
        self._begin()
        try:
            while self._goes_on():
                epoch = Epoch(self)
                self.tracker.batch_in_epoch = 0
                self.tell(EpochStarted)
                yield epoch
                if self.is_cut:
                    break
                self._finish(epoch)
        except GeneratorExit:
            if not self.has_failed:
                self._end(self.reason or "the loop was left")
            raise
        self._end(self.reason)

    @contextmanager
    def learning(self, losses: int | None) -> Generator[None]:
        """Have the optimizations know how many losses are to come, be heard, and finish their last group.

        Args:
            losses: How many batches there are; None if nobody knows.
        """
        gradients = partial(self.tell, GradientsUpdated) if self.producer.wants(GradientsUpdated) else None
        steps = partial(self.tell, OptimizerStepped) if self.producer.wants(OptimizerStepped) else None
        for optimization in self.optimizations:
            optimization.listen(gradients, steps)
            optimization.begin(losses)
        try:
            yield
            if not self.is_cut:
                for optimization in self.optimizations:
                    optimization.finish()
        finally:
            for optimization in self.optimizations:
                optimization.listen()

    def fail(self, error: BaseException) -> None:
        """Say that the run failed; what listeners make of it does not hide the error."""
        self.has_failed = True
        self.tracker.save()
        try:
            self.tell(TrainingFailed, error)
        except Exception as failure:  # noqa: BLE001 - the exception that is on its way is the one to see
            error.add_note(f"while saying that the training failed: {failure!r}")

    def _end(self, reason: str | None) -> None:
        self.tracker.save()
        self.tell(TrainingEnded, reason)

    def _begin(self) -> None:
        self.tell(ProcessStarted)
        if self.aggregate.epoch == 0 and self.tracker.batch == 0:
            self.tell(TrainingStarted)

    def _goes_on(self) -> bool:
        if self.reason is None:
            self.reason = self.budget.spent(self.tracker, self.aggregate.epoch)
        return self.reason is None

    def _finish(self, epoch: Epoch) -> None:
        """Count the epoch and make its facts known; only then may whoever asked for a stop have it."""
        try:
            self.aggregate.epoch += 1
        except StopIteration as stop:  # from `onepoch`; the epoch counts all the same
            self.stop(stop)
        for optimization in self.optimizations:
            optimization.epoch_ended(epoch.metrics)
        self.tracker.save()
        self.tell(EpochEnded, epoch.metrics)
        try:
            self.aggregate.events.commit()
        except StopIteration as stop:
            self.stop(stop)


def epochs(  # noqa: PLR0913 - each says one thing about how long to train
    aggregate: Aggregate,
    producer: Producer | None = None,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    samples: int | None = None,
    seconds: float | None = None,
    clock: Clock = time.monotonic,
) -> Iterator[Epoch]:
    """Go through the epochs of a run, and tell of them.

    The budget is the total: the same line on an aggregate that was trained before goes on, and changes nothing when
    all is done. A stop that somebody asks for (a `StopIteration` among the aggregate's events, from `onepoch`, or from
    a listener) ends it after the facts of the epoch are out.

    Args:
        aggregate: What is trained.
        producer: Who hears of it; nobody by default.
        epochs: How many epochs, in all.
        steps: How many optimizer steps, in all.
        samples: How many training samples, in all.
        seconds: How many seconds of running, in all.
        clock: What tells seconds.

    Yields:
        Each epoch, to be given to `batches`.

    Raises:
        InvalidBudget: Nothing says how long.
    """
    budget = Budget(epochs, steps, samples, seconds)
    run = Run(aggregate, Producer(failures="finish") if producer is None else producer, budget, clock=clock)
    return run.epochs()


def batches(epoch: Epoch, loader: Iterable[B], *, limit: int | None = None) -> Iterator[B]:
    """Go through the batches of the training split, count them, and tell of them.

    Between two batches nothing is under way: there the budget is looked at.

    Args:
        epoch: The epoch under way.
        loader: The batches.
        limit: How many to take at most, for a smoke run.

    Yields:
        Each batch, as it is.
    """
    run = epoch.run
    tracker, budget = run.tracker, run.budget
    looks_at_budget = not budget.is_for_epochs_alone
    starts, ends = run.producer.wants(BatchStarted), run.producer.wants(BatchEnded)
    with run.learning(count(loader, limit)):
        for batch in loader if limit is None else islice(loader, limit):
            if looks_at_budget and (reason := budget.spent_in_epoch(tracker)) is not None:
                run.reason, run.is_cut = run.reason or reason, True
                return
            if starts:
                run.tell(BatchStarted, batch)
            tracker.in_batch = samples_in(batch)
            yield batch
            tracker.batch += 1
            tracker.batch_in_epoch += 1
            tracker.samples += tracker.in_batch
            if ends:
                run.tell(BatchEnded, batch, *epoch.fitted)
