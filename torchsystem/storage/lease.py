"""Who writes in a folder: one process at a time, and whoever comes after one that is gone.

A lease is a file with a number, `.lease-000001.json`: the one with the highest number holds. It says who owns it, and
the time at which it was last touched is the owner's heartbeat. A file of a number can be made once, so that of two
takers one has it; and the highest is never removed, only freed by another name, so that no number comes twice.
"""

from __future__ import annotations

import json
import os
import re
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from logging import getLogger
from pathlib import Path
from secrets import token_hex
from threading import Event, Thread
from typing import NamedTuple

from torchsystem.errors import FolderInUse, LeaseLost
from torchsystem.services.owners import Owner, is_running, this_process

logger = getLogger(__name__)

NAME = re.compile(r"\.lease-(\d{6,})\.(json|free)")
LAPSE = 60.0


class Held(NamedTuple):
    """The lease with the highest number in a folder."""

    number: int
    path: Path
    is_free: bool


class Lease:
    """The right to write in a folder.

    Args:
        folder: The folder, which is there.
        lapse: After how many seconds without a heartbeat an owner elsewhere is taken for dead.
        clock: What tells the time, in seconds; all machines should agree about it.
        me: Who wants to write.
        runs: Tells whether another owner still runs; None if it cannot be told from here.

    Examples:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from torchsystem.storage.lease import Lease
        >>> with TemporaryDirectory() as folder:
        ...     lease = Lease(Path(folder))
        ...     print(lease.take(), lease.take())
        ...     lease.release()
        True False
    """

    def __init__(
        self,
        folder: Path,
        *,
        lapse: float = LAPSE,
        clock: Callable[[], float] = time.time,
        me: Callable[[], Owner] = this_process,
        runs: Callable[[Owner], bool | None] = is_running,
    ) -> None:
        self._folder = folder
        self._lapse = lapse
        self._clock = clock
        self._me = me
        self._runs = runs
        self._path: Path | None = None
        self._stop: Event | None = None

    def take(self) -> bool:
        """Take the lease, if this process does not have it.

        Returns:
            Whether it was taken now: nobody else is writing here, and what is left of somebody may be cleaned.

        Raises:
            FolderInUse: Another process has it.
        """
        while True:
            held = self._highest()
            if held is not None and not held.is_free:
                owner = self._owner(held.path)
                if owner == self._me():
                    self._keep(held.path)
                    return False
                self._refuse_the_living(owner, held.path)
            number = 1 if held is None else held.number + 1
            path = self._folder / f".lease-{number:06}.json"
            if self._make(path):
                if self._is_mine(number, path):
                    break
                path.unlink(missing_ok=True)
        self._clean(number)
        self._keep(path)
        return True

    def check(self) -> None:
        """Make sure that this process still has the lease; take it again if nobody has it, as when it was removed.

        Raises:
            FolderInUse: Another process was quicker then.
            LeaseLost: Another process has taken it over.
        """
        held = self._highest()
        if held is None:
            logger.warning("the lease in %s was removed by somebody; this process takes it again", self._folder)
            self.take()
        elif held.is_free and held.path.stem == getattr(self._path, "stem", None):
            self.take()  # another repository of this process has freed it
        elif held.is_free or held.path != self._path or self._owner(held.path) != self._me():
            owner = None if held.is_free else self._owner(held.path)
            message = (
                f"{self._folder} was taken over by {owner or 'somebody'}, because this process gave no sign of life "
                f"for {self._lapse:g} seconds. Nothing more is written here; end this one, or the other."
            )
            raise LeaseLost(message)

    def beat(self) -> None:
        """Give a sign of life."""
        if self._path is not None:
            now = self._clock()
            try:
                os.utime(self._path, (now, now))
            except OSError as error:
                logger.warning("no sign of life could be given in %s: %s", self._path, error)

    def release(self) -> None:
        """Let others write here; nothing happens if this process does not have the lease."""
        if self._stop is not None:
            self._stop.set()
        path, self._path, self._stop = self._path, None, None
        if path is not None and path.exists() and self._owner(path) == self._me():
            with suppress(OSError):
                path.rename(path.with_suffix(".free"))

    def _refuse_the_living(self, owner: Owner | None, path: Path) -> None:
        runs = None if owner is None else self._runs(owner)
        silent = self._clock() - _touched(path)
        if runs is False or (runs is None and silent >= self._lapse):
            logger.info("%s wrote in %s and is gone; this process takes over", owner, self._folder)
            return
        wait = (
            ""
            if runs
            else f" It was silent for {max(silent, 0):.0f} seconds; after {self._lapse:g} it is taken for dead."
        )
        sure = "" if runs else f" If you know that it is, remove {path}."
        message = (
            f"{self._folder} is written by {owner or 'a process that is just taking it'}.{wait}{sure} End that one, or "
            f"give this one a run of its own: Repository(root, run='...')."
        )
        raise FolderInUse(message)

    def _keep(self, path: Path) -> None:
        """Beat from now on, in the background, as long as anybody holds on to this."""
        if self._path == path and self._stop is not None:
            return
        if self._stop is not None:
            self._stop.set()
        self._path, self._stop = path, Event()
        self.beat()
        beats = _beats, weakref.ref(self), self._stop, self._lapse / 6
        Thread(target=beats[0], args=beats[1:], name=f"lease of {self._folder}", daemon=True).start()

    def _is_mine(self, number: int, path: Path) -> bool:
        """Tell whether nobody had this number before: who has freed it, or a later one, was quicker to make its file.

        The order matters: a freed one is removed only when a later one is there.
        """
        if path.with_suffix(".free").exists():
            return False
        highest = self._highest()
        return highest is not None and highest.number == number

    def _make(self, path: Path) -> bool:
        """Make the file of a lease, whole, if there is none of its number."""
        text = json.dumps(asdict(self._me()))
        now = self._clock()
        draft = path.with_name(f".lease-{token_hex(8)}.draft")
        try:
            draft.write_text(text)
            os.utime(draft, (now, now))
            draft.with_name(path.name).hardlink_to(draft)
        except FileExistsError:
            return False
        except (OSError, NotImplementedError):  # a file system without links; or without room, which is said there
            return self._make_in_place(path, text)
        finally:
            draft.unlink(missing_ok=True)
        return True

    def _make_in_place(self, path: Path, text: str) -> bool:
        try:
            with path.open("x") as file:
                file.write(text)
        except FileExistsError:
            return False
        except OSError:
            path.unlink(missing_ok=True)  # half of a lease would keep everybody out
            raise
        return True

    def _owner(self, path: Path) -> Owner | None:
        """Read who owns a lease; None if it was just removed, or is just being written."""
        try:
            return Owner(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def _highest(self) -> Held | None:
        return max((held for _, held in self._all()), default=None)

    def _all(self) -> Iterator[tuple[int, Held]]:
        for path in self._folder.iterdir():
            match = NAME.fullmatch(path.name)
            if match:
                number = int(match[1])
                yield number, Held(number, path, match[2] == "free")

    def _clean(self, number: int) -> None:
        """Remove earlier leases, and what takers have left that were killed while they took."""
        for old, held in [*self._all()]:
            if old < number:
                held.path.unlink(missing_ok=True)
        for draft in self._folder.glob(".lease-*.draft"):
            if self._clock() - _touched(draft) >= self._lapse:
                draft.unlink(missing_ok=True)


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return -float("inf")  # it was freed a moment ago


def _beats(reference: weakref.ref[Lease], stop: Event, seconds: float) -> None:
    while not stop.wait(seconds):
        lease = reference()
        if lease is None:
            return
        lease.beat()
        del lease
