"""Mirrors: a folder, kept up to date in a store elsewhere, in the background."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from threading import Condition, Event, Thread
from typing import Self

from torchsystem.errors import InvalidMirror, MirrorClosed, OutsideRoot, TorchSystemError
from torchsystem.services.processes import finish_at_exit, hurry_before_exit
from torchsystem.storage.news import Delayed, Incomplete, News, Recovered
from torchsystem.storage.outbox import Outbox, signature
from torchsystem.storage.patience import Patience
from torchsystem.storage.segments import check_key
from torchsystem.storage.store import Store

__all__ = ["Delayed", "Incomplete", "Mirror", "News", "Recovered", "is_manifest", "is_passing"]

logger = logging.getLogger(__name__)

AT_EXIT = 10.0  # seconds that the end of the interpreter waits for what was not closed


def is_manifest(key: str) -> bool:
    """Tell whether a file says that those beside it are whole, and so has to come after them."""
    return PurePosixPath(key).name == "manifest.json"


def is_passing(name: str) -> bool:
    """Tell whether a file or folder is a draft, or of no use elsewhere: hidden, or not under its last name."""
    return name.startswith(".") or name.endswith((".draft", ".tmp", ".part"))


class Mirror:
    """A folder, kept up to date in a store elsewhere, by a thread in the background.

    Files are sent when they are told, and when the folder is looked through: at first, now and then, and at last.
    What says that others are whole, a manifest, is sent after them. A store that is away delays: it is tried again,
    after longer and longer, and training never waits for it. What is removed here stays there.

    Args:
        folder: The folder.
        store: Where to.
        into: Below which path in the store.
        every: After how many seconds the folder is looked through again; None is never in between.
        capacity: How many names of files may wait. More are found again by looking through the folder.
        first: How many seconds to wait after a failure; twice as long after each that follows.
        longest: How many seconds at most.
        last: Tells by the path which files come after those beside and below them.
        ignored: Tells by the name which files and folders are not sent.
        on_news: What is told that the store is away (`Delayed`), is back (`Recovered`), or has not all (`Incomplete`);
            as `producer.dispatch`. It is called by the thread, and what it raises is logged.
        background: Whether to have a thread; without one, whoever calls `step` is it.
        clock: What tells seconds.
        sleep: What waits, where there is no thread.

    Raises:
        InvalidMirror: A number has no meaning, or the store lies in the folder.

    Examples:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from torchsystem.storage import Mirror, Store
        >>> with TemporaryDirectory() as here, TemporaryDirectory() as there:
        ...     with Mirror(here, Store(there), into="digits/first") as mirror:
        ...         _ = Path(here, "history.csv").write_text("epoch,loss")
        ...         mirror.tell("history.csv")
        ...     Store(there).keys()
        ['digits/first/history.csv']
    """

    def __init__(  # noqa: PLR0913 - each has a default
        self,
        folder: str | Path,
        store: Store,
        *,
        into: str = "",
        every: float | None = 60.0,
        capacity: int = 10_000,
        first: float = 1.0,
        longest: float = 60.0,
        last: Callable[[str], bool] = is_manifest,
        ignored: Callable[[str], bool] = is_passing,
        on_news: Callable[[News], object] | None = None,
        background: bool = True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if not isinstance(store, Store):
            message = (
                f"Mirror({str(folder)!r}, {store!r}): this is no store. Write Mirror(folder, Store('s3://bucket'))."
            )
            raise InvalidMirror(message)
        _check(every=every, capacity=capacity, first=first, longest=longest)
        self._root = Path(os.path.realpath(folder))
        if store.is_local and (store.root == self._root or store.root.is_relative_to(self._root)):
            message = f"{store!r} lies in {folder}, so the mirror would mirror itself. Mirror to a folder beside it."
            raise InvalidMirror(message)
        self._outbox = Outbox(self._root, ignored, capacity)
        self._store, self._into = store, f"{check_key(into)}/" if into else ""
        self._every = every
        self._is_last, self._on_news = last, on_news
        self._clock, self._sleep = clock, sleep
        self._process = os.getpid()
        self._loaded = False
        self._scan_at: float | None = clock()
        self._patience = Patience(first, longest, clock)
        self._refused: set[str] = set()
        self._condition = Condition()
        self._calls = 0  # of whoever wants something done, so that the thread does not go to sleep over one
        self._rests = Event()  # nothing is due now
        self._until: float | None = None  # when closing ends, by the clock
        self._exit: float | None = None  # when the end of the interpreter began
        self._closed = False
        self._thread = Thread(target=self._run, name=f"mirror of {folder}", daemon=True) if background else None
        if self._thread is not None:
            hurry_before_exit(self)
            finish_at_exit(self)
            self._thread.start()

    def __repr__(self) -> str:
        return f"Mirror({str(self._root)!r}, {self._store!r}, into={self._into.rstrip('/')!r})"

    def tell(self, path: str | Path) -> None:
        """Say that a file, or all in a folder, is to be mirrored; it is only noted, so nobody waits.

        Args:
            path: Its path, absolute or in the folder.

        Raises:
            MirrorClosed: The mirror is closed, or of another process.
            OutsideRoot: It is not in the folder.
        """
        if self._closed or self._process != os.getpid():
            why = "closed" if self._closed else "of the process that made it, and not of this child of it"
            message = f"{self!r} is {why}, so {str(path)!r} would not be mirrored. Open a mirror here."
            raise MirrorClosed(message)
        location = Path(os.path.realpath(self._root / path))
        if not location.is_relative_to(self._root):
            message = f"{str(path)!r} is not in {self._root}, which is mirrored. Tell what is in it."
            raise OutsideRoot(message)
        overflown = self._outbox.overflown
        if not self._outbox.put(location.relative_to(self._root).as_posix()) and not overflown:
            logger.warning("%r: %d files wait; more are looked up when these are sent.", self, len(self._outbox))
        with self._condition:
            self._call()

    def missing(self) -> list[str]:
        """List the files that are not in the store as they are now."""
        return self._outbox.unsent()

    def step(self) -> float | None:
        """Do the next thing that is due, without ever raising what the store does.

        Returns:
            After how many seconds the next is due; None if nothing is to be done until something is told.
        """
        now = self._clock()
        if now < self._patience.until:
            return self._patience.until - now
        key = None
        try:
            if self._scan_at is not None and now >= self._scan_at:
                self._scan(now)
            key = self._outbox.take()
            if key is None:
                return self._idle(now)
            self._send(key)
        except Exception as error:  # noqa: BLE001 - whatever a store raises, training goes on
            if key is not None:
                self._outbox.put(key)
            self._fail(error)
            return self._patience.until - self._clock()
        return 0.0

    def close(self, timeout: float | None = 60.0) -> list[str]:
        """Mirror what is left, and stop.

        Args:
            timeout: How many seconds that may take; None takes as long as it does.

        Returns:
            What was not mirrored. It is logged, too, and told.
        """
        if self._closed or self._process != os.getpid():
            return []
        with self._condition:
            self._until = math.inf if timeout is None else self._clock() + timeout
            self._call(to_scan=True)
        if self._thread is None:
            self._run()
        else:
            self._thread.join(timeout)
        self._closed = True
        self._outbox.save(self._target)
        missing = self.missing()
        if missing:
            self._say(logging.WARNING, Incomplete(tuple(missing)))
        return missing

    def before_exit(self) -> None:
        """Mirror what is there while the store can still be connected to, for which some need threads."""
        if self._closed or self._process != os.getpid():
            return
        self._exit = time.monotonic()
        with self._condition:
            self._rests.clear()
            self._call(to_scan=True)
        self._rests.wait(AT_EXIT)

    def at_exit(self, start: float) -> None:
        """Mirror what is left when the interpreter ends, if nobody has closed this; but not for long."""
        begun = start if self._exit is None else self._exit
        self.close(max(AT_EXIT - (time.monotonic() - begun), 0.0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        """Do what is due until the mirror is closed, and all is done or the time is over."""
        while True:
            calls = self._calls
            seconds = self.step()
            until = self._until
            if until is not None and (self._clock() >= until or (seconds != 0.0 and self._is_done())):
                break
            if until is not None:
                left = until - self._clock()
                seconds = left if seconds is None else min(seconds, left)
            if self._thread is None:
                self._sleep(seconds or 0.0)
                continue
            with self._condition:
                if seconds != 0.0 and self._calls == calls:
                    self._rests.set()
                    self._condition.wait(seconds)

    def _call(self, *, to_scan: bool = False) -> None:
        """Wake the thread, to look through the folder and wait for nothing if that is wanted; the condition is held."""
        if to_scan:
            self._scan_at = self._clock()
            self._patience.end()
        self._calls += 1
        self._condition.notify()

    def _is_done(self) -> bool:
        """Tell whether all was sent, now that the mirror is closed."""
        return not len(self._outbox) and not self._outbox.overflown and self._scan_at is None

    def _idle(self, now: float) -> float | None:
        """Return when something is due, with nothing waiting."""
        if self._outbox.overflown:
            self._scan_at = now
            return 0.0
        return None if self._scan_at is None else self._scan_at - now

    def _scan(self, now: float) -> None:
        """Look through the folder."""
        self._scan_at = None if self._every is None or self._until is not None else now + self._every
        try:
            if not self._loaded:
                self._outbox.load(self._target, self._there())
                self._loaded = True
                self._succeed()
            self._outbox.scan()
        except Exception:
            self._scan_at = now
            raise
        if not len(self._outbox):
            self._outbox.save(self._target)

    @property
    def _target(self) -> str:
        return f"{self._store!r}/{self._into}"

    def _there(self) -> dict[str, int]:
        """Return what is in the store already, with its size."""
        sizes = self._store.sizes(self._into.rstrip("/"))
        return {key.removeprefix(self._into): size for key, size in sizes.items()}

    def _send(self, key: str) -> None:
        """Send a file, after those that have to be there before it; all that is in a folder, if it is one."""
        path = self._root / key
        if path.is_dir():
            for below in self._outbox.unsent(key):
                self._outbox.put(below)
            return
        if self._is_last(key) and not self._outbox.is_sent(key):
            before = [other for other in self._outbox.unsent(key.rpartition("/")[0]) if not self._is_last(other)]
            if not all(self._send_one(other) for other in before):
                return  # one of them is gone, and so is what it was part of; or it can never be sent
        self._send_one(key)

    def _send_one(self, key: str) -> bool:
        """Send a file if it has changed, and tell whether it is there now."""
        path = self._root / key
        now = signature(path)
        if now is None or key in self._refused:
            return False
        if self._outbox.is_sent(key):
            return True
        try:
            self._store.put(f"{self._into}{key}", path)
        except TorchSystemError:
            self._refused.add(key)
            logger.exception("%r: %s cannot be stored there under this name, and never will be.", self, key)
            return False
        except Exception:
            if signature(path) is None:  # it is gone, as old checkpoints go
                return False
            raise
        self._outbox.mark(key, now)
        self._succeed()
        return True

    def _fail(self, error: Exception) -> None:
        """Wait a while, and say so at times."""
        if self._patience.fail():
            self._say(logging.WARNING, Delayed(error, len(self._outbox), self._patience.pause))

    def _succeed(self) -> None:
        """Do not wait any more, and say so where it was said that this waits."""
        if self._patience.succeed():
            self._say(logging.INFO, Recovered(len(self._outbox)))

    def _say(self, level: int, news: News) -> None:
        logger.log(level, "%r: %r", self, news)
        if self._on_news is not None:
            try:
                self._on_news(news)
            except Exception:
                logger.exception("%r: who is told %r has failed.", self, news)


def _check(*, every: float | None, capacity: int, first: float, longest: float) -> None:
    right = {
        "every": every is None or every > 0,
        "capacity": isinstance(capacity, int) and capacity >= 1,
        "first": first > 0,
        "longest": longest >= first,
    }
    wrong = [name for name, is_right in right.items() if not is_right]
    if wrong:
        message = f"Mirror(...): {', '.join(wrong)} has no meaning. Write seconds above 0, and a capacity of 1 or more."
        raise InvalidMirror(message)
