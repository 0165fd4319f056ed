"""Who of this process writes in a folder: all of its repositories, in whatever threads, by one lease."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakSet, WeakValueDictionary

from torchsystem.services.processes import ForkSafeLock, renew_after_fork
from torchsystem.storage.lease import Lease

_guard = ForkSafeLock()
_tenancies: WeakValueDictionary[str, Tenancy] = WeakValueDictionary()


class Tenancy:
    """The right of this process to write in a folder, until the last of those in it who write there has left.

    Args:
        folder: The folder, which need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self._lease = Lease(folder)
        self._tenants: WeakSet[object] = WeakSet()
        self._guard = ForkSafeLock()
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Know of nobody in the child of a fork, where nothing is being written."""
        self._tenants.clear()
        self._turns: dict[str, ForkSafeLock] = {}
        self._busy = 0

    def enter(self, tenant: object, clean: Callable[[], object]) -> None:
        """Take the folder, if this process does not have it.

        Args:
            tenant: Who wants to write.
            clean: Cleans the folder; called if it was taken now, and nobody of this process is writing in it.

        Raises:
            FolderInUse: Another process has it.
        """
        with self._guard.lock:
            is_new = self._lease.take()
            self._tenants.add(tenant)
            if is_new and not self._busy:
                clean()

    def leave(self, tenant: object) -> None:
        """Let other processes write in the folder, if this was the last of this one who does."""
        with self._guard.lock:
            self._tenants.discard(tenant)
            if not self._tenants:
                self._lease.release()

    def check(self) -> None:
        """Make sure that this process still has the folder.

        Raises:
            LeaseLost: Another process has taken it over.
        """
        with self._guard.lock:
            self._lease.check()

    @contextmanager
    def turn(self, place: str) -> Generator[None]:
        """Write below a name in the folder, while nobody else of this process does; it is not cleaned meanwhile."""
        with self._guard.lock:
            mine = self._turns.setdefault(place, ForkSafeLock())
            self._busy += 1
        try:
            with mine.lock:
                yield
        finally:
            with self._guard.lock:
                self._busy -= 1


def tenancy(folder: Path) -> Tenancy:
    """Return the one of a folder, by whatever path one comes there.

    Examples:
        >>> from pathlib import Path
        >>> from torchsystem.storage.tenancy import tenancy
        >>> tenancy(Path("runs/default")) is tenancy(Path("runs/../runs/default"))
        True
    """
    path = os.path.realpath(folder)
    with _guard.lock:
        known = _tenancies.get(path)
        if known is None:
            known = _tenancies[path] = Tenancy(folder)
        return known
