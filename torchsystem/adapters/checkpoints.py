"""Checkpoints: where training and storage meet, neither of which knows the other."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal
from warnings import warn
from weakref import WeakKeyDictionary

from torchsystem.adapters.immediacy import Immediate
from torchsystem.domain import Aggregate
from torchsystem.errors import InvalidOption
from torchsystem.progress import Progress
from torchsystem.services import handler
from torchsystem.storage import BegunAnew, Repository, Retention
from torchsystem.training.events import BatchEnded, EpochEnded, Interrupted, ProcessStarted, TrainingEnded
from torchsystem.training.run import Run, under_way
from torchsystem.triggers import Trigger
from torchsystem.triggers import every as every_so_often

Best = tuple[str, Literal["min", "max"]]


class Checkpoints(Immediate):
    """Save an aggregate and its run, so that the same lines, started again, go on exactly where they were.

    It saves at safe points, when a trigger fires, at the end of the training, and when a signal came. The state is
    copied there; writing it is left to a thread. Each checkpoint has the metrics of the epoch that it came out of. A
    training that begins anew where an earlier one has left checkpoints is said by a warning, `BegunAnew`.

    Args:
        repository: Where to.
        every: When: at the end of each epoch by default.
        keep_last: How many of the newest to keep; None keeps all.
        keep_best: A metric and its direction, `("validation/accuracy", "max")`: the best is kept besides, and there is
            a checkpoint at the end of each epoch, to choose it from.
        exact: Whether to refuse loaders over which a run cannot be continued exactly.
        name: What it is called among the listeners of a run.

    Raises:
        InvalidOption: The trigger, or the repository, is none; or the repository is to keep others than these.
        InvalidRetention: What to keep has no meaning.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from torch import nn, optim, tensor
        >>> from torchsystem.adapters.checkpoints import Checkpoints
        >>> from torchsystem.storage import Repository
        >>> from torchsystem.training import Supervised, Training
        >>> loader = [(tensor([[0.0, 1.0]]), tensor([1]))]
        >>> def train(folder: str, epochs: int) -> Supervised:
        ...     network = nn.Linear(2, 2)
        ...     model = Supervised(network, nn.CrossEntropyLoss(), optim.SGD(network.parameters(), lr=0.1))
        ...     with Repository(folder) as repository:
        ...         training = Training()
        ...         training.producer.register(Checkpoints(repository))
        ...         training.handle("fit", repository.restore(model), {"train": loader}, epochs=epochs)
        ...     return model
        >>> with TemporaryDirectory() as folder:
        ...     train(folder, epochs=2).progress.batch, train(folder, epochs=5).progress.batch
        (2, 5)
    """

    def __init__(  # noqa: PLR0913 - each says one thing, and has a default
        self,
        repository: Repository,
        *,
        every: Trigger | None = None,
        keep_last: int | None = 3,
        keep_best: Best | None = None,
        exact: bool = True,
        name: str = "checkpoints",
    ) -> None:
        super().__init__(name)
        trigger = every_so_often(1, "epochs") if every is None else every
        if not isinstance(trigger, Trigger):
            message = f"Checkpoints(every={every!r}): write a trigger: every=every(50, 'batches')."
            raise InvalidOption(message)
        if not callable(getattr(repository, "claim", None)):
            message = f"Checkpoints({repository!r}): write a repository: Checkpoints(Repository('runs'))."
            raise InvalidOption(message)
        self.repository = repository
        self.retention = Retention(keep_last, keep_best)
        others = getattr(repository, "retention", self.retention)
        if others not in (Retention(), self.retention):
            message = (
                f"{repository!r} is to keep by {others}, and Checkpoints by {self.retention}, of which theirs would "
                f"hold. Say it in one place: Checkpoints(repository, keep_last=..., keep_best=...)."
            )
            raise InvalidOption(message)
        self._exact = exact
        self._saved: WeakKeyDictionary[Aggregate, Progress] = WeakKeyDictionary()
        # The metrics of what is to be saved at the next safe point; a listener may train another aggregate meanwhile.
        self._wanted: WeakKeyDictionary[Aggregate, dict[str, float]] = WeakKeyDictionary()
        look = self._look_at_epochs if trigger.units == {"epochs"} else self._look
        self.handler(when=trigger)(look)

    @handler
    def begin(self, event: ProcessStarted) -> None:
        """Have the run make sure that what is saved will suffice, and nobody else write here."""
        run = under_way(event.aggregate)
        self._wanted.pop(event.aggregate, None)  # what a run that failed wanted is nobody's any more
        self._saved.pop(event.aggregate, None)
        if run is not None:
            run.keep(partial(self._claim, run), exact=self._exact)
            if run.is_continued:
                self._saved[event.aggregate] = _moment(event.progress)

    @handler
    def note_metrics(self, event: EpochEnded) -> None:
        """Save the epoch with its metrics, if it may be the best; otherwise the trigger says when."""
        if self.retention.keep_best is not None:
            self._want(event.aggregate, event.metrics)

    @handler
    def end(self, event: TrainingEnded | Interrupted) -> None:
        """Save what is not saved yet, and wait until it is sure to survive."""
        self._want(event.aggregate, {})
        run = under_way(event.aggregate)
        if run is not None and run.is_whole:
            run.when_safe(self.repository.flush)

    def close(self) -> None:
        """Wait until all that was saved is sure to survive."""
        try:
            self.repository.flush()
        finally:
            super().close()

    def _claim(self, run: Run) -> None:
        """Take the folder, and say what would be lost; two that save there would remove what the other is to keep."""
        mine = self.repository
        for other in run.producer.listeners():
            if other is not self and isinstance(other, Checkpoints) and _same(other.repository, mine):
                message = (
                    f"two Checkpoints, {self.name!r} and {other.name!r}, save to {mine}, where each removes what the "
                    f"other keeps. Make one of them: Checkpoints(repository, every=one | another), or give the other "
                    f"its own: Repository(root, run='another')."
                )
                raise InvalidOption(message)
        mine.claim()
        keeps_all = self.retention.keep_last is None
        there = [] if run.is_continued or keeps_all else mine.checkpoints(run.aggregate)
        if there and _place(there[-1].progress) > _place(run.tracker.progress()):
            message = (
                f"{there[-1]} is from an earlier training. This one begins anew, and its checkpoints will replace it. "
                f"To go on, call repository.restore(model) first; to keep both, give this one a run of its own: "
                f"Repository(root, run='...')."
            )
            warn(message, BegunAnew, stacklevel=2)

    def _look(self, event: BatchEnded | EpochEnded) -> None:
        """Save: the trigger has fired."""
        self._want(event.aggregate, event.metrics if isinstance(event, EpochEnded) else {})

    def _look_at_epochs(self, event: EpochEnded) -> None:
        self._look(event)

    def _want(self, aggregate: Aggregate, metrics: Mapping[str, float]) -> None:
        """Have it saved at the next safe point, once; a pass over one split alone is nothing to go on with."""
        run = under_way(aggregate)
        if run is None or not run.is_whole:
            return
        if aggregate not in self._wanted:
            run.when_safe(partial(self._save, aggregate))
        self._wanted[aggregate] = {**self._wanted.get(aggregate, {}), **metrics}

    def _save(self, aggregate: Aggregate) -> None:
        metrics = self._wanted.pop(aggregate, None)
        run = under_way(aggregate)
        assert run is not None  # noqa: S101 - it is the run that calls
        if self._saved.get(aggregate) == _moment(run.tracker.progress()):
            return
        state: Any = run.state()
        self._saved[aggregate] = _moment(aggregate.progress)
        self.repository.save(
            aggregate,
            run=state,
            metrics=metrics,
            progress=aggregate.progress,
            retention=self.retention,
            wait=False,
        )


def _place(progress: Progress) -> tuple[int, int]:
    return progress.epoch, progress.batch


def _moment(progress: Progress) -> Progress:
    """Leave out the seconds: they go by while nothing happens."""
    return Progress(progress.epoch, progress.batch, progress.batch_in_epoch, progress.step, progress.samples)


def _same(one: Repository, other: Repository) -> bool:
    return one is other or (one.root, one.run) == (other.root, other.run)
