"""Timers: events that are due by the clock, handed out when somebody asks."""

from __future__ import annotations

import math
import time

from torchsystem.errors import InvalidOption
from torchsystem.services.messages import event
from torchsystem.services.options import Clock


@event
class Elapsed:
    """An interval of a timer has passed.

    Attributes:
        seconds: The length of the interval.
    """

    seconds: float


class Timers:
    """Intervals of time, each handed out as an `Elapsed` when it is over and somebody polls.

    Nothing runs by itself: a loop polls where it is safe, so that a timer never gets in between. One that was over
    several times is handed out once, and goes on in its own rhythm.

    Args:
        seconds: The intervals to begin with.
        clock: What tells the seconds.

    Raises:
        InvalidOption: An interval is not a number of seconds above 0.

    Examples:
        >>> from torchsystem.services import Elapsed, Timers
        >>> now = 0.0
        >>> timers = Timers(10, 60, clock=lambda: now)
        >>> now = 25.0
        >>> timers.poll()
        [Elapsed(seconds=10)]
        >>> timers.poll()
        []
        >>> now = 60.0
        >>> timers.poll()
        [Elapsed(seconds=10), Elapsed(seconds=60)]
    """

    def __init__(self, *seconds: float, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[float, float] = {}
        self._next = math.inf
        for interval in seconds:
            self.every(interval)

    def every(self, seconds: float) -> None:
        """Add an interval, counted from now on. One that is there already goes on as it was.

        Raises:
            InvalidOption: It is not a number of seconds above 0.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            message = f"{seconds!r} is no interval of a timer. Write a number of seconds above 0."
            raise InvalidOption(message)
        self._due.setdefault(seconds, self._clock() + seconds)
        self._next = min(self._due.values())

    def poll(self) -> list[Elapsed]:
        """Return what is over since it was last handed out, in the order in which it was due."""
        now = self._clock()
        if now < self._next:
            return []
        over = sorted((due, seconds) for seconds, due in self._due.items() if due <= now)
        for due, seconds in over:
            ahead = due + seconds * ((now - due) // seconds + 1)
            self._due[seconds] = ahead if ahead > now else ahead + seconds  # rounding may bring it back to now
        self._next = min(self._due.values())
        return [Elapsed(seconds) for _, seconds in over]
