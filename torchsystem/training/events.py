"""The life of a run, as events, and where each of them fires.

```text
ProcessStarted                        each time that `fit` is called
TrainingStarted                       only if the run had not begun before
│
├─ for each epoch
│   EpochStarted
│   │
│   ├─ for each batch of "train"
│   │   BatchStarted
│   │   │  aggregate.fit(*batch)
│   │   │     forward → backward → GradientsUpdated
│   │   │     on a real step: clip → optimizer.step() → OptimizerStepped → zero_grad
│   │   BatchEnded
│   │
│   Trained
│   ├─ for each other split that is due
│   │   Validated
│   EpochEnded                        aggregate.epoch counts this epoch from here on
│      aggregate.events.commit()      a stop that somebody asked for takes effect here
│
TrainingEnded                         with the reason

TrainingFailed                        instead of TrainingEnded, before the exception goes on
Interrupted                           instead of TrainingEnded, when a signal came: between two batches of any split

BatchPredicted                        for each batch that `predict` goes through
Predicted                             when it is through, or at once if it knew the answer
```

All of them carry the aggregate and the `Progress` of its run.
(The vocabulary is close to that of ignite and composer, which have shown what one listens to.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchsystem.domain import Aggregate
from torchsystem.progress import Progress
from torchsystem.services import event


@event
class Lifecycle:
    """What all events of a run have.

    Attributes:
        aggregate: What is trained.
        progress: How far its run has come.
    """

    aggregate: Aggregate
    progress: Progress


@event
class ProcessStarted(Lifecycle):
    """`fit` was called: in this process the run begins, or goes on."""


@event
class TrainingStarted(Lifecycle):
    """The run begins: nothing was trained before."""


@event
class EpochStarted(Lifecycle):
    """An epoch begins; `progress.epoch` counts those before it."""


@event
class BatchStarted(Lifecycle):
    """A batch of the training split is about to be fitted.

    Attributes:
        batch: The batch, on the device.
    """

    batch: Any


@event
class GradientsUpdated(Lifecycle):
    """A backward pass is done.

    Attributes:
        optimizer: The name of the optimizer whose loss it was.
        index: The position of the batch in its group of accumulated batches, from 0.
        steps: Whether the optimizer's step follows. For the last group of a loader of unknown length nobody knows: its
            step is made when there are no more batches.
    """

    optimizer: str
    index: int
    steps: bool


@event
class OptimizerStepped(Lifecycle):
    """An optimizer made a real step: not one that was only accumulated for, nor one that a scaler skipped.

    Attributes:
        optimizer: Its name.
    """

    optimizer: str


@event
class BatchEnded(Lifecycle):
    """A batch of the training split was fitted.

    Attributes:
        batch: The batch, on the device.
        predictions: What the aggregate predicted, detached.
        loss: Its loss, detached. To read its value is to wait for the device.
    """

    batch: Any
    predictions: Any
    loss: Any


@event
class Trained(Lifecycle):
    """The training split was gone through once.

    Attributes:
        metrics: Its metrics, by name; the loss is always among them.
    """

    metrics: Mapping[str, float]


@event
class Validated(Lifecycle):
    """Another split was gone through once, without learning.

    Attributes:
        split: The name of the split.
        metrics: Its metrics, by name; the loss is always among them.
    """

    split: str
    metrics: Mapping[str, float]


@event
class EpochEnded(Lifecycle):
    """An epoch is over: all its facts are known, and it counts.

    Attributes:
        metrics: All metrics of the epoch, by split and name: `"validation/loss"`.
    """

    metrics: Mapping[str, float]


@event
class BatchPredicted(Lifecycle):
    """A batch was predicted.

    Attributes:
        predictions: What the aggregate predicted, transformed if that was asked for.
        targets: What was to be predicted; None if the batch does not say.
        metadata: What the aggregate's `metadata(batch)` says of it; None if it has no such method.
        dataset: The name of the split.
    """

    predictions: Any
    targets: Any
    metadata: Any
    dataset: str


@event
class Predicted(Lifecycle):
    """A split was predicted.

    Attributes:
        dataset: The name of the split.
        predictions: All predictions, collated.
        is_cached: Whether they are those of an earlier time: the aggregate has not changed since, so no batch was
            predicted now.
    """

    dataset: str
    predictions: Any
    is_cached: bool


@event
class Interrupted(Lifecycle):
    """A signal came. This is a safe point: what is kept now can be continued; then the process ends.

    Attributes:
        signal: Its number.
    """

    signal: int


@event
class TrainingEnded(Lifecycle):
    """The run is over in this process.

    Attributes:
        reason: Why: what it was budgeted for is done, or somebody asked it to stop.
    """

    reason: str


@event
class TrainingFailed(Lifecycle):
    """The run failed; the exception goes on after this.

    Attributes:
        error: The exception.
    """

    error: BaseException
