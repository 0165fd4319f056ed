"""Processes: what happens to locks and to undelivered messages when a process forks or ends."""

from __future__ import annotations

import atexit
import os
import time
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from types import TracebackType


class Forkable(Protocol):
    """What other threads may be busy with when the process forks."""

    def after_fork(self) -> None:
        """Become as new, in the child: those threads do not exist there, and will never be done."""


class Finishable(Protocol):
    """What may have something left to do when the interpreter exits."""

    def at_exit(self, start: float) -> None:
        """Do it, or say what is lost; `start` is when the exit began, by `time.monotonic`."""


class ForkSafeLock:
    """A lock that is free in the child of a fork, whoever held it in the parent."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def after_fork(self) -> None:
        """Be a new lock."""
        self._lock = Lock()


def renew_after_fork(thing: Forkable) -> None:
    """Let something become as new in the children of this process, as long as it lives."""
    _watch_forks()
    _forkable.add(thing)


def finish_at_exit(thing: Finishable) -> None:
    """Let something finish when the interpreter exits, if it still lives then."""
    _watch_exit()
    _finishable.add(thing)


_forkable: WeakSet[Forkable] = WeakSet()
_finishable: WeakSet[Finishable] = WeakSet()


@cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):  # Windows does not fork
        os.register_at_fork(after_in_child=_after_fork)


@cache
def _watch_exit() -> None:
    atexit.register(_at_exit)


def _after_fork() -> None:
    for thing in list(_forkable):
        thing.after_fork()


def _at_exit() -> None:
    start = time.monotonic()
    for thing in list(_finishable):
        thing.at_exit(start)
