"""Owners: which process holds something, and whether it still runs."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

GONE = {"Z", "X"}  # it has ended, and only its entry waits to be read
PROCESSES = Path("/proc")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told from all others, also from one that gets its number later.

    Attributes:
        host: The name of the machine.
        machine: What tells this machine, since it was started, and this container, from others of that name; empty
            where that cannot be read.
        pid: The number of the process there.
        started: When it began, in the counting of the machine; empty where that cannot be read.
    """

    host: str
    machine: str
    pid: int
    started: str

    def __str__(self) -> str:
        """Name it as errors do."""
        return f"process {self.pid} on {self.host}"


def this_process() -> Owner:
    """Say which process this is."""
    return _this(os.getpid())


def is_running(owner: Owner, processes: Path = PROCESSES) -> bool | None:
    """Tell whether a process still runs; None if nobody can tell from here."""
    me = this_process()
    if (owner.host, owner.machine) != (me.host, me.machine) or os.name == "nt":
        return None
    started = _started(owner.pid, processes) if owner.started else None
    if started is not None:
        return started == owner.started
    try:
        os.kill(owner.pid, 0)  # which signals nothing, and only looks
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, of which nothing can be read: this one, or a later one of its number
        return None
    return True


@lru_cache(maxsize=1)
def _this(pid: int) -> Owner:
    """Return the process of this number; asked with it, for it is another after a fork."""
    return Owner(socket.gethostname(), _machine(), pid, _started(pid) or "")


def _machine() -> str:
    """Return what a machine calls itself since it was started, and the numbering of processes that counts here."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int, processes: Path = PROCESSES) -> str | None:
    """Return when a process began; empty if it has ended, None if this cannot be read, or there is none."""
    try:
        stat = (processes / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()  # its name, before that, may hold anything
    return "" if state in GONE else rest[18]
