"""An alert: when a metric leaves its bounds."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torchsystem.adapters.records import number
from torchsystem.errors import InvalidAlert, InvalidState
from torchsystem.services import Consumer, event, handler
from torchsystem.training.events import EpochEnded, Lifecycle, TrainingEnded

if TYPE_CHECKING:
    from torchsystem.depends import Provider

logger = logging.getLogger(__name__)


@event
class Alerted(Lifecycle):
    """A metric has left its bounds.

    Attributes:
        metric: Its split and name.
        value: Its value; it may be that it is not a number.
        above: What it should not be above; None if nothing.
        below: What it should not be below; None if nothing.
    """

    metric: str
    value: float
    above: float | None
    below: float | None

    def __str__(self) -> str:
        """Say it in words."""
        bound = f"above {self.above:g}" if self.above is not None else f"below {self.below:g}"
        how = "is not a number" if math.isnan(self.value) else f"is {self.value:g}, {bound}"
        return f"{self.metric} {how}, after epoch {self.progress.epoch}"


class Alert(Consumer):
    """Give the alarm when a metric is above or below what it should be, once each time that it gets there.

    It looks at the end of each epoch. A value that is not a number is an alarm, too. The alarm is a warning in the log;
    who else is to know is told the `Alerted`: `tell=training.producer.dispatch` makes it an event that any listener can
    hear.

    A metric that is missing from the first epoch on is said once in the log, and again when the training ends without
    it: a name that is misspelled would watch over nothing.

    Args:
        metric: What to watch, by split and name: `"validation/loss"`.
        above: Above which value to give the alarm.
        below: Below which value to do so, instead.
        tell: Who else is to know.
        name: What its state is saved as; by default it says what is watched.
        provider: Where its handlers' dependencies are bound; one of its own by default.

    Raises:
        InvalidAlert: An argument has no meaning.

    Examples:
        >>> from torchsystem.adapters.alert import Alert
        >>> from torchsystem.domain import Aggregate
        >>> from torchsystem.progress import Progress
        >>> from torchsystem.training.events import EpochEnded
        >>> alert = Alert("train/loss", above=5.0, tell=print)
        >>> for epoch, loss in enumerate([4.0, 6.0, 7.0, 3.0, 8.0], start=1):
        ...     alert.consume(EpochEnded(Aggregate(), Progress(epoch=epoch), {"train/loss": loss}))
        train/loss is 6, above 5, after epoch 2
        train/loss is 8, above 5, after epoch 5
    """

    def __init__(  # noqa: PLR0913 - each says one thing
        self,
        metric: str,
        *,
        above: float | None = None,
        below: float | None = None,
        tell: Callable[[Alerted], object] | None = None,
        name: str | None = None,
        provider: Provider | None = None,
    ) -> None:
        self._bound = _checked(metric, above, below, tell)
        side = "below" if above is None else "above"
        super().__init__(f"alert on {metric} {side} {self._bound!r}" if name is None else name, provider=provider)
        self.metric = metric
        self.above = above
        self.below = below
        self.tell = tell
        self.is_out = False  # whether the alarm was given, and the metric has not been within its bounds since
        self.is_known = False  # whether the metric was ever there
        self._has_warned = False

    @handler
    def watch(self, event: EpochEnded) -> None:
        """Look at the metric of an epoch.

        Raises:
            InvalidMetric: It is no number.
        """
        if self.metric not in event.metrics:
            self._miss(event)
            return
        value = number(event.metrics[self.metric], self.metric)
        was_out, self.is_known = self.is_out, True
        self.is_out = self._leaves(value)
        if self.is_out and not was_out:
            alerted = Alerted(event.aggregate, event.progress, self.metric, value, self.above, self.below)
            logger.warning("%s", alerted)
            if self.tell is not None:
                self.tell(alerted)

    @handler
    def conclude(self, event: TrainingEnded) -> None:  # noqa: ARG002 - that it is over
        """Say it when the metric was never there."""
        if self._has_warned and not self.is_known:
            logger.warning("%r watched over nothing: there was never a %s.", self, self.metric)

    def state_dict(self) -> dict[str, Any]:
        """Return whether the alarm was given, beside what every consumer remembers."""
        return {**super().state_dict(), "is_out": self.is_out, "is_known": self.is_known}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember whether the alarm was given.

        Raises:
            InvalidState: It is not the state of an alert. Nothing is changed then.
        """
        own = {"is_out", "is_known"}
        if not own <= state.keys():
            message = f"This is not the state of {self!r}: it has {sorted(state)}. Load what `state_dict()` returned."
            raise InvalidState(message)
        super().load_state_dict({key: value for key, value in state.items() if key not in own})
        self.is_out, self.is_known = bool(state["is_out"]), bool(state["is_known"])

    def _leaves(self, value: float) -> bool:
        """Tell whether a value is out of bounds; one that is not a number is in none."""
        return not (value <= self._bound if self.above is not None else value >= self._bound)

    def _miss(self, event: EpochEnded) -> None:
        """Say it once that the metric is missing: it may come yet, if its split is not gone through in every epoch."""
        if not self.is_known and not self._has_warned:
            self._has_warned = True
            there = ", ".join(event.metrics) or "none"
            logger.warning("%r: the epoch has no %r. Its metrics are: %s.", self, self.metric, there)


def _checked(metric: object, above: float | None, below: float | None, tell: object) -> float:
    """Return the bound, if all has a meaning."""
    bounds = [bound for bound in (above, below) if bound is not None]
    wrong = {
        "metric": not isinstance(metric, str) or "/" not in metric,
        "above or below": len(bounds) != 1 or not all(map(_is_number, bounds)),
        "tell": tell is not None and not callable(tell),
    }
    names = [name for name, is_wrong in wrong.items() if is_wrong]
    if names:
        message = (
            f"Alert({metric!r}, above={above!r}, below={below!r}, ...): {', '.join(names)} has no meaning. Write the "
            f"metric as 'split/name', a number for one of above and below, and something that takes the `Alerted`."
        )
        raise InvalidAlert(message)
    return bounds[0]


def _is_number(bound: object) -> bool:
    return isinstance(bound, int | float) and not isinstance(bound, bool) and math.isfinite(bound)
