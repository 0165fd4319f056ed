"""Metrics of the loop that also make a report: numbers, matrices and intervals of one evaluation, together."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchsystem.adapters.bootstrap import Bootstrap, Interval
from torchsystem.adapters.requirements import require
from torchsystem.errors import InvalidMetric, InvalidReport, MissingMetric, UnheardReport
from torchsystem.services import Consumer, Producer, Registered, event, handler
from torchsystem.training.computed import Result, details
from torchsystem.training.events import Lifecycle, Validated
from torchsystem.training.metrics import Metric

if TYPE_CHECKING:
    from torchsystem.depends import Provider


def _quietly(package: str) -> ModuleType:
    """Import a part of torchmetrics, whatever it has to say of packages that it imports in turn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return require(package, extra="metrics")


_wrappers = _quietly("torchmetrics.wrappers")
SAMPLES = "bootstrap"  # the metric that keeps samples has this name


@event
class Reported(Lifecycle):
    """A split was evaluated, and this is the report of a group of metrics.

    Attributes:
        group: The name of the group.
        split: The name of the split.
        values: What its metrics came to, by name: numbers, and tensors (on the CPU) where it is more than one number.
        intervals: Where the numbers lie, by name, if intervals were asked for.
    """

    group: str
    split: str
    values: Mapping[str, Result]
    intervals: Mapping[str, Interval]


class Metrics(Consumer, Mapping[str, Metric]):
    """Metrics of the loop, of torchmetrics or plain functions, some of which become a report of each evaluation.

    It is the mapping that `training.metrics` asks for. Registered with the producer of the training, it makes a
    `Reported` of each group for each split that was evaluated, and dispatches it there.

    Args:
        metrics: The metrics by name, as `training.metrics` takes them.
        groups: The names of the metrics of each report, by its own name. What comes to more than one number, such as a
            confusion matrix, is in the report alone.
        bootstrap: How to find intervals for the numbers in the reports; none by default. For these, predictions and
            targets of a split that is evaluated are kept where they are until its report is made.
        name: What to call it in messages.
        provider: Where its handlers' dependencies are bound; one of its own by default.

    Raises:
        InvalidReport: A group has no metrics, or some that there are not.
        InvalidMetric: A metric has a name with a `.` in it, which parts metrics from what they come to, or remembers
            more than one evaluation.

    Examples:
        >>> from torch import tensor
        >>> from torchmetrics.classification import BinaryConfusionMatrix, BinaryF1Score
        >>> from torchsystem.services import Producer
        >>> from torchsystem.training import accuracy
        >>> from torchsystem.training.metrics import Measures
        >>> classified = {"accuracy": accuracy, "f1": BinaryF1Score(), "confusion": BinaryConfusionMatrix()}
        >>> metrics = Metrics(classified, groups={"report": ["accuracy", "confusion"]})
        >>> producer = Producer()
        >>> producer.register(metrics)
        >>> measures = Measures(metrics)
        >>> measures.update(tensor([1, 0, 1]), tensor([1, 0, 0]), tensor(0.5), 3)
        >>> measures.compute()
        {'loss': 0.5, 'accuracy': 0.6666666666666666, 'f1': 0.6666666865348816}
    """

    def __init__(
        self,
        metrics: Mapping[str, Metric],
        *,
        groups: Mapping[str, Collection[str]] | None = None,
        bootstrap: Bootstrap | None = None,
        name: str | None = "metrics",
        provider: Provider | None = None,
    ) -> None:
        super().__init__(name, provider=provider)
        _check(metrics, {} if groups is None else groups, bootstrap)
        self._metrics: dict[str, Metric] = dict(metrics)
        self._groups = {} if groups is None else {group: tuple(names) for group, names in groups.items()}
        self._bootstrap = bootstrap
        self._producer: Producer | None = None
        if bootstrap is not None:
            self._metrics[SAMPLES] = Samples()

    def __getitem__(self, name: str) -> Metric:
        return self._metrics[name]

    def __len__(self) -> int:
        return len(self._metrics)

    def __iter__(self) -> Iterator[str]:
        """Go through the names of the metrics, as who measures them does.

        Raises:
            UnheardReport: There are groups, and it is registered nowhere.
        """
        if self._groups and self._producer is None:
            message = (
                f"{self.name}: nobody would see the reports {', '.join(self._groups)}. Make it once, and register it "
                f"before it measures anything: training.producer.register(metrics)."
            )
            raise UnheardReport(message)
        return iter(self._metrics)

    def __eq__(self, other: object) -> bool:
        return self is other  # a listener is itself, whatever it measures

    def __hash__(self) -> int:
        return id(self)

    @handler
    def plug(self, event: Registered) -> None:
        """Remember where to dispatch reports."""
        self._producer = event.producer

    @handler
    def report(self, event: Validated) -> None:
        """Make a report of each group.

        Raises:
            MissingMetric: A metric of a group was not measured.
        """
        if self._producer is None:
            return
        came: dict[str, Result] = {**event.metrics, **details(event.metrics)}
        reports = [(group, self._values(group, names, came)) for group, names in self._groups.items()]
        intervals = self._intervals(came)
        for group, values in reports:
            known = {name: intervals[name] for name in values if name in intervals}
            self._producer.dispatch(Reported(event.aggregate, event.progress, group, event.split, values, known))

    def _values(self, group: str, names: Collection[str], came: Mapping[str, Result]) -> dict[str, Result]:
        values: dict[str, Result] = {}
        for name in names:
            found = {key: value for key, value in came.items() if key == name or key.startswith(f"{name}.")}
            if not found:
                message = (
                    f"{self.name}: the report {group!r} wants {name!r}; measured were: {', '.join(came) or 'none'}. "
                    f"Bind it as the metrics of the training: training.override(metrics, lambda: ...)."
                )
                raise MissingMetric(message)
            values |= found
        return {name: value.cpu() if isinstance(value, Tensor) else value for name, value in values.items()}

    def _intervals(self, came: Mapping[str, Result]) -> dict[str, Interval]:
        """Find intervals of all numbers in reports, each metric drawn once however many groups it is in."""
        if self._bootstrap is None:
            return {}
        predictions, targets = (came.get(f"{SAMPLES}.{kind}") for kind in ("predictions", "targets"))
        if not isinstance(predictions, Tensor) or not isinstance(targets, Tensor):
            message = (
                f"{self.name}: no samples were kept to find intervals by. They are while torch keeps no gradients: "
                f"evaluate under torch.no_grad(), as Training does."
            )
            raise InvalidReport(message)
        found: dict[str, Interval] = {}
        for name in dict.fromkeys(name for names in self._groups.values() for name in names if name != "loss"):
            if any(isinstance(value, float) and key.split(".")[0] == name for key, value in came.items()):
                found |= self._bootstrap.intervals(name, self._metrics[name], predictions, targets)
        return found


