"""The backlog of a bus: what was dispatched, and is not delivered yet."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import Context, copy_context
from typing import Any

from torchsystem.errors import DeliveryTimeout, WaitsForItself
from torchsystem.services.failures import HandlerFailed, Hearer, Settlement
from torchsystem.services.lines import Line, current_line, logger
from torchsystem.services.modes import Background, Delivery
from torchsystem.services.processes import finish_at_exit, renew_after_fork


class Backlog:
    """Messages that are deferred, and lines in the background.

    Args:
        settlement: Makes what the failures of one delivery are settled in.
        everyone: Whether those who hear after someone who failed are served all the same.
    """

    def __init__(self, settlement: Callable[[], Settlement], *, everyone: bool) -> None:
        self.lines: tuple[Line, ...] = ()  # also of listeners that were taken out, as long as something is left
        self._settlement = settlement
        self._everyone = everyone
        self._deferred: deque[tuple[tuple[Hearer, ...], Any, Context]] = deque()
        self._due: deque[HandlerFailed] = deque()  # failures that the delivery under way lets be seen at its end

    def __del__(self) -> None:
        """Say what nobody will deliver, and what nobody has seen."""
        if self._due:
            message = f"{len(self._due)} failures in the background were never seen: their producer was not closed"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=2)
        if self._deferred:
            message = f"{len(self._deferred)} deferred messages were lost: nobody called flush()"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=2)

    def queue(self, listener: object, delivery: Delivery | None) -> Backlog | Line | None:
        """Return where the messages of a listener are put; None if they are handed to it at once."""
        if delivery is None:
            return None
        renew_after_fork(self)
        finish_at_exit(self)
        if not isinstance(delivery, Background):
            return self
        for line in self.lines:
            if line.listener is listener:  # it was here before, and may have something left
                line.mode, line.plugged = delivery, True
                return line
        line = Line(listener, delivery, everyone=self._everyone, keeper=self)
        self.lines = (*(line for line in self.lines if not line.is_spent), line)
        return line

    def release(self, queue: Backlog | Line | None) -> None:
        """Let go of the queue of a listener that is taken out; what is in it is still delivered."""
        if isinstance(queue, Line):
            queue.plugged = False

    def put(self, hearers: tuple[Hearer, ...], message: object) -> None:
        """Defer a message."""
        if not self._deferred:
            finish_at_exit(self)  # of this process, which may be a child of the one where the listener was plugged in
        self._deferred.append((hearers, message, copy_context()))

    def look(self, _message: object = None) -> None:
        """Look for failures in the background before a message is delivered: its own are for the next one to tell."""
        for line in self.lines:
            if line.has_failed:
                self._due.extend(line.take())

    def due(self) -> list[HandlerFailed]:
        """Return the failures in the background that were there when somebody looked, and that nobody has seen yet."""
        failures: list[HandlerFailed] = []
        while self._due:
            with suppress(IndexError):  # another thread was quicker
                failures.append(self._due.popleft())
        return failures

    def take(self) -> list[HandlerFailed]:
        """Return all failures in the background that nobody has seen yet."""
        self.look()
        return self.due()

    def surface(self, _message: object = None) -> None:
        """Let the failures be seen that were there before the message."""
        if self._due:
            self._settle(self._settlement(), self.due())

    def flush(self, timeout: float | None = None) -> None:
        """Deliver what is deferred, and wait until the background is idle; then let failures be seen.

        Raises:
            DeliveryTimeout: The background is not idle after so many seconds.
            WaitsForItself: This is the background.
        """
        self._drain(self._settlement(), timeout, whatever=False)

    def close(self, timeout: float | None = None) -> None:
        """Do the same whoever fails, end all threads, and say what was dropped."""
        try:
            self._drain(self._settlement(), timeout, whatever=True)
        finally:
            for line in self.lines:
                line.retire()

    @contextmanager
    def barrier(self, message: object, timeout: float | None) -> Generator[list[HandlerFailed]]:
        """Wait, after a block that puts in a message, until everyone has handled it.

        Yields:
            The failures in the background that concern this message: complete after the block.
        """
        self._check_that_it_can_wait()
        failures: list[HandlerFailed] = []
        with ExitStack() as stack:
            lines = [(line, line.accepted, stack.enter_context(line.watching(message))) for line in self.lines]
            yield failures
            settlement = self._settlement()
            self._deliver(settlement, whatever=False)
            settlement.conclude()
            until = _after(timeout)
            for line, before, _ in lines:
                if line.accepted > before:
                    self._wait(line, until)
        failures += [failure for _, _, watched in lines for failure in watched]  # of which there are no more now

    def after_fork(self) -> None:
        """Begin with nothing: what waits at a fork is delivered by the parent."""
        self._deferred.clear()
        self._due.clear()

    def at_exit(self, start: float) -> None:
        """Give the background the time it has, then say what is lost, and what failed unseen."""
        self._wait_at_exit(start)
        self._wait_at_exit(start)  # for those who hear of failures
        for line in self.lines:
            if line.left:
                logger.error("%d messages to %r were lost at exit: it was too slow", line.left, line.listener)
            line.say_what_was_dropped()
        if self._deferred:
            logger.error("%d deferred messages were lost at exit: nobody called flush()", len(self._deferred))
            self._deferred.clear()

    def _wait_at_exit(self, start: float) -> None:
        for line in self.lines:
            line.wait(line.accepted, start + line.mode.deadline)
        try:
            self._settle(self._settlement(), self.take())
        except BaseException:  # noqa: BLE001 - nobody is left to raise it to
            logger.exception("a listener in the background failed, and nobody had seen it until the exit")

    def _drain(self, settlement: Settlement, timeout: float | None, *, whatever: bool) -> None:
        """Deliver and wait until nothing is left, also of what comes in meanwhile."""
        self._check_that_it_can_wait()
        until = _after(timeout)
        try:
            while self._deferred or self._due or any(line.left or line.has_failed for line in self.lines):
                self._deliver(settlement, whatever=whatever)
                for line in self.lines:
                    self._wait(line, until)
                settlement.settle_all(self.take())  # which others may hear of, in the background as well
        except BaseException as error:
            settlement.end_by(error)  # nobody else will say what failed until now
            raise
        settlement.conclude()

    def _deliver(self, settlement: Settlement, *, whatever: bool) -> None:
        """Deliver what is deferred, and what is deferred meanwhile; if told so, whatever is raised."""
        while self._deferred:
            try:
                hearers, message, context = self._deferred.popleft()
            except IndexError:  # another thread delivers, too
                return
            try:
                context.run(settlement.serve, hearers, message)
            except Exception as error:
                if not whatever:
                    raise
                settlement.settle(HandlerFailed(error, message, hearers[0].handler))

    def _settle(self, settlement: Settlement, failures: list[HandlerFailed]) -> None:
        settlement.settle_all(failures)
        settlement.conclude()

    def _wait(self, line: Line, until: float | None) -> None:
        if not line.wait(line.accepted, until):
            message = f"{line.listener!r} in the background still has {line.left} messages before it."
            raise DeliveryTimeout(message)

    def _check_that_it_can_wait(self) -> None:
        line = current_line()
        if line is not None and line in self.lines:
            message = (
                f"{line.listener!r} is in the background, and waits for all that is in the background: for itself. "
                f"Flush, close and wait elsewhere."
            )
            raise WaitsForItself(message)


def _after(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout
