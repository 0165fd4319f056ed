"""Workers: which process does something, and whether it still does."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Self

from torchsystem.services.owners import Owner, is_running, this_process

# What this process is doing now: a copy in the child of a fork is never asked, for the child has another number.
_active: set[str] = set()
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Worker:
    """A process, and one thing that it does.

    Attributes:
        process: Which process it is.
        token: What it does.
    """

    process: Owner
    token: str

    @classmethod
    def read(cls, text: str) -> Self:
        """Take up what `str(worker)` wrote."""
        *process, token = json.loads(text)
        return cls(Owner(*process), token)

    def __str__(self) -> str:
        """Write it as a journal keeps it."""
        return f'{_beginning(self.process)}, "{self.token}"]'

    def is_alive(self) -> bool | None:
        """Tell whether it still does it; None if that cannot be told from here."""
        if not self.process.machine:  # as on macOS: a host of that name may be another
            return None
        if self.process == this_process():
            return self.token in _active
        return is_running(self.process)

    def describe(self) -> str:
        """Say who it is, for messages."""
        return str(self.process)


@contextmanager
def acting() -> Generator[str]:
    """Be a worker for the length of a block: as it is written in a journal."""
    token = str(next(_numbers))
    _active.add(token)
    try:
        yield str(Worker(this_process(), token))
    finally:
        _active.discard(token)


@lru_cache(maxsize=1)
def _beginning(process: Owner) -> str:
    """Write what all workers of a process begin with."""
    return json.dumps([process.host, process.machine, process.pid, process.started])[:-1]
