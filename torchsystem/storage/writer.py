"""Writing in the folder of a run: who holds it, what is being written, and the memory that is kept for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import Literal
from warnings import warn

from torchsystem.domain.plain import Plain, plain
from torchsystem.services.processes import ForkSafeLock, finish_at_exit
from torchsystem.storage import health, subjects
from torchsystem.storage.alarms import UnknownBest
from torchsystem.storage.buffers import Buffers
from torchsystem.storage.checkpoint import Checkpoint
from torchsystem.storage.ports import Files
from torchsystem.storage.retention import Retention
from torchsystem.storage.saving import FailurePolicy, Saver
from torchsystem.storage.search import readable
from torchsystem.storage.shelf import Shelf
from torchsystem.storage.tenancy import tenancy

logger = getLogger(__name__)


class Writer:
    """Write checkpoints, one at a time, in a folder that this process alone writes in.

    Args:
        files: The disk.
        folder: The folder of the run.
        on_failure: What happens when the disk fails.
        keeps_buffers: Whether the memory that states are copied to is kept.
    """

    def __init__(self, files: Files, folder: Path, *, on_failure: FailurePolicy, keeps_buffers: bool) -> None:
        self._files = files
        self._folder = folder
        self._tenancy = tenancy(folder)
        self._saver = Saver(on_failure)
        self._keeps_buffers = keeps_buffers
        self._buffers: dict[Path, Buffers] = {}
        self._guard = ForkSafeLock()
        finish_at_exit(self)

    def save(  # noqa: PLR0913 - each says one thing about what is saved
        self,
        subject: object,
        shelf: Shelf,
        draft: Callable[[], Checkpoint],
        *,
        run: Plain,
        retention: Retention,
        wait: bool,
    ) -> Checkpoint | None:
        """Copy the state of something, and write it here or in the background.

        Args:
            subject: What to save.
            shelf: Where.
            draft: Tells what is known of the checkpoint, when it is time for it.
            run: The run part.
            retention: Which checkpoints to keep.
            wait: Whether to return when the checkpoint is sure to survive.

        Returns:
            The checkpoint; None if it is being written, or if that failed and is no reason to stop.
        """
        with self._guard.lock:
            self._saver.settle()
            if self._saver.run(self._hold) is None:
                return None
            buffers = self._buffers.setdefault(shelf.folder, Buffers(keep=self._keeps_buffers))
            buffers.begin()
            state = {"snapshot": subjects.take(subject, buffers.copy), "run": plain(run, "run", buffers.copy)}
            known = draft()
            _warn_of_unknown_best(shelf, known, retention)
            job = partial(self._write, shelf, known, state, subjects.parameters_of(subject), retention)
            if wait:
                return self._saver.run(job)
            self._saver.begin(job)
            return None

    def settle(self) -> None:
        """Return when what is written in the background is sure to survive, and raise what went wrong there."""
        with self._guard.lock:
            self._saver.settle()

    def stopping(self) -> AbstractContextManager[None]:
        """Raise what the disk does wrong inside the block, whatever the policy."""
        return self._saver.stopping()

    def claim(self) -> None:
        """Take the folder, and clean it."""
        with self._guard.lock:
            self._saver.settle()
            self._saver.run(self._hold)

    def close(self) -> None:
        """Settle, let others write, and free what is kept."""
        with self._guard.lock:
            try:
                self._saver.settle()
            finally:
                self._tenancy.leave(self)
                self._buffers.clear()

    def at_exit(self, start: float) -> None:  # noqa: ARG002 - as everything that finishes then
        """Wait for what is being written, say what went wrong and nobody has seen, and let others write."""
        self._saver.wait()
        unseen = self._saver.unseen()
        if unseen is not None:
            logger.error("the last checkpoint in %s was not saved: %s", self._folder, unseen)
        self._tenancy.leave(self)

    def _hold(self) -> Literal[True]:
        """Take the folder, and clean it if it was not held."""
        self._files.make_folder(self._folder)
        self._tenancy.enter(self, self._clean)
        return True

    def _clean(self) -> None:
        for name in self._files.list(self._folder):
            with suppress(NotADirectoryError, PermissionError):  # what cannot be read is no folder of ours
                left = Shelf(self._files, self._folder / name, id=name, run="").clean()
                if left:
                    logger.warning("removed what killed saves have left in %s: %s", name, ", ".join(left))

    def _write(
        self,
        shelf: Shelf,
        draft: Checkpoint,
        state: dict[str, Plain],
        parameters: frozenset[str],
        retention: Retention,
    ) -> Checkpoint:
        """Write a checkpoint, and remove those that it makes superfluous; nobody else of this process writes there."""
        with self._tenancy.turn(shelf.folder.name):
            checkpoint = shelf.write(
                draft,
                state,
                before_it_is_written=partial(health.check, state["snapshot"], parameters),
                before_it_counts=self._tenancy.check,
            )
            logger.info("saved %s", checkpoint)
            superfluous = [] if retention.keep_last is None else retention.superfluous([*readable(shelf)])
            if superfluous:
                shelf.verify(checkpoint)
                for old in superfluous:
                    shelf.delete(old)
            return checkpoint


def _warn_of_unknown_best(shelf: Shelf, draft: Checkpoint, retention: Retention) -> None:
    """Say that the best cannot be told, which would show only when the best is gone."""
    if retention.keep_best is None or not draft.metrics or retention.keep_best[0] in draft.metrics:
        return
    if not any(retention.keep_best[0] in each.metrics for each in readable(shelf)):
        message = (
            f"keep_best={retention.keep_best!r}: no checkpoint of {draft.id} has {retention.keep_best[0]!r}, so none "
            f"is kept for being the best. The metrics of this one are: {', '.join(draft.metrics)}."
        )
        warn(message, UnknownBest, stacklevel=4)
