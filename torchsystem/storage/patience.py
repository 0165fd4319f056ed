"""Patience: how long to wait for a store that is away, and when that is worth a word."""

from __future__ import annotations

import math
from collections.abc import Callable

REMIND = 600.0  # seconds after which it is said again that a store is away


class Patience:
    """After each failure wait longer, up to some time.

    Args:
        first: How many seconds to wait after a failure; twice as long after each that follows.
        longest: How many seconds at most.
        clock: What tells seconds.

    Attributes:
        until: When to try again, by the clock.
        pause: How many seconds that was to wait; 0 after a success.

    Examples:
        >>> from torchsystem.storage.patience import Patience
        >>> patience = Patience(1.0, 60.0, lambda: 0.0)
        >>> [(patience.fail(), patience.pause) for _ in range(3)]
        [(True, 1.0), (False, 2.0), (False, 4.0)]
        >>> patience.succeed(), patience.succeed()
        (True, False)
    """

    def __init__(self, first: float, longest: float, clock: Callable[[], float]) -> None:
        self._first, self._longest, self._clock = first, longest, clock
        self.until, self.pause = clock(), 0.0
        self._said_at, self._is_said = -math.inf, False

    def fail(self) -> bool:
        """Wait, and tell whether to say so: at the first failure, and then now and then."""
        now = self._clock()
        quiet = REMIND if self.pause else self._longest
        self.pause = min(self.pause * 2 or self._first, self._longest)
        self.until = now + self.pause
        is_news = now - self._said_at >= quiet
        if is_news:
            self._said_at, self._is_said = now, True
        return is_news

    def succeed(self) -> bool:
        """Do not wait any more, and tell whether to say so: where it was said that one waits."""
        self.pause = 0.0
        is_news, self._is_said = self._is_said, False
        return is_news

    def end(self) -> None:
        """Try again now."""
        self.until = self._clock()
