"""Progress: how far a run has come, as one value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come. Every event of its life carries one, so that time is a value and not a clock on a wall.

    Attributes:
        epoch: Epochs finished; the aggregate's own count, which is the truth.
        batch: Training batches, in all.
        batch_in_epoch: Training batches in the present epoch.
        step: Optimizer steps, in all. With accumulation there are fewer of them than batches.
        samples: Training samples, in all.
        elapsed: Seconds spent in the run, in all; what went by while it was not running does not count.

    Examples:
        >>> from torchsystem.progress import Progress
        >>> Progress(epoch=1, batch=120, batch_in_epoch=20, step=60, samples=3840, elapsed=12.5).batch
        120
    """

    epoch: int = 0
    batch: int = 0
    batch_in_epoch: int = 0
    step: int = 0
    samples: int = 0
    elapsed: float = 0.0
