"""How long to train, in all."""

from __future__ import annotations

import sys
from numbers import Integral, Real
from typing import NamedTuple, SupportsIndex

from torchsystem.errors import InvalidBudget
from torchsystem.training.tracker import Tracker


def checked_limit(limit: SupportsIndex | None, least: int = 1) -> int | None:
    """Return how many batches of a split to take at most, if it is such a number.

    Args:
        limit: The number; None for all.
        least: How many are the fewest that make sense.

    Raises:
        InvalidBudget: It is none.
    """
    if limit is None:
        return None
    if not _is(Integral, limit) or int(limit) < least:
        message = f"limit={limit!r} is no number of batches. Write a whole number of {least} or more, or leave it out."
        raise InvalidBudget(message)
    return min(int(limit), sys.maxsize)  # more than `islice` can count is no limit


def _is(kind: type, value: object) -> bool:
    """Tell whether something is a number of a kind; True and False are none here."""
    return isinstance(value, kind) and not isinstance(value, bool)


class Budget(NamedTuple):
    """What a run may take in all, over all its processes; whatever is reached first ends it.

    Attributes:
        epochs: Epochs.
        steps: Real optimizer steps.
        samples: Training samples.
        seconds: Seconds of running.
    """

    epochs: int | None = None
    steps: int | None = None
    samples: int | None = None
    seconds: float | None = None

    def check(self) -> None:
        """Refuse a budget that is none.

        Raises:
            InvalidBudget: Nothing is limited, or something to less than nothing.
        """
        if all(value is None for value in self):
            message = "fit: nothing says how long to train. Write epochs=10, or steps=, samples= or seconds=."
            raise InvalidBudget(message)
        for name, value in self._asdict().items():
            kind, number = ("number", Real) if name == "seconds" else ("whole number", Integral)
            if value is not None and not (_is(number, value) and value >= 0):
                message = f"fit: {name}={value!r} is no budget. Write a {kind} of 0 or more."
                raise InvalidBudget(message)

    def spent(self, tracker: Tracker, epoch: int) -> str | None:
        """Say what of it is used up; None while there is something left."""
        if self.epochs is not None and epoch >= self.epochs:
            return f"{self.epochs} epochs are done"
        return self.spent_in_epoch(tracker)

    def spent_in_epoch(self, tracker: Tracker) -> str | None:
        """Say the same of what can be used up between two batches."""
        if self.steps is not None and tracker.steps >= self.steps:
            return f"{self.steps} steps are done"
        if self.samples is not None and tracker.samples >= self.samples:
            return f"{self.samples} samples are done"
        if self.seconds is not None and tracker.elapsed >= self.seconds:
            return f"{self.seconds:g} seconds are over"
        return None

    @property
    def is_for_epochs_alone(self) -> bool:
        """Tell whether nothing has to be looked at between two batches."""
        return self.steps is None and self.samples is None and self.seconds is None
