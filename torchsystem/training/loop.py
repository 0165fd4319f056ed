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
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

from torchsystem.domain import Aggregate
from torchsystem.errors import InvalidSplit
from torchsystem.services import Mailbox, Producer, Timers
from torchsystem.training.batches import count, samples_in
from torchsystem.training.budget import Budget, checked_limit
from torchsystem.training.cursor import Cursor
from torchsystem.training.epoch import Epoch, opened, taken_up
from torchsystem.training.events import BatchEnded, BatchStarted
from torchsystem.training.held import generators_of, generators_of_modules
from torchsystem.training.interrupts import notes
from torchsystem.training.randomness import untouched
from torchsystem.training.run import Run
from torchsystem.training.splits import refuse_empty
from torchsystem.training.tracker import Clock

B = TypeVar("B")


def epochs(  # noqa: PLR0913 - each says one thing about how long to train, or whom to tell
    aggregate: Aggregate,
    producer: Producer | None = None,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    samples: int | None = None,
    seconds: float | None = None,
    clock: Clock = time.monotonic,
    timers: Timers | None = None,
    mailbox: Mailbox | None = None,
    accept: str | Iterable[str] = (),
) -> Iterator[Epoch]:
    """Go through the epochs of a run, and tell of them.

    The budget is the total: the same line on an aggregate that was trained before goes on, and changes nothing when
    all is done; where it was restored from a checkpoint, it goes on in the middle of an epoch too. A stop that somebody
    asks for (a `StopIteration` among the aggregate's events, from `onepoch`, or from a listener) ends it after the
    facts of the epoch are out.

    Args:
        aggregate: What is trained.
        producer: Who hears of it; nobody by default.
        epochs: How many epochs, in all.
        steps: How many optimizer steps, in all.
        samples: How many training samples, in all.
        seconds: How many seconds of running, in all.
        clock: What tells seconds.
        timers: What is due by the clock, handed to listeners between batches.
        mailbox: What to let go of when an epoch is over.
        accept: Names, or patterns with `*`, of what may differ from what an interrupted run began with, such as
            `"train.batch_size"`.

    Yields:
        Each epoch, to be given to `batches`.

    Raises:
        InvalidBudget: Nothing says how long.
        MismatchedRun: The run that is to go on began with other data.
    """
    budget = Budget(epochs, steps, samples, seconds)
    hearers = Producer(failures="finish") if producer is None else producer
    run = Run(aggregate, hearers, budget, clock=clock, timers=timers, mailbox=mailbox, accept=accept)
    return lived(run)


def lived(run: Run) -> Generator[Epoch]:
    """Yield one epoch of a run after the other, until the budget is used up or somebody asks for a stop."""
    run.is_whole = True
    with run.under_way():
        try:
            epoch = taken_up(run)
            while run.goes_on():
                epoch = opened(run) if epoch is None else epoch
                yield epoch
                if run.is_cut:
                    break
                run.finish(epoch)
                epoch = None
            run.end(run.reason)
        except GeneratorExit:
            if not (run.has_failed or run.has_left):
                run.leave()
            raise
        except BaseException as error:
            run.fail(error)
            raise


def batches(epoch: Epoch, loader: Iterable[B], *, split: str = "train", limit: int | None = None) -> Iterator[B]:
    """Go through the batches of a split; those of the one to learn from are counted and told of.

    Between two batches nothing is under way: there the budget is looked at, signals are acted on, and checkpoints are
    made. A split that was gone through before the run was interrupted has no batches left.

    Args:
        epoch: The epoch under way.
        loader: The batches.
        split: What they are; `"train"` is the split to learn from.
        limit: How many to take at most, for a smoke run.

    Returns:
        Each batch, as it is.

    Raises:
        InexactLoader: The run could not be continued exactly, and a listener promises that.
        InvalidBudget: The limit is no number of batches.
        InvalidSplit: The loader is an iterator, and spent; the split is under way already; the epoch is none; or no
            batch comes of the split to learn from.
        MismatchedRun: The run goes on, and began with other data.
    """
    limit = checked_limit(limit, least=0)
    if not isinstance(epoch, Epoch):
        message = (
            f"batches({type(epoch).__qualname__}, ...): the epoch comes first. Write batches(epoch, loader), in "
            f"`for epoch in epochs(...)`."
        )
        raise InvalidSplit(message)
    is_cut = epoch.run.is_cut
    if epoch.is_behind(split) or (is_cut and split == "train"):
        return iter(())
    cursor = epoch.run.cursors.over(loader, split)
    if split == "train":
        return learned(epoch, cursor, split, limit)
    return (_seen_besides if is_cut else seen)(epoch, cursor, split, limit)


def learned(
    epoch: Epoch, cursor: Cursor, split: str, limit: int | None, bring: Callable[[Any], Any] | None = None
) -> Iterator[Any]:
    """Go through the batches of the split to learn from, each brought to where it is wanted; count them, and tell."""
    run = epoch.run
    tracker, budget, due = run.tracker, run.budget, run.due
    looks_at_budget, polls = not budget.is_for_epochs_alone, run.timers is not None
    starts, ends = run.producer.wants(BatchStarted), run.producer.wants(BatchEnded)
    opened, expected = cursor.open(epoch.number, limit), count(cursor.loader, limit)
    left = None if expected is None else expected - cursor.position
    with epoch.through(split, expected), run.learning(left):
        if looks_at_budget and _is_spent(run):
            return
        for batch in opened:
            if looks_at_budget and expected is None and _is_spent(run):
                return
            if bring is not None:
                batch = bring(batch)  # noqa: PLW2901 - it stays the same batch
            if starts:
                run.tell(BatchStarted, batch)
            tracker.in_batch = samples_in(batch)
            run.is_in_batch = True
            yield batch
            run.is_in_batch = False
            tracker.batch += 1
            tracker.batch_in_epoch += 1
            tracker.samples += tracker.in_batch
            cursor.position += 1
            if ends:
                run.tell(BatchEnded, batch, *epoch.fitted)
            if due or polls or notes.signal is not None:
                run.be_safe(split)
            if looks_at_budget and expected is not None and cursor.position != expected and _is_spent(run):
                return
        if not cursor.position:
            refuse_empty(cursor.loader, split, limit)


def seen(
    epoch: Epoch, cursor: Cursor, split: str, limit: int | None, bring: Callable[[Any], Any] | None = None
) -> Iterator[Any]:
    """Go through the batches of a split that is not learned from."""
    run = epoch.run
    due, polls = run.due, run.timers is not None
    opened, within = cursor.open(epoch.number, limit), run.is_in_batch
    with epoch.through(split, count(cursor.loader, limit)):
        for batch in opened:
            run.is_in_batch = True
            yield batch if bring is None else bring(batch)
            run.is_in_batch = within
            cursor.position += 1
            if due or polls or notes.signal is not None:
                run.be_safe(split)


def _seen_besides(epoch: Epoch, cursor: Cursor, split: str, limit: int | None) -> Iterator[Any]:
    """Go through a split though the budget was used up in the middle of the epoch, and leave random numbers alone.

    Whoever goes on there with a larger budget is then as if nobody had looked.
    """
    with untouched(generators_of(cursor.loader) | generators_of_modules(epoch.run.aggregate)):
        yield from seen(epoch, cursor, split, limit)


def _is_spent(run: Run) -> bool:
    """Look whether the budget is used up in the middle of an epoch; if so, the run is cut there."""
    reason = run.budget.spent_in_epoch(run.tracker)
    if reason is not None:
        run.reason, run.is_cut = run.reason or reason, True
    return reason is not None
