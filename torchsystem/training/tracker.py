"""Where a run stands: counted while it goes, and handed out as one value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

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
        "_clock",
        "_known",
        "_optimizations",
        "_others",
        "_started",
        "batch",
        "batch_in_epoch",
        "in_batch",
        "samples",
    )

    def __init__(self, aggregate: Aggregate, clock: Clock, optimizations: Sequence[Optimization]) -> None:
        known = self._known = aggregate.progress
        self._aggregate = aggregate
        self._clock = clock
        self._started = clock()
        self.batch: int = known.batch
        self._optimizations = optimizations
        self._others = max(0, known.step - self._counted())  # steps of optimizers that are gone
        self.batch_in_epoch: int = known.batch_in_epoch
        self.samples: int = known.samples
        self.in_batch = 0  # samples in the batch under way

    @property
    def elapsed(self) -> float:
        """The seconds spent in the run, in all."""
        return self._known.elapsed + self._clock() - self._started

    @property
    def steps(self) -> int:
        """The real steps of all optimizers, those that are gone too; as many as batches where nobody counts them."""
        return self._others + self._counted()

    def follow(self, optimizations: Sequence[Optimization]) -> None:
        """Count the steps of these from now on. Those that others have made stay counted."""
        if [*map(id, optimizations)] != [*map(id, self._optimizations)]:
            before = self.steps
            self._optimizations = optimizations
            self._others = before - self._counted()

    def catch_up(self) -> None:
        """Count what others have trained meanwhile, as the aggregate's progress says."""
        known = self._aggregate.progress
        self.batch, self.batch_in_epoch, self.samples = known.batch, known.batch_in_epoch, known.samples

    def progress(self) -> Progress:
        """Return how far the run has come."""
        return Progress(self._aggregate.epoch, self.batch, self.batch_in_epoch, self.steps, self.samples, self.elapsed)

    def save(self) -> None:
        """Write the progress into the aggregate; a run that found nothing left to do leaves it as it was."""
        progress = self.progress()
        if replace(progress, elapsed=self._known.elapsed) != self._known:
            self._aggregate.progress = progress

    def _counted(self) -> int:
        if not self._optimizations:
            return self.batch
        first, *others = self._optimizations
        return first.steps + sum(one.steps for one in others) if others else first.steps
