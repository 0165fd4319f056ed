"""Where a run stands: counted while it goes, and handed out as one value."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torchsystem.domain import Aggregate
from torchsystem.progress import Progress
from torchsystem.training.optimization import Optimization

Clock = Callable[[], float]


class Tracker:
    """Count a run's batches, steps and samples; the aggregate counts its epochs itself.

    The counters go on from the aggregate's `progress`, which is part of its snapshot, so that a run that continues
    counts on.

    Args:
        aggregate: What is trained.
        clock: What tells seconds.
        optimizations: What counts the real steps of its optimizers, if it has such.
    """

    __slots__ = (
        "_aggregate",
        "_before",
        "_clock",
        "_optimizations",
        "_started",
        "batch",
        "batch_in_epoch",
        "in_batch",
        "samples",
    )

    def __init__(self, aggregate: Aggregate, clock: Clock, optimizations: Sequence[Optimization]) -> None:
        known = aggregate.progress
        self._aggregate = aggregate
        self._clock = clock
        self._started = clock()
        self._before = known.elapsed
        self._optimizations = optimizations
        self.batch: int = known.batch
        self.batch_in_epoch: int = known.batch_in_epoch
        self.samples: int = known.samples
        self.in_batch = 0  # samples in the batch under way

    @property
    def elapsed(self) -> float:
        """The seconds spent in the run, in all."""
        return self._before + self._clock() - self._started

    @property
    def steps(self) -> int:
        """The real steps of all optimizers; as many as batches where nobody counts them."""
        if not self._optimizations:
            return self.batch
        first, *others = self._optimizations
        return first.steps + sum(one.steps for one in others) if others else first.steps

    def progress(self) -> Progress:
        """Return how far the run has come."""
        return Progress(self._aggregate.epoch, self.batch, self.batch_in_epoch, self.steps, self.samples, self.elapsed)

    def save(self) -> Progress:
        """Write the progress into the aggregate, and return it."""
        progress = self.progress()
        self._aggregate.progress = progress
        return progress
