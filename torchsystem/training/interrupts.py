"""Signals: noted when they come, acted on where it is safe.

A signal comes between any two instructions: in the middle of a step, or of a write. So its handler only notes it, and
a run looks for the note after each batch. The second signal does not wait: it ends the process at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from logging import getLogger
from types import FrameType
from typing import Any, Final, NoReturn

from torchsystem.errors import InvalidSignal

logger = getLogger(__name__)

DEFAULT: Final = (signal.SIGTERM, signal.SIGINT)


class Notes:
    """What came, for whoever looks at a safe point. Signals belong to the process, and so there is one of these.

    Attributes:
        signal: The number of the signal that came and was not acted on yet; None if none did.
        is_leaving: Whether somebody acts on it, and the process is on its way out.
    """

    __slots__ = ("_owner", "_previous", "is_leaving", "signal")

    def __init__(self) -> None:
        self.signal: int | None = None
        self.is_leaving = False
        self._owner = 0
        self._previous: dict[int, Any] = {}

    @property
    def is_watching(self) -> bool:
        """Whether signals are noted now."""
        return bool(self._previous) and self._owner == os.getpid()  # a forked process watches for itself

    def watch(self, signals: tuple[int, ...]) -> tuple[int, ...]:
        """Note these signals, too, from now on; return those that were not noted before."""
        inherited: dict[int, Any] = {}
        if not self.is_watching:
            inherited, self._previous = self._previous, {}  # of the process that this one was forked from
            self._owner = os.getpid()
            self.signal, self.is_leaving = None, False
        added = tuple(number for number in signals if number not in self._previous)
        for number in added:
            before = signal.signal(number, self._note)
            self._previous[number] = inherited.get(number) if before == self._note else before
        return added

    def leave_alone(self, signals: tuple[int, ...]) -> int | None:
        """Give signals back to whom they belonged; return one that came, if nobody has acted on it and none will."""
        for number in signals:
            handler = self._previous.pop(number)
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: it was not Python's
        if self._previous:
            return None
        missed = None if self.is_leaving else self.signal
        self.signal, self.is_leaving = None, False
        return missed

    def leave(self) -> NoReturn:
        """End the process as the signal that came asks for.

        Raises:
            SystemExit: With 128 and the number of the signal, as shells have it.
        """
        self.is_leaving = True
        raise SystemExit(128 + (self.signal or 0))

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            _be_as_if_nobody_watched(number)
            return
        if self.signal is not None:
            os._exit(128 + number)  # whoever asks twice does not want to wait for anything
        self.signal = number
        previous = self._previous.get(number)
        if callable(previous) and previous is not signal.default_int_handler:
            previous(number, frame)


notes: Final = Notes()


@contextmanager
def interrupts(*signals: int) -> Generator[None]:
    """Have signals acted on at the next safe point of a run, and not at any instant.

    `Training` does this around its handlers; write it around a loop of your own. Previous handlers are called too,
    and are back when the block ends. A block inside of another adds its signals to those of the outer one; in other
    threads than the main one it does nothing. Where no run has acted on a signal by the end of the block, the end
    acts, also where the block has failed: then the error is logged. What is ignored when the block begins, as
    SIGINT is in the background of a shell, is not among the default ones.

    Args:
        signals: Which ones: SIGTERM and SIGINT by default.

    Raises:
        InvalidSignal: One of them is no signal, or cannot be handled.
        SystemExit: A signal came; its code is 128 and the signal's number.

    Examples:
        >>> from torchsystem.training import interrupts
        >>> with interrupts():
        ...     total = sum(range(4))
        >>> total
        6
    """
    chosen = checked(signals or DEFAULT)
    if chosen == DEFAULT:
        chosen = tuple(number for number in chosen if signal.getsignal(number) != signal.SIG_IGN)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_outermost, missed = not notes.is_watching, None
    added: tuple[int, ...] = ()
    try:
        added = notes.watch(chosen)
        yield
        if is_outermost and notes.signal is not None:
            notes.leave()
    except Exception as error:
        if is_outermost and notes.signal is not None:
            if not isinstance(error, StopIteration):
                logger.exception("this has failed, and the signal %s ends the process", notes.signal)
            notes.leave()
        raise
    finally:
        missed = notes.leave_alone(added)
    if missed is not None:  # it came after the last look, and before it was given back
        signal.raise_signal(missed)


def checked(signals: Iterable[int]) -> tuple[int, ...]:
    """Return signals, each once, if they are signals that can be handled.

    Raises:
        InvalidSignal: One of them is none.
    """
    chosen = tuple(dict.fromkeys(signals))
    for number in chosen:
        if not isinstance(number, int) or number not in signal.valid_signals():
            message = f"interrupts: {number!r} is no signal. Write one of those in `signal`, such as signal.SIGUSR1."
            raise InvalidSignal(message)
        if number in {getattr(signal, name, None) for name in ("SIGKILL", "SIGSTOP")}:
            message = f"interrupts: nobody can handle {signal.Signals(number).name}. Leave it out."
            raise InvalidSignal(message)
    return chosen


def _be_as_if_nobody_watched(number: int) -> None:
    """Act on a signal in a forked process; what a terminal sends is for the one that watches, which tells others."""
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
