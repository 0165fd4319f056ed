"""A range test: what sets the learning rate of a copy, what it learns, and where its loss falls most steeply."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from torchsystem.domain import Aggregate
from torchsystem.errors import InvalidSearch, NoSuggestion
from torchsystem.training.batches import call, refuse_outcome
from torchsystem.training.options import check_names
from torchsystem.training.owned import optimizations_of, optimizers_of
from torchsystem.training.settings import Settings

LEAST = 10  # rates: fewer make no curve


class Rates:
    """The learning rate of one optimizer of a copy, as it is set for each step."""

    def __init__(self, twin: Aggregate, name: str | None) -> None:
        optimizers = optimizers_of(twin)
        if name is not None:
            check_names("tune_learning_rate", [name], optimizers)
        elif len(optimizers) != 1:
            kind, names = type(twin).__qualname__, ", ".join(optimizers) or "none"
            message = (
                f"tune_learning_rate: the optimizers of {kind} are {names}. Name the one to tune: "
                f"optimizer=...; it is found as an attribute of {kind}, or in an Optimization that is one."
            )
            raise InvalidSearch(message)
        self._optimizer = optimizers[name or next(iter(optimizers))]
        rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        if rates[0] <= 0:
            message = f"tune_learning_rate: the rates of the groups are {rates}. Give the first one a rate above 0."
            raise InvalidSearch(message)
        self._ratios = [rate / rates[0] for rate in rates]
        self._descents = [each for one in optimizations_of(twin) for each in one.parts()["descents"].values()]
        for descent in self._descents:
            descent.schedule = None

    def set(self, rate: float) -> None:
        """Set the rate that the next step learns with, whatever a warm-up makes of it."""
        factor = next((each.factor for each in self._descents if each.optimizer is self._optimizer), 1.0)
        for group, ratio in zip(self._optimizer.param_groups, self._ratios, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * ratio / factor)
            else:
                group["lr"] = rate * ratio / factor


def losses_of(twin: Any, loader: Iterable[Any], settings: Settings) -> Iterator[float]:
    """Yield the mean loss of one step after the other, each of as many batches as are accumulated for it."""
    fit = settings.computing(twin.fit, twin)
    descents = [each for one in optimizations_of(twin) for each in one.parts()["descents"].values()]
    for one in optimizations_of(twin):
        one.begin()
    group: list[Tensor] = []
    for batch in _endless(loader, settings.bring):
        outcome = call(fit, batch)
        try:
            _, loss = outcome
        except (TypeError, ValueError):
            refuse_outcome("fit", outcome)
        group.append(loss.detach())
        if not any(descent.count for descent in descents):
            yield float(torch.stack(group).mean())
            group = []


def _endless(loader: Iterable[Any], bring: Callable[[Any], Any] | None) -> Iterator[Any]:
    """Yield batches, again and again.

    Raises:
        InvalidSearch: There is none.
    """
    while True:
        batch = None
        for batch in loader:
            yield batch if bring is None else bring(batch)
        if batch is None:
            message = "tune_learning_rate: the loader has no batches. Give one that has."
            raise InvalidSearch(message)


def descend(
    rates: list[float], chosen: Rates, learn: Iterator[float], smoothing: float, divergence: float
) -> tuple[list[float], list[float]]:
    """Step at one rate after the other, until the loss has risen too much or is no number; return it, and smoothed."""
    losses: list[float] = []
    smoothed: list[float] = []
    average = 0.0
    for count, rate in enumerate(rates, start=1):
        chosen.set(rate)
        loss = next(learn)
        if not math.isfinite(loss):
            break
        average = smoothing * average + (1 - smoothing) * loss
        losses.append(loss)
        smoothed.append(average / (1 - smoothing**count))  # the average began with 0, which shall not count
        lowest = min(smoothed)
        if smoothed[-1] - lowest > (divergence - 1) * abs(lowest):
            break
    return losses, smoothed


def steepest(rates: list[float], smoothed: list[float]) -> float:
    """Return the rate at which the loss falls most steeply over the logarithm of the rate.

    Raises:
        NoSuggestion: It falls nowhere.
    """
    begin = max(1, len(rates) // 10)
    end = smoothed.index(min(smoothed)) if len(rates) >= LEAST else 0
    slopes = {
        index: (smoothed[index + 1] - smoothed[index - 1]) / math.log(rates[index + 1] / rates[index - 1])
        for index in range(begin, min(end, len(rates) - 2) + 1)
    }
    steepest = min(slopes, key=slopes.__getitem__, default=None)
    if steepest is None or slopes[steepest] >= 0:
        shown = ", ".join(
            f"{loss:.4g} at {rate:.1e}" for rate, loss in islice(zip(rates, smoothed, strict=True), 0, None, 20)
        )
        message = (
            f"tune_learning_rate: the loss has not fallen; of {len(rates)} rates it was {shown or 'never finite'}. "
            f"Write a lower lowest=, more steps=, or look whether the aggregate learns at all."
        )
        raise NoSuggestion(message)
    return rates[steepest]
