"""What listeners that ask for a stop have in common: the asking, and the watching of one metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from torchsystem.domain import Aggregate
from torchsystem.errors import InvalidStopping, MissingMetric, NonFiniteMetric
from torchsystem.services import Consumer, handler
from torchsystem.training.events import EpochEnded, TrainingStarted
from torchsystem.training.run import under_way

OnNan: TypeAlias = Literal["stop", "ignore", "raise"]


class Guard(Consumer):
    """A listener that may ask for a stop, which takes effect when all facts of the epoch are out.

    What it remembers is of one run: when another one begins, it is forgotten.
    """

    @handler
    def begin(self, event: TrainingStarted) -> None:  # noqa: ARG002 - it is what the handler hears
        """Forget what was remembered of an earlier run."""
        self.forget()

    def forget(self) -> None:
        """Remember nothing."""

    def ask(self, aggregate: Aggregate, reason: str) -> None:
        """Ask for a stop, unless somebody has: of two, one would be left over, and stop the next run."""
        if not any(isinstance(event, StopIteration) for event in aggregate.events.queue):
            aggregate.events.enqueue(StopIteration(reason))


class MetricWatch(Guard):
    """A guard that looks at one metric of each epoch.

    Args:
        name: What to call it.
        metric: What to watch, by split and name.
        nan: What a value that is not a number means.
    """

    def __init__(self, name: str, metric: str, nan: OnNan) -> None:
        super().__init__(name)
        self.metric = metric
        self.nan = nan
        self._has_come = False

    @handler
    def watch(self, event: EpochEnded) -> None:
        """Look at the metric of an epoch.

        Raises:
            MissingMetric: It was never reported.
            NonFiniteMetric: It is not a number, and that shall be an error.
        """
        reported = event.metrics.get(self.metric)
        if reported is None:
            self._miss(event)
            return
        value = float(reported)  # loops of one's own report what they have, and what is remembered is plain
        self._has_come = True
        if math.isnan(value) and self.nan == "raise":
            message = f"{self.metric} is not a number after epoch {event.progress.epoch}."
            raise NonFiniteMetric(message)
        reason = f"{self.metric} is not a number" if math.isnan(value) and self.nan == "stop" else self.judge(value)
        if reason is not None:
            self.ask(event.aggregate, reason)

    def judge(self, value: float) -> str | None:
        """Say why to stop at a value; None to go on."""
        raise NotImplementedError

    def forget(self) -> None:
        """Remember nothing."""
        self._has_come = False

    def state_dict(self) -> dict[str, Any]:
        """Return what it remembers, beside what every consumer does."""
        return {**super().state_dict(), "has_come": self._has_come}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what was remembered."""
        super().load_state_dict(state)
        self._has_come = state["has_come"]

    def _miss(self, event: EpochEnded) -> None:
        """Refuse a metric that never came; one of a split that is not due in each epoch comes now and then."""
        run = under_way(event.aggregate)
        waits = run is not None and run.waits_for(self.metric, event.metrics)
        if not (self._has_come or waits):
            there = ", ".join(event.metrics) or "none"
            message = f"{self.name}: the epoch has no {self.metric!r}. Its metrics are: {there}."
            raise MissingMetric(message)


def refuse(rule: str, wrong: Mapping[str, bool], remedy: str) -> None:
    """Refuse a rule some of whose arguments have no meaning.

    Args:
        rule: The rule, as it was written.
        wrong: Of each argument, whether it has none.
        remedy: What to write instead.

    Raises:
        InvalidStopping: One has none.
    """
    names = [name for name, is_wrong in wrong.items() if is_wrong]
    if names:
        message = f"{rule}: {', '.join(names)} has no meaning. {remedy}"
        raise InvalidStopping(message)
