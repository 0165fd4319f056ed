"""Processes: what happens to locks and to undelivered messages when a process forks or ends."""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import threading
import time
from functools import cache
from threading import Lock
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """What other threads may be busy with when the process forks."""

    def after_fork(self) -> None:
        """Become as new, in the child: those threads do not exist there, and will never be done."""


class Finishable(Protocol):
    """What may have something left to do when the interpreter exits."""

    def at_exit(self, start: float) -> None:
        """Do it, or say what is lost; `start` is when the exit began, by `time.monotonic`."""


class Hurried(Protocol):
    """What may have something left to do that needs threads."""

    def before_exit(self) -> None:
        """Do it: the interpreter is about to exit, and threads can still be begun. More may come until it does."""


class ForkSafeLock:
    """A lock that is free in the child of a fork, whoever held it in the parent: `with guard.lock:`.

    It is the plain lock that is entered, so that an interrupt cannot come between taking it and what gives it back.
    """

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Be a new lock."""
        self.lock = Lock()


def renew_after_fork(thing: Forkable) -> None:
    """Let something become as new in the children of this process, as long as it lives."""
    _watch_forks()
    _forkable.add(thing)


def finish_at_exit(thing: Finishable) -> None:
    """Let something finish when the interpreter exits, if it still lives then."""
    _watch_exit(os.getpid())
    _finishable.add(thing)


def hurry_before_exit(thing: Hurried) -> None:
    """Let something hurry when the interpreter is about to exit, if it still lives then.

    That is before `finish_at_exit`, where no pool of threads takes anything any more, and so no connection is opened.
    """
    _watch_threads()
    _hurried.add(thing)


_forkable: WeakSet[Forkable] = WeakSet()
_finishable: WeakSet[Finishable] = WeakSet()
_hurried: WeakSet[Hurried] = WeakSet()


@cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):  # Windows does not fork
        os.register_at_fork(after_in_child=_after_fork)


@cache
def _watch_exit(process: int) -> None:  # noqa: ARG001 - once for each
    atexit.unregister(_at_exit)  # in the child of a fork, which may have inherited it
    atexit.register(_at_exit)
    # A process that `multiprocessing` has forked ends by `os._exit`, and has an end of its own before that.
    if "multiprocessing.process" in sys.modules:
        from multiprocessing import parent_process, util  # noqa: PLC0415 - only where it is used anyway

        if parent_process() is not None:
            util.Finalize(None, _at_exit, exitpriority=0)


@cache
def _watch_threads() -> None:
    importlib.import_module("concurrent.futures.thread")  # who is registered after it is called before it
    register = getattr(threading, "_register_atexit", None)  # private, and the only way to come before pools end
    if register is not None:
        register(_before_exit)


def _before_exit() -> None:
    for thing in list(_hurried):
        thing.before_exit()


def _after_fork() -> None:
    for thing in list(_forkable):
        thing.after_fork()


def _at_exit() -> None:
    start = time.monotonic()
    for thing in list(_finishable):
        thing.at_exit(start)
