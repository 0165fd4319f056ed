"""One epoch of a run: begun, or taken up in the middle; gone through split by split."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from torchsystem.domain.plain import Plain
from torchsystem.errors import InvalidMetric
from torchsystem.progress import Progress
from torchsystem.training.events import EpochStarted, Trained, Validated
from torchsystem.training.gathered import Gathered
from torchsystem.training.run import Run


class Epoch(Gathered):
    """One epoch under way.

    Attributes:
        number: How many epochs were finished before it.
        metrics: What was reported in it, by split and name: `"validation/loss"`.
        waiting: The splits that were not due in it.
    """

    __slots__ = ("before", "fitted", "number", "run")

    def __init__(self, run: Run, state: Plain | None = None) -> None:
        super().__init__({} if state is None else state)
        self.run = run
        self.number = run.aggregate.epoch
        self.before = run.tracker.progress() if state is None else Progress(**state["before"])
        self.fitted: tuple[Any, Any] = (None, None)  # predictions and loss of the last batch, for who hears of it

    def report(self, split: str, metrics: Mapping[str, float]) -> None:
        """Make the metrics of a split known: `Trained` for `"train"`, `Validated` for any other.

        Raises:
            InvalidMetric: They have no names.
        """
        if not isinstance(metrics, Mapping):
            message = (
                f"epoch.report({split!r}, {metrics!r}): metrics are told by name. Write "
                f"epoch.report({split!r}, {{'loss': ...}})."
            )
            raise InvalidMetric(message)
        self.metrics |= {f"{split}/{name}": value for name, value in metrics.items()}
        if split == "train":
            self.run.tell(Trained, metrics)
        else:
            self.run.tell(Validated, split, metrics)

    @contextmanager
    def through(self, split: str, expected: int | None) -> Generator[None]:
        """Go through a split, within a batch of another one if that is under way; it counts as such a batch does.

        One that a loop of the user's own has left is not entered again by whoever goes on in this epoch.

        Args:
            split: Its name.
            expected: How many batches it has; None if nobody knows.

        Raises:
            InvalidSplit: It is under way already.
        """
        run, was_cut = self.run, self.run.is_cut
        is_within = bool(self.entered)
        self.enter(split, expected)
        if is_within:
            run.when_safe(_nothing)  # so that whoever goes on with the outer one looks whether the inner one is done
        run.split, run.expected = split, expected
        try:
            yield
        except GeneratorExit:
            self._leave(split)
            raise
        if run.is_cut == was_cut:
            self._leave(split)

    def state(self) -> dict[str, Plain]:
        """Return how far the epoch is, and what was gathered in it."""
        return {**super().state(), "before": asdict(self.before)}

    def _leave(self, split: str) -> None:
        self.leave(split)
        self.run.split, self.run.expected = self.innermost()


def opened(run: Run) -> Epoch:
    """Begin an epoch of a run, and tell of it."""
    run.prepare_epoch()
    epoch = run.epoch = Epoch(run)
    run.tell(EpochStarted)
    return epoch


def taken_up(run: Run) -> Epoch | None:
    """Begin a run, and return the epoch that it was interrupted in; None if it was in none."""
    state = run.begin()
    if state is None:
        return None
    epoch = run.epoch = Epoch(run, state)
    return epoch


def _nothing() -> None:
    """Do nothing, but have somebody look."""
