"""Stopping early: when a metric no longer gets better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from torchsystem.training.watch import MetricWatch, OnNan, refuse

Direction = Literal["min", "max"]


class EarlyStopping(MetricWatch):
    """Ask for a stop when a metric did not get better for some epochs, of those in which its split is due.

    It can only ask: it enqueues a `StopIteration` in the aggregate's events, which takes effect when all facts of the
    epoch are out. What it remembers is its state, so that a run that goes on is as patient as one left alone.

    Args:
        metric: What to watch, by split and name: `"validation/loss"`.
        direction: Whether lower (`"min"`) or higher (`"max"`) is better.
        patience: How many epochs without anything better end the run; 1 or more.
        minimum_delta: By how much a value has to be better, to count.
        nan: What a value that is not a number means: `"stop"`, `"ignore"` (an epoch without anything better) or
            `"raise"`.

    Raises:
        InvalidStopping: An argument has no meaning.

    Examples:
        >>> from torchsystem.training import EarlyStopping, Training
        >>> training = Training()
        >>> training.producer.register(EarlyStopping("validation/loss", "min", patience=3))
    """

    def __init__(
        self,
        metric: str,
        direction: Direction,
        *,
        patience: int,
        minimum_delta: float = 0.0,
        nan: OnNan = "stop",
    ) -> None:
        _check(metric, direction, patience, minimum_delta, nan)
        super().__init__(f"early stopping on {metric}", metric, nan)
        self.direction = direction
        self.patience = patience
        self.minimum_delta = minimum_delta
        self.best: float | None = None
        self.waited = 0

    def judge(self, value: float) -> str | None:
        """Say why to stop at a value; None to go on."""
        if self._is_better(value):
            self.best, self.waited = value, 0
            return None
        self.waited += 1
        if self.waited < self.patience:
            return None
        return f"{self.metric} did not get better than {self.best} in {self.waited} epochs"

    def forget(self) -> None:
        """Remember nothing: the next value is the first."""
        super().forget()
        self.best, self.waited = None, 0

    def state_dict(self) -> dict[str, Any]:
        """Return what it remembers, beside what every consumer does."""
        return {**super().state_dict(), "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what was remembered."""
        super().load_state_dict(state)
        self.best, self.waited = state["best"], state["waited"]

    def _is_better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.best is None:
            return True
        gain = self.best - value if self.direction == "min" else value - self.best
        return gain > self.minimum_delta


def _check(metric: str, direction: str, patience: int, minimum_delta: float, nan: str) -> None:
    is_number = isinstance(minimum_delta, int | float) and not isinstance(minimum_delta, bool)
    wrong = {
        "metric": not isinstance(metric, str) or "/" not in metric,
        "direction": direction not in {"min", "max"},
        "patience": isinstance(patience, bool) or not isinstance(patience, int) or patience < 1,
        "minimum_delta": not is_number or not 0 <= minimum_delta < math.inf,
        "nan": nan not in {"stop", "ignore", "raise"},
    }
    rule = f"EarlyStopping({metric!r}, {direction!r}, patience={patience!r}, ...)"
    remedy = "Write the metric as 'split/name', the direction 'min' or 'max', and a patience of 1 or more epochs."
    refuse(rule, wrong, remedy)
