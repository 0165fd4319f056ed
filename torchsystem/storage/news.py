"""News of a mirror: that its store is away, is back, or has not all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Delayed:
    """A store is away: what is to be mirrored waits, and training goes on.

    Attributes:
        error: What went wrong last.
        waiting: How many files wait.
        seconds: After how many seconds it is tried again.
    """

    error: Exception
    waiting: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Recovered:
    """A store that was away takes files again.

    Attributes:
        waiting: How many files wait.
    """

    waiting: int


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A mirror was closed before all was mirrored.

    Attributes:
        files: What is missing there, or old, by path in the folder.
    """

    files: tuple[str, ...]


News: TypeAlias = Delayed | Recovered | Incomplete
