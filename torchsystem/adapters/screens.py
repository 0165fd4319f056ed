"""Screens: where a progress bar is drawn, be it a terminal, a pipe or a notebook."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import IO, Any, Protocol

from torchsystem.adapters.requirements import require
from torchsystem.services.processes import renew_after_fork

rich = require("rich", extra="progress")

from rich.console import Console, Group, RenderableType  # noqa: E402 - after what names it when it is missing
from rich.live import Live  # noqa: E402
from rich.progress_bar import ProgressBar as Bar  # noqa: E402
from rich.table import Table  # noqa: E402
from rich.text import Text  # noqa: E402

OFTEN, SELDOM = 0.5, 30.0  # seconds
MINUTE, HOUR = 60, 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is to be seen of a run at one moment.

    Attributes:
        epoch: The epoch under way, from 1; when one has just ended, that one.
        epochs: How many there will be; None if nobody knows.
        split: The split under way.
        batch: How many of its batches are done; None if nobody counts them.
        expected: How many it has; None if nobody knows.
        rate: Training batches per second.
        elapsed: Seconds spent in the run, in all.
        left: Seconds that are left, if it goes on as it did.
        metrics: The latest metrics, by split and name.
    """

    epoch: int = 0
    epochs: int | None = None
    split: str | None = None
    batch: int | None = None
    expected: int | None = None
    rate: float | None = None
    elapsed: float = 0.0
    left: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])

    def head(self) -> str:
        """Say which epoch it is."""
        return f"epoch {self.epoch}" if self.epochs is None else f"epoch {self.epoch}/{self.epochs}"

    def count(self) -> str:
        """Say how far the split under way is."""
        if self.split is None:
            return "" if self.batch is None else f"{self.batch} batches"
        if self.batch is None:
            return self.split
        return f"{self.split} {self.batch}" if self.expected is None else f"{self.split} {self.batch}/{self.expected}"

    def pace(self) -> str:
        """Say how fast it goes."""
        if not self.rate:
            return ""
        return f"{self.rate:,.1f} batches/s" if self.rate >= 1 else f"{1 / self.rate:.1f} s/batch"

    def time(self) -> str:
        """Say how long it took, and how long it will take."""
        return _clock(self.elapsed) + ("" if self.left is None else f", {_clock(self.left)} left")

    def results(self) -> list[str]:
        """Say what was measured last."""
        return [f"{name} {value:.4g}" for name, value in self.metrics.items()]

    def line(self) -> str:
        """Say everything in one line."""
        return " | ".join(
            part for part in (self.head(), self.count(), self.pace(), self.time(), *self.results()) if part
        )

    def picture(self) -> RenderableType:
        """Draw everything."""
        row = Table.grid(expand=True, padding=(0, 1))
        row.add_column(no_wrap=True)
        row.add_column(ratio=1)
        for _ in range(3):
            row.add_column(no_wrap=True)
        knows = self.batch is not None and self.expected is not None
        bar = Bar(total=float(self.expected or 1) if knows else None, completed=float(self.batch or 0), pulse=not knows)
        head, *rest = (Text(text) for text in (self.head(), self.count(), self.pace(), self.time()))
        row.add_row(head, bar if self.split is not None else "", *rest)
        results = self.results()
        return Group(row, Text("  ".join(results), style="dim")) if results else row


class Screen(Protocol):
    """Where a run is shown.

    Attributes:
        seconds: After how many seconds to show it anew.
    """

    seconds: float

    def look(self, view: View) -> None:
        """Show where a run is, now that some time has passed."""

    def mark(self, view: View) -> None:
        """Show where it is, now that an epoch is over."""

    def end(self, view: View, word: str) -> None:
        """Show how it ended, and give the screen back."""


class Lines:
    """A pipe or a file: a line for each epoch, and one when none was written for a while."""

    def __init__(
        self, file: IO[str], seconds: float | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = SELDOM if seconds is None else seconds
        self._file = file
        self._clock = clock
        self._last = clock()

    def look(self, view: View) -> None:
        """Write a line, if there was none for a while."""
        if self._clock() - self._last >= self.seconds:
            self._write(view.line())

    def mark(self, view: View) -> None:
        """Write the line of an epoch."""
        self._write(view.line())

    def end(self, view: View, word: str) -> None:
        """Write how it ended."""
        self._write(f"{word} | {view.time()}")

    def _write(self, line: str) -> None:
        self._last = self._clock()
        encoding = getattr(self._file, "encoding", None) or "utf-8"
        self._file.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        self._file.flush()


class Terminal:
    """A terminal: a bar that stays at the bottom; what is printed meanwhile stands above it."""

    def __init__(self, console: Console, seconds: float | None = None) -> None:
        self.seconds = OFTEN if seconds is None else seconds
        self._streams = sys.stdout, sys.stderr
        self._live = Live(console=console, auto_refresh=False)
        try:
            self._live.start()
            console.show_cursor(show=True)  # a process that is killed could not bring it back
        except BaseException:
            with suppress(Exception, SystemExit):
                self._live.stop()
            raise
        renew_after_fork(self)

    def look(self, view: View) -> None:
        """Draw over what was drawn before."""
        self._live.update(view.picture(), refresh=True)

    def mark(self, view: View) -> None:
        """Leave it to the next look: epochs may be shorter than what drawing takes."""

    def end(self, view: View, word: str) -> None:
        """Draw it for the last time, and how it ended below."""
        try:
            self._live.update(Group(view.picture(), Text(word)), refresh=True)
        finally:
            self._live.stop()

    def after_fork(self) -> None:
        """Let a child print by itself: the thread that draws, and may have locked the console, is not there."""
        sys.stdout, sys.stderr = self._streams


class Notebook:
    """A notebook: an output of its own below the cell, drawn anew in its place.

    Args:
        display: What shows things there: the module `IPython.display`.
        seconds: After how many seconds to draw it anew.
    """

    def __init__(self, display: Any, seconds: float | None = None) -> None:
        self.seconds = OFTEN if seconds is None else seconds
        self._html = display.HTML
        self._handle = display.display(self._html(""), display_id=True)

    def look(self, view: View) -> None:
        """Draw it in its place."""
        self._show(view.picture())

    def mark(self, view: View) -> None:
        """Leave it to the next look."""

    def end(self, view: View, word: str) -> None:
        """Draw it for the last time, and how it ended."""
        self._show(Group(view.picture(), Text(word)))

    def _show(self, picture: RenderableType) -> None:
        console = Console(file=io.StringIO(), record=True, width=100, force_terminal=True, force_jupyter=False)
        console.print(picture)
        page = '<pre style="line-height:normal;white-space:pre-wrap">{code}</pre>'
        self._handle.update(self._html(console.export_html(inline_styles=True, code_format=page)))


def screen_of(console: Console | None = None, seconds: float | None = None) -> Screen:
    """Return the screen that a console is; without one, that of standard output as it is now."""
    console = Console() if console is None else console
    if console.is_jupyter:
        return Notebook(import_module("IPython.display"), seconds)
    if console.is_terminal and not console.is_dumb_terminal:
        return Terminal(console, seconds)
    return Lines(console.file, seconds)


def _clock(seconds: float) -> str:
    """Return seconds as on a clock: 0:05, 12:00, 1:00:00."""
    whole = round(seconds)
    minutes = f"{whole % HOUR // MINUTE}:{whole % MINUTE:02}"
    return minutes if whole < HOUR else f"{whole // HOUR}:{minutes:0>5}"
