"""The repository: where whole states are put, and whence the newest whole one comes back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from logging import getLogger
from pathlib import Path
from typing import Any, Self, TypeVar

from torch.nn import Module

from torchsystem.domain import Aggregate
from torchsystem.domain.continuation import attach
from torchsystem.domain.plain import Plain
from torchsystem.errors import InvalidFigure, InvalidRepository, InvalidRetention
from torchsystem.progress import Progress
from torchsystem.services import Producer
from torchsystem.storage import subjects, tensors
from torchsystem.storage.checkpoint import Checkpoint
from torchsystem.storage.description import compare, describe, describe_one, unwrapped
from torchsystem.storage.naming import folder_name
from torchsystem.storage.places import is_address
from torchsystem.storage.ports import Files, LocalFiles
from torchsystem.storage.retention import Retention
from torchsystem.storage.saving import FailurePolicy
from torchsystem.storage.search import exactly, newest, opened, readable, verified
from torchsystem.storage.shelf import Shelf
from torchsystem.storage.unit import Unit
from torchsystem.storage.writer import Writer

logger = getLogger(__name__)

S = TypeVar("S")


class Repository:
    """Save whole states so that they survive, and restore the newest whole one.

    Checkpoints lie in `root/<run>/<id>/<number>`. The id is that of the aggregate, or the name of its class in kebab
    case. One process writes in the folder of a run, which it holds from its first save to `close`; any may read.

    Args:
        root: The folder of all runs, on a disk of this machine.
        run: The name of this run.
        retention: Which checkpoints to keep; all, if it is not given.
        on_failure: What happens when the disk fails: `"stop"` raises; `"continue"` says it by a warning, `SaveFailed`,
            at every save that fails. A state that is not finite, or a lease that was lost, is raised in any case.
        buffers: Whether the memory that states are copied to is kept from one save to the next, which costs one state
            of memory for each id, and makes the copy several times as fast.
        files: The disk.

    Raises:
        InvalidRepository: An option has no meaning, or the root is an address.
        MissingExtra: safetensors is not installed.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from torch import nn, optim
        >>> from torchsystem import Aggregate
        >>> from torchsystem.storage import Repository
        >>> class Classifier(Aggregate):
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         self.nn = nn.Linear(2, 2)
        ...         self.optimizer = optim.Adam(self.nn.parameters())
        >>> classifier = Classifier()
        >>> classifier.epoch = 3
        >>> with TemporaryDirectory() as folder, Repository(folder) as repository:
        ...     checkpoint = repository.save(classifier, metrics={"validation/loss": 0.25})
        ...     print(checkpoint)
        ...     print(repository.restore(Classifier()).epoch)
        checkpoint 1 of classifier in run default (epoch 3)
        3
    """

    def __init__(  # noqa: PLR0913 - each says one thing about where and how, and has a default
        self,
        root: str | os.PathLike[str],
        *,
        run: str = "default",
        retention: Retention | None = None,
        on_failure: FailurePolicy = "stop",
        buffers: bool = True,
        files: Files | None = None,
    ) -> None:
        if on_failure not in ("stop", "continue"):
            message = f"Repository(on_failure={on_failure!r}): write 'stop' or 'continue'."
            raise InvalidRepository(message)
        if not isinstance(run, str):
            message = f"Repository(run={run!r}): write the name of the run, such as 'baseline'."
            raise InvalidRepository(message)
        if is_address(Path(root)):
            message = (
                f"Repository({str(root)!r}): checkpoints lie in a folder here. Write its path; what is in it can be "
                f"mirrored elsewhere: Experiment(..., mirror=Store('s3://bucket/runs'))."
            )
            raise InvalidRepository(message)
        tensors.require()
        self.root = Path(root).absolute()
        self.run = run
        self.retention = _checked(Retention() if retention is None else retention)
        self._folder = self.root / folder_name(run)
        self._files = LocalFiles() if files is None else files
        self._writer = Writer(self._files, self._folder, on_failure=on_failure, keeps_buffers=buffers)

    def save(  # noqa: PLR0913 - each says one thing about what is saved, and has a default
        self,
        subject: object,
        *,
        run: Plain = None,
        metrics: Mapping[str, float] | None = None,
        wait: bool = True,
        progress: Progress | None = None,
        about: Mapping[str, object] | None = None,
        retention: Retention | None = None,
        id: object = None,  # noqa: A002 - it is the id
    ) -> Checkpoint | None:
        """Save the whole state of something.

        Args:
            subject: An aggregate, any other module, or a mapping of tensors by name.
            run: The other half of a checkpoint: where the run that it is in goes on, in tensors and plain values.
            metrics: The metrics of the epoch that this state came out of, for `keep_best`.
            wait: Whether to return when the checkpoint is sure to survive. Otherwise the state is copied, and a thread
                does the rest; what goes wrong there is raised by the next `save`, `flush` or `close`.
            progress: How far it is; by default the epoch of the aggregate.
            about: What belongs to it besides, such as `{"data": dataset}`: it is described, not stored.
            retention: Which checkpoints to keep, if not as the repository does.
            id: The id, if not its own.

        Returns:
            The checkpoint; None if it is still being written, or if that failed and the run is to go on.

        Raises:
            FolderInUse: Another process writes in the folder of the run.
            NonFiniteState: The state is not finite.
            DiskFull: There is no room. Whatever else the disk says is raised as itself.
            BrokenCheckpoint: What was written is not what is read back; nothing older was removed.
            LeaseLost: Another process has taken over the folder.
            InvalidFigure: A metric is no number, or has no name.
            UnkeepableValue: Something in the state is neither a tensor nor a plain value.
            Unstorable: A tensor has no values, or is sparse, nested or quantized.
        """
        shelf = self._shelf(subject, id)
        figures = _figures(metrics or {})

        def draft() -> Checkpoint:
            return Checkpoint(
                folder=shelf.folder,
                number=0,
                id=shelf.id,
                run=self.run,
                created=datetime.now(UTC),
                progress=Progress(epoch=subjects.epoch_of(subject)) if progress is None else progress,
                metrics=figures,
                metadata={"parts": describe(subject), "about": _about(about)},
                parts={},
            )

        kept = self.retention if retention is None else _checked(retention)
        return self._writer.save(subject, shelf, draft, run=run, retention=kept, wait=wait)

    def restore(
        self,
        subject: S,
        *,
        checkpoint: Checkpoint | int | None = None,
        accept: str | Iterable[str] = (),
        about: Mapping[str, object] | None = None,
        id: object = None,  # noqa: A002 - it is the id
    ) -> S:
        """Put the newest whole checkpoint in place of the state of something; no hook runs.

        A broken one is said by a warning, `SkippedCheckpoint`, and the one before it is used. What belongs to a run
        waits for the next training of the aggregate, which goes on there.

        Args:
            subject: What to restore, built as it was when it was saved.
            checkpoint: Which one, or its number, and no other.
            accept: Names, or patterns with `*` in them, of what may differ: parts such as `"optimizer"`, and entries
                of the state such as `"head.*"`. An entry that does not fit stays as it is; a part that was built in
                another way gets its state all the same, an optimizer with the learning rate that it had.
            about: What belongs to it besides, such as `{"data": dataset}`, to be compared with what it was.
            id: The id, if not its own.

        Returns:
            The very subject: restored, or as it came if there is no checkpoint.

        Raises:
            BrokenCheckpoint: There are checkpoints, and all are broken; or the one that was asked for is.
            UnknownCheckpoint: The one that was asked for is not there.
            UnknownFormat: The newest is of another version.
            MetadataMismatch: Criterion, optimizer, data or anything registered is another; nothing was changed.
            SnapshotMismatch: Something in the state does not fit; nothing was changed.
        """
        patterns = (accept,) if isinstance(accept, str) else tuple(accept)
        self._writer.settle()
        shelf = self._shelf(subject, id)
        if isinstance(checkpoint, Checkpoint):
            shelf = self._shelf_of(checkpoint)
        found = newest(shelf) if checkpoint is None else exactly(shelf, checkpoint)
        if found is None:
            return subject
        chosen, state = found
        compare(chosen.metadata["parts"], describe(subject), patterns)
        present = _about(about)
        compare({key: part for key, part in chosen.metadata["about"].items() if key in present}, present, patterns)
        subjects.put_back(subject, state["snapshot"], patterns)
        aggregate = unwrapped(subject) if isinstance(subject, Module) else None
        if isinstance(aggregate, Aggregate):
            attach(aggregate, state["run"])
        logger.info("restored %s", chosen)
        return subject

    def checkpoints(self, subject: object = None, *, id: object = None) -> list[Checkpoint]:  # noqa: A002
        """List the checkpoints of something, from the oldest to the newest.

        Only manifests are read; `verify` reads everything. One whose manifest is broken is said by a warning.

        Args:
            subject: What was saved.
            id: Its id, if there is no subject, or if not its own.
        """
        self._writer.settle()
        return list(readable(self._shelf(subject, id), aloud=True))

    def verify(self, subject: object, *, id: object = None) -> list[Checkpoint]:  # noqa: A002 - it is the id
        """Read checkpoints, and make sure that they are what was written.

        Args:
            subject: A checkpoint; or what was saved, and all of its checkpoints are meant.
            id: The id, if not its own.

        Returns:
            What was read.

        Raises:
            BrokenCheckpoint: Some are broken, all of which are named.
        """
        self._writer.settle()
        if isinstance(subject, Checkpoint):
            return verified(self._shelf_of(subject), [subject])
        shelf = self._shelf(subject, id)
        return verified(shelf, opened(shelf))

    def unit(
        self, aggregate: Aggregate, producer: Producer, *, metrics: Mapping[str, float] | None = None, run: Plain = None
    ) -> Unit:
        """Begin a unit of work: its events leave and the state is stored together, or neither.

        Args:
            aggregate: What changes.
            producer: Where its events go.
            metrics: As in `save`.
            run: As in `save`.

        Returns:
            What is entered: `with repository.unit(aggregate, producer) as unit:`.
        """

        def store() -> None:
            with self._writer.stopping():  # whatever the policy: an event may not leave without its state
                self.save(aggregate, metrics=metrics, run=run)

        return Unit(aggregate, producer, store)

    def claim(self) -> None:
        """Take the folder of the run now, and clean up what killed saves have left there; a save does so as well.

        Raises:
            FolderInUse: Another process writes in it.
        """
        self._writer.claim()

    def flush(self) -> None:
        """Return when what is written in the background is sure to survive.

        Raises:
            BaseException: What went wrong there, as itself.
        """
        self._writer.settle()

    def close(self) -> None:
        """Do as `flush` does, let another process write in the folder, and free the kept memory.

        It can be used again: the next save takes the folder again.
        """
        self._writer.close()

    def __enter__(self) -> Self:
        """Return it; it is closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Repository({str(self.root)!r}, run={self.run!r})"

    def _shelf(self, subject: object, given: object) -> Shelf:
        """Return where checkpoints of a subject are."""
        known = given if subject is None and given is not None else subjects.identify(subject, given)
        return Shelf(self._files, self._folder / folder_name(known), id=str(known), run=self.run)

    def _shelf_of(self, checkpoint: Checkpoint) -> Shelf:
        """Return where a checkpoint is."""
        return Shelf(self._files, checkpoint.folder.parent, id=checkpoint.id, run=checkpoint.run)


def _checked(retention: Retention) -> Retention:
    if not isinstance(retention, Retention):
        message = f"retention={retention!r}: write Retention(keep_last=3)."
        raise InvalidRetention(message)
    return retention


def _figures(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics as numbers, by name."""
    try:
        figures = {name: float(value) for name, value in metrics.items()}
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        message = f"metrics={metrics!r}: each has a name, and is one number ({error})."
        raise InvalidFigure(message) from error
    unnamed = [name for name in figures if not isinstance(name, str)]
    if unnamed:
        message = f"metrics={metrics!r}: {unnamed[0]!r} is no name. Write {str(unnamed[0])!r}."
        raise InvalidFigure(message)
    return figures


def _about(about: Mapping[str, object] | None) -> dict[str, Any]:
    return {name: describe_one(thing) for name, thing in (about or {}).items()}
