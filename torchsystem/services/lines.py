"""Lines: the queue and the thread of a listener in the background."""

from __future__ import annotations

import logging
import time
import warnings
from collections import deque
from collections.abc import Sequence
from contextlib import contextmanager
from contextvars import Context, copy_context
from threading import Condition, Lock, Thread, current_thread
from typing import TYPE_CHECKING, Any, NamedTuple

from torchsystem.errors import QueueFull
from torchsystem.services.failures import HandlerFailed, Hearer
from torchsystem.services.processes import finish_at_exit, renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Generator

    from torchsystem.services.modes import Background
    from torchsystem.services.processes import Finishable

LINGER = 1.0  # seconds for which an idle thread waits for more, before it ends; the next message starts another

logger = logging.getLogger("torchsystem.services")


class _Job(NamedTuple):
    """One message on its way to those handlers of a listener that hear it."""

    hearers: tuple[Hearer, ...]
    message: Any
    context: Context


class _Worker(Thread):
    """The thread of a line. It ends when it was idle for a while, so that nothing has to be done about it."""

    def __init__(self, line: Line) -> None:
        super().__init__(name=f"torchsystem: {line.listener!r}", daemon=True)
        self.line = line

    def run(self) -> None:
        self.line.work()


class Line:
    """What is on its way to one listener in the background: bounded, in order, one message at a time.

    Args:
        listener: Whose line it is, for messages.
        mode: How many may wait, and what happens to one too many.
        everyone: Whether the handlers after one that failed hear a message all the same.
        keeper: What must stay alive as long as there is something to deliver.
    """

    def __init__(self, listener: object, mode: Background, *, everyone: bool, keeper: Finishable) -> None:
        self.listener = listener
        self.mode = mode
        self.plugged = True
        self.dropped = 0  # how many messages, in all
        self._said = 0  # of how many it was said
        self._everyone = everyone
        self._keeper = keeper
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin with nothing. What waits at a fork is delivered by the parent, which still has its thread."""
        self._lock = Lock()
        self._filled = Condition(self._lock)  # there is something to do, for the worker
        self._freed = Condition(self._lock)  # there is room, for those who wait to put something in
        self._done = Condition(self._lock)  # something is done, for those who wait until it is
        self._jobs: deque[_Job] = deque()
        self._worker: _Worker | None = None
        self._idle = False
        self._retiring = False
        self._accepted = 0  # the number of the newest message; those that wait are the newest
        self._running: int | None = None  # the number of the message under way
        self.awaited = self.blocked = 0  # how many threads wait for something to be done, and for room
        self._failures: list[HandlerFailed] = []
        self._watches: list[tuple[object, list[HandlerFailed]]] = []
        self.ahead: Line | None = None  # the full line that our worker waits to put something into

    def __del__(self) -> None:
        """Say what nobody has seen."""
        if self._failures:
            message = (
                f"{len(self._failures)} failures of {self.listener!r} were never seen: its producer was not closed"
            )
            warnings.warn(message, ResourceWarning, source=self, stacklevel=2)

    @property
    def is_spent(self) -> bool:
        """Whether nothing will come any more, and all is done and seen."""
        return not (self.plugged or self.left or self._failures)

    @property
    def has_failed(self) -> bool:
        """Whether there are failures that nobody has seen."""
        return bool(self._failures)

    @property
    def accepted(self) -> int:
        """How many messages were put in, in all; they are numbered so."""
        return self._accepted

    @property
    def left(self) -> int:
        """How many messages are not delivered yet, the one under way included."""
        return len(self._jobs) + (self._running is not None)

    def put(self, hearers: tuple[Hearer, ...], message: object) -> None:
        """Take in a message; if there is no room, do what the mode says.

        Raises:
            QueueFull: There is no room, and that is what the mode says.
        """
        job = _Job(hearers, message, copy_context())
        with self._lock:
            if len(self._jobs) >= self.mode.capacity:
                self._make_room()
            if self._worker is None:
                finish_at_exit(self._keeper)  # of this process, which may be a child of the one where this line began
                worker = _Worker(self)
                worker.start()  # it waits for the lock
                self._worker = worker
            self._jobs.append(job)
            self._accepted += 1
            if self._idle:
                self._filled.notify()
        if self.dropped and not self._said:
            self.say_what_was_dropped()

    def wait(self, number: int, until: float | None = None) -> bool:
        """Wait until all messages up to a number are delivered, or until a time; tell whether they are."""
        timeout = None if until is None else max(0.0, until - time.monotonic())
        with self._lock:
            self.awaited += 1
            try:
                return self._done.wait_for(lambda: self._is_done(number), timeout)
            finally:
                self.awaited -= 1

    def take(self) -> list[HandlerFailed]:
        """Return the failures that nobody has seen yet."""
        if not self._failures:  # nearly always, and asked at each dispatch
            return []
        with self._lock:
            failures, self._failures = self._failures, []
        return failures

    @contextmanager
    def watching(self, message: object) -> Generator[list[HandlerFailed]]:
        """Collect what fails of one message apart from all others: complete after the block, lost to nobody."""
        failures: list[HandlerFailed] = []
        watch = message, failures
        with self._lock:
            self._watches.append(watch)
        try:
            yield failures
        except BaseException:
            self._end(watch, failures)  # nobody else will see them
            raise
        self._end(watch)

    def retire(self) -> None:
        """Let the thread end after what is left; if nothing is, wait for that. The next message starts another."""
        with self._lock:
            worker = self._worker
            self._retiring = worker is not None
            self._filled.notify()
        if worker is not None and not self.left:
            worker.join()
        self.say_what_was_dropped()

    def say_what_was_dropped(self) -> None:
        """Say how many messages were dropped so far, if more than was said. Not under a lock: a log may dispatch."""
        if self.dropped > self._said:
            self._said = self.dropped
            logger.warning("%r does not keep up: %d messages to it were dropped so far", self.listener, self.dropped)

    def work(self) -> None:
        """Deliver one message after another, in the thread of the line."""
        while True:
            with self._lock:
                self._finish()
                if self._worker is not current_thread() or not self._await_job():
                    return
                # Its number comes first: at no moment may it seem as if nothing was left.
                self._running = self._accepted - len(self._jobs) + 1
                job = self._jobs.popleft()
                if self.blocked:
                    self._freed.notify()
            job.context.run(self._deliver, job)
            del job  # not to be kept alive until the next one comes

    def _is_done(self, number: int) -> bool:
        """Tell whether no message up to a number waits or is under way."""
        return number <= self._accepted - len(self._jobs) and (self._running is None or self._running > number)

    def _finish(self) -> None:
        """Note that nothing is under way any more."""
        self._running = None
        if self.awaited:
            self._done.notify_all()

    def _await_job(self) -> bool:
        """Wait for something to do; when nothing comes for a while, or will come, resign."""
        self._idle = True
        while not self._jobs:
            if self._retiring or not (self._filled.wait(LINGER) or self._jobs):
                self._worker, self._retiring = None, False
                return False
        self._idle = False
        return True

    def _deliver(self, job: _Job) -> None:
        """Hand a message to its hearers, and keep what fails for whoever dispatches next."""
        for call, handler in job.hearers:
            try:
                call(job.message)
            except BaseException as error:  # noqa: BLE001 - it surfaces where the messages come from
                self._note(HandlerFailed(error, job.message, handler))
                if not (self._everyone and isinstance(error, Exception)):
                    return

    def _end(self, watch: tuple[object, list[HandlerFailed]], unseen: Sequence[HandlerFailed] = ()) -> None:
        """Collect nothing more: what fails from now on is kept for whoever comes first, and so is what is unseen."""
        with self._lock:
            self._watches = [each for each in self._watches if each is not watch]
            self._failures += unseen

    def _note(self, failure: HandlerFailed) -> None:
        """Keep a failure for those who watch its message, or else for whoever comes first."""
        with self._lock:
            watching = [failures for message, failures in self._watches if message is failure.event]
            for failures in watching or [self._failures]:
                failures.append(failure)

    def _drop(self, job: _Job) -> None:
        """Count a message that nobody will hear, and tell those who wait until it is handled."""
        self.dropped += 1
        for message, failures in self._watches:
            if message is job.message:
                error = QueueFull(f"{self.listener!r} in the background does not keep up: the message was dropped.")
                failures += [HandlerFailed(error, message, handler) for _, handler in job.hearers]

    def _make_room(self) -> None:
        """Wait for room, drop the oldest message, or refuse the new one."""
        if self.mode.overflow == "raise":
            message = (
                f"{self.listener!r} in the background has {self.mode.capacity} messages waiting, and is to take no "
                f"more. Give it a larger capacity, or overflow='wait'."
            )
            raise QueueFull(message)
        if self.mode.overflow == "drop_oldest":
            self._drop(self._jobs.popleft())
            if self.awaited:
                self._done.notify_all()
            return
        self._wait_for_room()

    def _wait_for_room(self) -> None:
        """Wait, except where workers would wait for one another for ever: there the capacity is exceeded."""
        waiting = current_line()
        if waiting is not None:
            waiting.ahead = self
        self.blocked += 1
        try:
            if waiting is None or not self._leads_to(waiting):
                self._freed.wait_for(lambda: len(self._jobs) < self.mode.capacity)
        finally:
            self.blocked -= 1
            if waiting is not None:
                waiting.ahead = None

    def _leads_to(self, other: Line) -> bool:
        """Tell whether our worker waits for room in a line, whose worker waits for room ... in another one."""
        ahead: Line | None = self
        while ahead is not None and ahead is not other:
            ahead = ahead.ahead
        return ahead is other


def current_line() -> Line | None:
    """Return the line whose worker this thread is."""
    thread = current_thread()
    return thread.line if isinstance(thread, _Worker) else None
