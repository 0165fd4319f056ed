"""The bootstrap: how far a metric would have come out elsewhere with other samples of the same kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchsystem.errors import InvalidReport
from torchsystem.training.accumulators import Own, is_accumulator
from torchsystem.training.computed import is_number


class Interval(NamedTuple):
    """Where a metric lies, as far as the samples can tell.

    Attributes:
        low: Its lower end.
        high: Its upper end.
    """

    low: float
    high: float


@dataclass(frozen=True)
class Bootstrap:
    """Percentile intervals of metrics, by drawing as many samples as there are, with replacement, many times.

    The method is that of B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Samples
    are drawn by a generator of its own, always in the same way: the same samples have the same intervals, however they
    came in batches, and nobody else's random numbers are touched.

    Args:
        resamples: How many times to draw.
        confidence: The share of the draws that lies within an interval.
        seed: Where its random numbers begin.

    Raises:
        InvalidReport: An argument has no meaning.

    Examples:
        >>> from torchsystem.adapters.bootstrap import Bootstrap
        >>> from torchsystem.training import accuracy
        >>> predictions, targets = torch.tensor([1] * 80 + [0] * 20), torch.ones(100, dtype=torch.long)
        >>> interval = Bootstrap(seed=0).intervals("accuracy", accuracy, predictions, targets)["accuracy"]
        >>> interval.low < 0.8 < interval.high
        True
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        counts = isinstance(self.resamples, int) and not isinstance(self.resamples, bool) and self.resamples > 1
        is_share = isinstance(self.confidence, int | float) and 0 < self.confidence < 1
        if not counts or not is_share or not isinstance(self.seed, int):
            message = (
                f"{self} has no meaning. Write 2 or more resamples, a confidence between 0 and 1, and a whole seed."
            )
            raise InvalidReport(message)

    def intervals(self, name: str, metric: Any, predictions: Tensor, targets: Tensor) -> dict[str, Interval]:
        """Say where a metric lies: an interval for each number that it comes to.

        Args:
            name: The name of the metric.
            metric: A function of predictions and targets that gives values per sample, or an accumulator.
            predictions: Those of all samples.
            targets: Those of all samples.

        Raises:
            InvalidReport: A function does not give values per sample.
        """
        measure = _accumulated(name, metric) if is_accumulator(metric) else _mean(name, metric)
        with torch.no_grad():
            draws = list(map(measure(predictions, targets), self._draws(len(targets))))
        names = draws[0].keys()
        return {name: self._interval([draw[name] for draw in draws]) for name in names}

    def _draws(self, count: int) -> Iterable[Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.resamples):
            yield torch.randint(count, (count,), generator=generator)

    def _interval(self, draws: list[float]) -> Interval:
        tail = (1 - self.confidence) / 2
        ends = torch.tensor([tail, 1 - tail], dtype=torch.float64)
        low, high = torch.tensor(draws, dtype=torch.float64).quantile(ends).tolist()
        return Interval(low, high)


Drawn = Callable[[Tensor], Mapping[str, float]]


def _mean(name: str, function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Drawn]:
    """Measure the mean of the values that a function gives: computed once, then only drawn from."""

    def measure(predictions: Tensor, targets: Tensor) -> Drawn:
        values = function(predictions, targets)
        if values.ndim == 0 or len(values) != len(targets):
            message = (
                f"metric {name!r} gave values of shape {tuple(values.shape)} for {len(targets)} samples: no interval "
                f"can be drawn. Return one value (or one row of values) per sample."
            )
            raise InvalidReport(message)
        means = values.reshape(len(values), -1).double().mean(1).cpu()
        return lambda drawn: {name: means[drawn].mean().item()}

    return measure


def _accumulated(name: str, metric: Any) -> Callable[[Tensor, Tensor], Drawn]:
    """Measure what an accumulator comes to, over and over again."""
    own = Own(name, metric)

    def measure(predictions: Tensor, targets: Tensor) -> Drawn:
        def draw(drawn: Tensor) -> dict[str, float]:
            own.reset()
            own.update(predictions[drawn.to(predictions.device)], targets[drawn.to(targets.device)])
            return {key: float(result) for key, result in own.compute().items() if is_number(result)}

        return draw

    return measure
