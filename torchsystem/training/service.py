"""The training service: the loop, ready made, with its needs declared and its life told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial, wraps
from typing import Any, NamedTuple, TypeAlias

import torch

from torchsystem.depends import Depends, Provider
from torchsystem.domain import Aggregate
from torchsystem.errors import InvalidSplit
from torchsystem.services import Producer, Service
from torchsystem.training.batches import OnDevice, call, samples_in, targets_of
from torchsystem.training.budget import Budget
from torchsystem.training.events import BatchEnded
from torchsystem.training.loop import Epoch, Run, batches
from torchsystem.training.metrics import Measures, Metric
from torchsystem.training.optimization import Optimization
from torchsystem.training.tracker import Clock
from torchsystem.triggers import Trigger

History: TypeAlias = list[dict[str, float]]
Loader: TypeAlias = Iterable[Any]


class Split(NamedTuple):
    """A split that is not gone through in every epoch.

    Attributes:
        loader: Its batches.
        when: When it is due, asked at the end of each epoch: `every(5, "epochs")`.
    """

    loader: Loader
    when: Trigger


def device() -> str | torch.device:
    """Say where to train: on the GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def precision() -> torch.dtype | None:
    """Say in which type to compute what may be computed so (`torch.autocast`); None for the types as they are."""
    return None


def metrics() -> Mapping[str, Metric]:
    """Say what to measure beside the loss, by name."""
    return {}


class Settings(NamedTuple):
    """What the handlers of a training need."""

    device: torch.device
    precision: torch.dtype | None
    metrics: Mapping[str, Metric]

    def computing(self, function: Callable[..., Any], aggregate: Aggregate) -> Callable[..., Any]:
        """Return `function` of `aggregate` as it computes in the precision that is bound, or in that of its own.

        What listeners and metrics compute is left alone.
        """
        context = self._context(aggregate)
        if context is None:
            return function

        @wraps(function)
        def compute(*args: Any, **kwargs: Any) -> Any:
            with context():
                return function(*args, **kwargs)

        return compute

    def _context(self, aggregate: Aggregate) -> Callable[[], AbstractContextManager[Any]] | None:
        if self.precision is not None:
            return partial(torch.autocast, self.device.type, self.precision)
        own = (one for one in vars(aggregate).values() if isinstance(one, Optimization))
        return next((one.autocast for one in own if one.precision is not None), None)

    def bring(self, loader: Loader) -> Loader:
        """Return the batches on the device; where they are made on it, the loader as it is."""
        return loader if self.device.type == "cpu" else OnDevice(loader, self.device)


def settings(
    device: str | torch.device = Depends(device),
    precision: torch.dtype | None = Depends(precision),
    metrics: Mapping[str, Metric] = Depends(metrics),
) -> Settings:
    """Gather what the handlers need."""
    return Settings(torch.device(device), precision, metrics)


