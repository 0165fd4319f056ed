"""The training service: the loop, ready made, with its needs declared and its life told."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing, contextmanager, nullcontext
from typing import Any, TypeAlias

from torchsystem.depends import Depends, Provider, inject
from torchsystem.domain import Aggregate
from torchsystem.services import Mailbox, Producer, Service, Timers, mailbox
from torchsystem.training.alone import learning_alone
from torchsystem.training.batches import joined
from torchsystem.training.budget import Budget, checked_limit
from torchsystem.training.epoch import Epoch
from torchsystem.training.held import generators_of, generators_of_modules
from torchsystem.training.interrupts import DEFAULT, checked, interrupts
from torchsystem.training.loop import lived
from torchsystem.training.modes import modes_kept
from torchsystem.training.passes import go_through, judge, learn, told
from torchsystem.training.prediction import Answers, Collate, Question, Transform, predict, state_of, tell_predicted
from torchsystem.training.randomness import untouched
from torchsystem.training.run import Run, check_aggregate, under_way
from torchsystem.training.search import tune_batch_size, tune_learning_rate
from torchsystem.training.settings import Settings, settings
from torchsystem.training.splits import (
    Loader,
    Split,
    check_batches,
    check_loader,
    check_methods,
    check_splits,
    loader_of,
)
from torchsystem.training.tracker import Clock

History: TypeAlias = list[dict[str, float]]


class Training(Service):
    """Train and evaluate aggregates, and tell of it.

    Its handlers are called by hand or by name; `device`, `precision` and `metrics` are its dependencies, to be
    overridden. Listeners are plugged into its `producer`. A stop that one of them asks for takes effect after the
    facts of the epoch are out, and nobody undoes it. Signals are acted on between two batches.

    Args:
        name: What to call it in messages.
        provider: Where its dependencies are bound; one of its own by default.
        clock: What tells seconds.
        timers: What is due by the clock, handed to listeners as `Elapsed`, between two batches.
        signals: What ends the process where it is safe: SIGTERM and SIGINT by default.

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
        self,
        name: str | None = "training",
        *,
        provider: Provider | None = None,
        clock: Clock = time.monotonic,
        timers: Timers | None = None,
        signals: Iterable[int] = DEFAULT,
    ) -> None:
        super().__init__(name, provider=provider)
        self.producer = Producer("training", failures="finish")
        self._clock = clock
        self._timers = timers
        self._signals = checked(signals)
        self._answers = Answers()
        for method in (self.fit, self.train, self.validate, self.predict):
            setattr(self, method.__name__, self.handler(method))
        self.tune_learning_rate = self.handler(tune_learning_rate)
        self.tune_batch_size = self.handler(tune_batch_size)

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
        accept: str | Iterable[str] = (),
        settings: Settings = Depends(settings),
    ) -> History:
        """Train an aggregate until the budget is used up, or somebody asks for a stop.

        The budget is the total: the same line again goes on where the aggregate is, and changes nothing when all is
        done; an aggregate that was restored from a checkpoint goes on in the middle of an epoch too. A run that is cut
        between two batches has no facts of the epoch that it did not finish.

        Args:
            aggregate: What to train: its `fit` is called with each batch of `"train"`, its `evaluate` with those of all
                other splits.
            loaders: The batches by split; a `Split` is gone through only when it is due.
            epochs: How many epochs, in all.
            steps: How many optimizer steps, in all.
            samples: How many training samples, in all.
            seconds: How many seconds of running, in all.
            limit: How many batches of each split at most, for a smoke run.
            accept: Names, or patterns with `*`, of what may differ from what an interrupted run began with, such as
                `"train.batch_size"`.
            settings: Device, precision and metrics; as they are bound, by default.

        Returns:
            The metrics of each epoch of this call, and of the run that it continues, by split and name:
            `"validation/loss"`.

        Raises:
            AlreadyTraining: It is being trained: this was called by one of the listeners, or in another thread.
            InvalidBudget: Nothing says how long, or the limit is no number of batches.
            InvalidLoss: What `fit` or `evaluate` returned is not predictions and a loss.
            InvalidSplit: There is no `"train"`; or a loader has no batches, or is an iterator, and spent.
            MismatchedRun: The run that is to go on began with other data.
            NonFiniteLoss: A loss was infinite or not a number.
            NotAnAggregate: It is something else that is to be trained, or has no `fit`, or no `evaluate`.
            SystemExit: A signal came; its code is 128 and the signal's number.
        """
        check_splits(loaders)
        limit = checked_limit(limit)
        run = self._run(aggregate, Budget(epochs, steps, samples, seconds), accept)
        check_methods(aggregate, loaders)
        # the life is held until the failure is told, and no longer
        with learning_alone(aggregate), interrupts(*self._signals), closing(lived(run)) as life:
            try:
                for epoch in life:
                    for name, split in loaders.items():  # what cannot be gone through is refused before a batch
                        check_batches(loader_of(split), name)
                        run.cursors.over(loader_of(split), name)
                    go_through(epoch, loaders, limit, settings)
            except BaseException as error:
                run.fail(error)
                raise
        return run.history

    def train(
        self, aggregate: Aggregate, loader: Loader, *, limit: int | None = None, settings: Settings = Depends(settings)
    ) -> dict[str, float]:
        """Go through a loader once and learn; no epoch is counted.

        Returns:
            The metrics, by name.

        Raises:
            AlreadyTraining: The aggregate is being trained: a listener called this, or another thread does the same.
            InvalidSplit: The loader has no batches.
            StopIteration: A listener asked for a stop.
        """
        limit = checked_limit(limit)
        check_loader(loader, "train")
        with learning_alone(aggregate), self._alone(aggregate) as epoch:
            measured = learn(epoch, loader, limit, settings)
            epoch.run.tracker.save()
            return told(epoch, "train", measured)

    def validate(
        self, aggregate: Aggregate, loader: Loader, *, limit: int | None = None, settings: Settings = Depends(settings)
    ) -> dict[str, float]:
        """Go through a loader once without learning.

        Returns:
            The metrics, by name.

        Raises:
            InvalidSplit: The loader has no batches.
            StopIteration: A listener asked for a stop.
        """
        limit = checked_limit(limit)
        check_loader(loader, "validate")
        with self._alone(aggregate) as epoch:
            return told(epoch, "validation", judge(epoch, "validation", loader, limit, settings))

    def predict(  # noqa: PLR0913 - each says one thing about what to make of the predictions
        self,
        aggregate: Aggregate,
        loader: Loader,
        *,
        split: str = "prediction",
        limit: int | None = None,
        transform: Transform | None = None,
        collate: Collate = joined,
        cache: bool = True,
        settings: Settings = Depends(settings),
    ) -> Any:
        """Predict all batches of a loader; tell of each, and of the end.

        Batches are predicted by the aggregate's `predict`, if it has one, else by calling it; with their inputs, which
        is all but the targets. While the weights are the same, the same question is answered from memory: about the
        very same loader, by the same functions. Random numbers, and the phase of the aggregate, are left as they were.

        Args:
            aggregate: What predicts.
            loader: The batches.
            split: What they are called, in events.
            limit: How many of them at most.
            transform: What is made of the predictions of each batch.
            collate: What is made of those of all batches; joined along their first dimension by default.
            cache: Whether an earlier answer may be given again. It is the same object; do not change it.
            settings: Device and precision; as they are bound, by default.

        Returns:
            The predictions, collated.

        Examples:
            >>> from torch import nn, optim, tensor
            >>> from torchsystem.training import Supervised, Training
            >>> network = nn.Linear(2, 3)
            >>> model = Supervised(network, nn.CrossEntropyLoss(), optim.SGD(network.parameters(), lr=0.1))
            >>> loader = [(tensor([[0.0, 1.0]]), tensor([1])), (tensor([[1.0, 0.0]]), tensor([2]))]
            >>> Training().handle("predict", model, loader, transform=lambda scores: scores.argmax(1)).shape
            torch.Size([2])
        """
        check_aggregate(aggregate)
        check_loader(loader, "predict")
        question = Question(loader, split, checked_limit(limit, least=0), transform, collate)
        state = state_of(aggregate, settings) if cache else ""
        known = self._answers.find(aggregate, question, state) if cache else None
        held = generators_of(loader) | generators_of_modules(aggregate)
        with modes_kept(aggregate), self._alone(aggregate) as epoch, untouched(held):
            predictions = predict(epoch, question, settings) if known is None else known.predictions
            if cache and known is None:
                self._answers.remember(aggregate, question, state, predictions)
            tell_predicted(epoch, question, predictions, is_cached=known is not None)
        return predictions

    def _run(self, aggregate: Aggregate, budget: Budget, accept: str | Iterable[str] = ()) -> Run:
        return Run(
            aggregate,
            self.producer,
            budget,
            clock=self._clock,
            timers=self._timers,
            mailbox=self._mailbox(),
            accept=accept,
        )

    def _mailbox(self) -> Mailbox | None:
        """Return the mailbox that is bound, if one is."""
        if mailbox not in self.dependency_overrides:
            return None

        @inject(self.provider)
        def bound(box: Mailbox = Depends(mailbox)) -> Mailbox:
            return box

        return bound()

    @contextmanager
    def _alone(self, aggregate: Aggregate) -> Generator[Epoch]:
        """Make an epoch of which one split alone is gone through, and which is not counted.

        A run that is under way, whose listener asks for it, finds its aggregate in the modes that it had; a loop of
        one's own, that has an epoch trained so, counts what was trained.
        """
        check_aggregate(aggregate)
        around = under_way(aggregate)
        if around is not None:
            around.tracker.save()
        run = self._run(aggregate, Budget(epochs=aggregate.epoch + 1))
        run.tracker.batch_in_epoch = 0
        modes = nullcontext() if around is None else modes_kept(aggregate)
        with interrupts(*self._signals), modes, run.under_way():
            yield Epoch(run)
        if around is not None:
            around.tracker.catch_up()
