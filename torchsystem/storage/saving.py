"""One save at a time, here or in the background, and what becomes of one that fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from logging import getLogger
from threading import Event, Thread
from typing import Literal, TypeAlias, TypeVar
from warnings import warn

from torchsystem.errors import DiskFull
from torchsystem.storage.alarms import SaveFailed
from torchsystem.storage.checkpoint import Checkpoint

logger = getLogger(__name__)

FailurePolicy: TypeAlias = Literal["stop", "continue"]
Job: TypeAlias = Callable[[], Checkpoint]
T = TypeVar("T")

FULL = {errno.ENOSPC, errno.EDQUOT}


class Saver:
    """Run saves, one after the other.

    The thread of a save in the background is one that Python waits for before it ends. Each save has its own: there is
    none while nothing is written.

    Args:
        on_failure: `"stop"` raises what went wrong; `"continue"` says what the disk did wrong by a warning, and raises
            everything else.
    """

    def __init__(self, on_failure: FailurePolicy) -> None:
        self._on_failure = on_failure
        self._process = os.getpid()
        self._is_done = Event()
        self._is_done.set()
        self._error: BaseException | None = None

    def run(self, job: Callable[[], T]) -> T | None:
        """Do what a save takes, here and now; return None if it failed and that is no reason to stop."""
        try:
            return job()
        except BaseException as error:  # noqa: BLE001 - it is raised, or said
            self._conclude(_named(error))
            return None

    def begin(self, job: Job) -> None:
        """Save in the background; `settle` was called before."""
        self._process = os.getpid()
        self._is_done = is_done = Event()
        try:
            Thread(target=self._try, args=(job, is_done), name="checkpoint").start()
        except RuntimeError:  # the interpreter is about to end: what nobody waits for any more is done at once
            is_done.set()
            self.run(job)

    def settle(self) -> None:
        """Wait until what is written is written, and raise, or say, what went wrong."""
        self.wait()
        error, self._error = self._error, None
        if error is not None and self._process == os.getpid():
            self._conclude(error)

    def wait(self) -> None:
        """Wait until nothing is being written; in the child of a fork nothing is."""
        # Not by joining the thread: an interrupt there makes Python 3.11 take it for ended, while it is writing.
        if self._process == os.getpid():
            self._is_done.wait()

    @contextmanager
    def stopping(self) -> Generator[None]:
        """Raise what the disk does wrong inside the block, where going on without would be half of a work."""
        policy, self._on_failure = self._on_failure, "stop"
        try:
            yield
        finally:
            self._on_failure = policy

    def unseen(self) -> BaseException | None:
        """Return what went wrong and was not raised yet."""
        return self._error if self._process == os.getpid() else None

    def _try(self, job: Job, is_done: Event) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - `settle` raises it
            self._error = _named(error)
            logger.error("a checkpoint could not be saved in the background: %s", self._error)  # noqa: TRY400
        finally:
            is_done.set()

    def _conclude(self, error: BaseException) -> None:
        if self._on_failure == "continue" and isinstance(error, OSError):
            message = f"no checkpoint was saved, and the run goes on without: {error}"
            logger.error(message)
            warn(message, SaveFailed, stacklevel=4)
        else:
            raise error


def _named(error: BaseException) -> BaseException:
    """Give a full disk its own name."""
    if not isinstance(error, OSError) or error.errno not in FULL:
        return error
    where = f" ({error.filename})" if error.filename else ""
    full = DiskFull(
        f"the disk is full{where}: {error.strerror}. What was saved before is as it was. Make room, keep fewer "
        f"checkpoints (Retention(keep_last=...)), or let the run go on without: Repository(..., on_failure='continue')."
    )
    full.errno, full.strerror, full.filename = error.errno, error.strerror, error.filename
    full.__cause__ = error
    return full