class Training(Service):
    """Train and evaluate aggregates, and tell of it.

    Its handlers are called by hand or by name; `device`, `precision` and `metrics` are its dependencies, to be
    overridden. Listeners are plugged into its `producer`. A stop that one of them asks for takes effect after the
    facts of the epoch are out, and nobody undoes it.

    Args:
        name: What to call it in messages.
        provider: Where its dependencies are bound; one of its own by default.
        clock: What tells seconds.

    Examples:
        >>> from torch import nn, optim, tensor
        >>> from torchsystem.training import Supervised, Training, device
        >>> network = nn.Linear(2, 2)
        >>> model = Supervised(network, nn.CrossEntropyLoss(), optim.SGD(network.parameters(), lr=0.1))
        >>> loader = [(tensor([[0.0, 1.0], [1.0, 0.0]]), tensor([1, 0]))]
        >>> training = Training()
        >>> training.override(device, lambda: "cpu") and None
        >>> history = training.handle("fit", model, {"train": loader, "validation": loader}, epochs=3)
        >>> [sorted(epoch) for epoch in history][0]
        ['train/loss', 'validation/loss']
        >>> len(history), model.epoch
        (3, 3)
    """

    def __init__(
        self, name: str | None = "training", *, provider: Provider | None = None, clock: Clock = time.monotonic
    ) -> None:
        super().__init__(name, provider=provider)
        self.producer = Producer("training", failures="finish")
        self._clock = clock
        for method in (self.fit, self.train, self.validate):
            setattr(self, method.__name__, self.handler(method))

    def fit(  # noqa: PLR0913 - each says one thing about how long to train
        self,
        aggregate: Aggregate,
        loaders: Mapping[str, Loader | Split],
        *,
        epochs: int | None = None,
        steps: int | None = None,
        samples: int | None = None,
        seconds: float | None = None,
        limit: int | None = None,
        settings: Settings = Depends(settings),
    ) -> History:
        """Train an aggregate until the budget is used up, or somebody asks for a stop.

        The budget is the total: the same line again goes on where the aggregate is, and changes nothing when all is
        done. A run that is cut between two batches has no facts of the epoch that it did not finish.

        Args:
            aggregate: What to train: its `fit` is called with each batch of `"train"`, its `evaluate` with those of all
                other splits.
            loaders: The batches by split; a `Split` is gone through only when it is due.
            epochs: How many epochs, in all.
            steps: How many optimizer steps, in all.
            samples: How many training samples, in all.
            seconds: How many seconds of running, in all.
            limit: How many batches of each split at most, for a smoke run.
            settings: Device, precision and metrics; as they are bound, by default.

        Returns:
            The metrics of each epoch of this call, by split and name: `"validation/loss"`.

        Raises:
            InvalidBudget: Nothing says how long.
            InvalidSplit: There is no `"train"`.
            NonFiniteLoss: A loss was infinite or not a number.
        """
        if "train" not in loaders:
            message = f"fit: the splits are {sorted(loaders)}; the one to learn from is called 'train'."
            raise InvalidSplit(message)
        run = self._run(aggregate, Budget(epochs, steps, samples, seconds))
        history: History = []
        try:
            life = run.epochs()  # held, or it would be closed before the failure is told
            for epoch in life:
                self._epoch(epoch, loaders, limit, settings)
                if not run.is_cut:
                    history.append(epoch.metrics)
        except BaseException as error:
            run.fail(error)
            raise
        return history

    def train(
        self, aggregate: Aggregate, loader: Loader, *, limit: int | None = None, settings: Settings = Depends(settings)
    ) -> dict[str, float]:
        """Go through a loader once and learn; no epoch is counted.

        Returns:
            The metrics, by name.

        Raises:
            StopIteration: A listener asked for a stop.
        """
        epoch = self._epoch_alone(aggregate)
        measured = self._learn(epoch, loader, limit, settings)
        epoch.run.tracker.save()
        return _told(epoch, "train", measured)

    def validate(
        self, aggregate: Aggregate, loader: Loader, *, limit: int | None = None, settings: Settings = Depends(settings)
    ) -> dict[str, float]:
        """Go through a loader once without learning.

        Returns:
            The metrics, by name.

        Raises:
            StopIteration: A listener asked for a stop.
        """
        epoch = self._epoch_alone(aggregate)
        return _told(epoch, "validation", self._judge(aggregate, loader, limit, settings))

    def _run(self, aggregate: Aggregate, budget: Budget) -> Run:
        return Run(aggregate, self.producer, budget, clock=self._clock)

    def _epoch_alone(self, aggregate: Aggregate) -> Epoch:
        """Return an epoch of which one split alone is gone through, and which is not counted."""
        return Epoch(self._run(aggregate, Budget(epochs=aggregate.epoch + 1)))

    def _epoch(
        self, epoch: Epoch, loaders: Mapping[str, Loader | Split], limit: int | None, settings: Settings
    ) -> None:
        run = epoch.run
        before = run.tracker.progress()
        for name, split in loaders.items():
            if name == "train":
                measured = self._learn(epoch, _loader(split), limit, settings)
                if run.is_cut:
                    return
                epoch.report(name, measured)
        finished = replace(run.tracker.progress(), epoch=epoch.number + 1)
        for name, split in loaders.items():
            if name != "train" and (not isinstance(split, Split) or split.when(before, finished)):
                epoch.report(name, self._judge(run.aggregate, _loader(split), limit, settings))

    def _learn(self, epoch: Epoch, loader: Loader, limit: int | None, settings: Settings) -> dict[str, float]:
        aggregate: Any = epoch.run.aggregate  # its `fit` and `evaluate` are what the user makes them
        aggregate.phase = "train"
        measures, tracker = Measures(settings.metrics), epoch.run.tracker
        fit = settings.computing(aggregate.fit, aggregate)
        targets, update = targets_of(aggregate), measures.update
        tells = epoch.run.producer.wants(BatchEnded)
        for batch in batches(epoch, settings.bring(loader), limit=limit):
            predictions, loss = call(fit, batch)
            update(predictions, targets(batch), loss, tracker.in_batch)
            if tells:
                epoch.fitted = (predictions, loss.detach())
        return measures.compute()

    def _judge(self, aggregate: Any, loader: Loader, limit: int | None, settings: Settings) -> dict[str, float]:
        aggregate.phase = "evaluation"
        measures = Measures(settings.metrics)
        evaluate, targets = settings.computing(aggregate.evaluate, aggregate), targets_of(aggregate)
        with torch.no_grad():
            for number, batch in enumerate(settings.bring(loader)):
                if number == limit:
                    break
                predictions, loss = call(evaluate, batch)
                measures.update(predictions, targets(batch), loss, samples_in(batch))
        return measures.compute()


def _told(epoch: Epoch, split: str, measured: dict[str, float]) -> dict[str, float]:
    """Report a split that is gone through alone; there is no epoch to finish for whoever asks for a stop.

    Raises:
        StopIteration: A listener asked for it.
    """
    epoch.report(split, measured)
    if epoch.run.reason is not None:
        raise StopIteration(epoch.run.reason)
    return measured


def _loader(split: Loader | Split) -> Loader:
    return split.loader if isinstance(split, Split) else split