class Samples:
    """All predictions and targets of an evaluation. Of what is learned from nothing is kept."""

    def __init__(self) -> None:
        self.predictions: list[Tensor] = []
        self.targets: list[Tensor] = []

    def update(self, predictions: Any, targets: Any) -> None:
        """Keep those of a batch.

        Raises:
            InvalidReport: They are not one tensor each.
        """
        if torch.is_grad_enabled():
            return
        if not isinstance(predictions, Tensor) or not isinstance(targets, Tensor) or len(predictions) != len(targets):
            message = (
                f"no samples can be drawn from predictions that are a {type(predictions).__qualname__}, and targets "
                f"that are a {type(targets).__qualname__}. Both have to be tensors, with one row per sample."
            )
            raise InvalidReport(message)
        self.predictions.append(predictions)
        self.targets.append(targets)

    def compute(self) -> dict[str, Tensor]:
        """Return those of all batches."""
        if not self.predictions:
            return {}
        return {"predictions": torch.cat(self.predictions), "targets": torch.cat(self.targets)}

    def reset(self) -> None:
        """Let go of all."""
        self.predictions, self.targets = [], []


def _check(metrics: Mapping[str, Any], groups: Mapping[str, Any], bootstrap: Bootstrap | None) -> None:
    if not isinstance(metrics, Mapping):
        message = f"Metrics({metrics!r}) has no names. Write a dictionary: Metrics({{'accuracy': accuracy}})."
        raise InvalidMetric(message)
    for name, metric in metrics.items():
        if not isinstance(name, str) or not name or "." in name or (bootstrap is not None and name == SAMPLES):
            message = (
                f"metric {name!r}: that is no name, has a '.', or is that of kept samples. Call it something else."
            )
            raise InvalidMetric(message)
        for part in metric.modules() if isinstance(metric, nn.Module) else ():
            if isinstance(part, _wrappers.MinMaxMetric | _wrappers.MetricTracker):
                message = (
                    f"metric {name!r}: a {type(part).__qualname__} remembers more than one evaluation; a metric of the "
                    f"loop begins anew with each. Give what it wraps, and let a listener compare epochs."
                )
                raise InvalidMetric(message)
    if not isinstance(groups, Mapping) or not all(isinstance(group, str) for group in groups):
        message = (
            f"groups={groups!r}: write the names of metrics by the name of their report: {{'report': ['accuracy']}}."
        )
        raise InvalidReport(message)
    for group, names in groups.items():
        is_list = isinstance(names, Collection) and not isinstance(names, str)
        if not is_list or not names or any(name != "loss" and name not in metrics for name in names):
            message = (
                f"the report {group!r} is to have {names!r}. Write a list of names of metrics; there are: "
                f"{', '.join(('loss', *metrics))}."
            )
            raise InvalidReport(message)
    if bootstrap is not None and not groups:
        message = "intervals are part of a report, and there is none. Write groups={'report': [...]} with the names."
        raise InvalidReport(message)
