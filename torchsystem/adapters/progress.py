"""A progress bar: how far a run has come, for whoever looks on."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from torchsystem.adapters.screens import Screen, View, rich, screen_of
from torchsystem.errors import InvalidOption
from torchsystem.services import Consumer, handler
from torchsystem.services.processes import finish_at_exit
from torchsystem.training.events import (
    EpochEnded,
    Interrupted,
    ProcessStarted,
    Trained,
    TrainingEnded,
    TrainingFailed,
    Validated,
)
from torchsystem.training.run import Run, under_way

if TYPE_CHECKING:
    from rich.console import Console

    from torchsystem.depends import Provider
    from torchsystem.domain import Aggregate

logger = logging.getLogger(__name__)

LAST = 1000  # after everybody who prints something at the end
FAILURES = (
    Exception,
    SystemExit,
)  # by the latter a console leaves when its reader has left: no reason for a run to end
LOOKS = 20  # over how many of them the pace is taken


class ProgressBar(Consumer):
    """Show epochs and batches, the pace, the time left and the latest metrics.

    In a terminal it is a bar that stays at the bottom; in a pipe or a file, a line for each epoch and one when none was
    written for a while; in a notebook an output of its own.

    It hears of no batch: it costs the loop nothing. Twice a second a thread of its own looks at the counters of the run
    and draws them. The device is never asked. A screen that cannot be drawn on fails no run: it is said in the log, and
    left alone from then on.

    Args:
        console: What to draw on; by default what standard output is when a run begins.
        seconds: After how many seconds to look again: by default 0.5, and 30 where it is a line each time.
        name: What to call it in messages.
        provider: Where its handlers' dependencies are bound; one of its own by default.

    Raises:
        InvalidOption: The console is none, or the seconds are no number above 0.

    Examples:
        >>> from torchsystem.adapters.progress import ProgressBar
        >>> from torchsystem.training import Training
        >>> training = Training()
        >>> training.producer.register(ProgressBar(), where="leader")  # of several processes one shows it
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        seconds: float | None = None,
        name: str | None = "progress bar",
        provider: Provider | None = None,
    ) -> None:
        super().__init__(name, provider=provider)
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if seconds is not None and not (is_number and 0 < seconds < math.inf):
            message = f"ProgressBar(seconds={seconds!r}) would never be drawn. Write a number above 0."
            raise InvalidOption(message)
        if console is not None and not isinstance(console, rich.console.Console):
            message = f"ProgressBar({console!r}): this is no console. Write one of rich: Console(file=sys.stderr)."
            raise InvalidOption(message)
        self._console = console
        self._seconds = seconds
        self._watch: _Watch | None = None
        self._metrics: dict[str, float] = {}

    @handler
    def begin(self, event: ProcessStarted) -> None:
        """Look on from now on."""
        self._metrics.clear()
        self.close()
        try:
            screen = screen_of(self._console, self._seconds)
        except FAILURES:
            logger.warning("%r has no screen to draw on.", self, exc_info=True)
        else:
            self._watch = _Watch(event.aggregate, screen, self._metrics)

    @handler
    def remember(self, event: Trained | Validated) -> None:
        """Note the latest metrics, which are shown at the next look."""
        split = event.split if isinstance(event, Validated) else "train"
        self._metrics.update({f"{split}/{name}": value for name, value in event.metrics.items()})

    @handler
    def mark(self, event: EpochEnded) -> None:
        """Show that an epoch is over, where that is a line of its own, with what was measured in it alone."""
        self._metrics.update(event.metrics)
        for name in self._metrics.keys() - event.metrics.keys():
            del self._metrics[name]
        if self._watch is not None:
            self._watch.mark()

    @handler(order=LAST)
    def end(self, event: TrainingEnded | TrainingFailed | Interrupted) -> None:
        """Show how it ended, and look on no longer."""
        if isinstance(event, TrainingEnded):
            word = f"ended: {event.reason}"
        elif isinstance(event, TrainingFailed):
            word = f"failed: {type(event.error).__name__}"
        else:
            word = f"interrupted: {signal.strsignal(event.signal) or f'signal {event.signal}'}"
        self._leave(word)

    def close(self) -> None:
        """Look on no longer, and close what dependencies have opened."""
        self._leave("left")
        super().close()

    def _leave(self, word: str) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.end(word)


class _Watch:
    """Whoever looks on: a thread that reads the counters of a run now and then, and shows them."""

    def __init__(self, aggregate: Aggregate, screen: Screen, metrics: dict[str, float]) -> None:
        self._aggregate = aggregate
        self._screen = screen
        self._metrics = metrics
        self._process = os.getpid()
        self._view = View()
        self._seen: deque[tuple[float, int]] = deque(maxlen=LOOKS)  # seconds and batches
        self._start: tuple[float, float] | None = None  # seconds, and the part of the run that was done
        self._batches: int | None = None  # of the split to learn from, in an epoch
        self._is_over = threading.Event()
        self._guard = threading.Lock()
        with self._guard:
            self._show(lambda _: None)
        finish_at_exit(self)
        threading.Thread(target=self._look_on, name="torchsystem progress bar", daemon=True).start()

    def mark(self) -> None:
        """Show that an epoch is over."""
        with self._guard:
            self._show(self._screen.mark, between=True)

    def end(self, word: str) -> None:
        """Show how it ended, once; how long it would have taken, had it gone on, matters to nobody now."""
        with self._guard:
            self._show(lambda view: self._screen.end(replace(view, left=None), word), between=True)
            self._is_over.set()

    def at_exit(self, start: float) -> None:  # noqa: ARG002 - there is nothing to wait for
        """Give the screen back when the interpreter exits in the middle of a run."""
        if os.getpid() == self._process:
            self.end("left")

    def _look_on(self) -> None:
        while not self._is_over.wait(self._screen.seconds):
            if under_way(self._aggregate) is None:  # the loop was left, and nobody told
                self.end("left")
            with self._guard:
                self._show(self._screen.look)

    def _show(self, draw: Callable[[View], None], *, between: bool = False) -> None:
        """Draw what is to be seen, if that is possible; the guard is held."""
        if self._is_over.is_set():
            return
        try:
            run = under_way(self._aggregate)
            if run is not None:
                self._view = self._look_at(run, between=between)
            draw(self._view)
        except FAILURES:
            logger.warning(
                "The progress of %s cannot be shown any more.", type(self._aggregate).__name__, exc_info=True
            )
            self._is_over.set()
            with suppress(*FAILURES):
                self._screen.end(View(), "")

    def _look_at(self, run: Run, *, between: bool) -> View:
        """Read the counters of a run: plain numbers, which its thread counts on meanwhile."""
        tracker, budget, epoch = run.tracker, run.budget, self._aggregate.epoch
        elapsed, batch, split = tracker.elapsed, tracker.batch, None if between else run.split
        if split == "train":
            self._batches = run.expected
        within = 0.0 if between or not self._batches else min(1.0, tracker.batch_in_epoch / self._batches)
        share = _share(run, epoch + within)
        if split == "train" or between or not self._seen:
            self._seen.append((elapsed, batch))
        if self._start is None:
            self._start = elapsed, share
        (then, before), (spent, gone) = self._seen[0], (elapsed - self._start[0], share - self._start[1])
        return View(
            epoch=epoch if between else min(epoch + 1, budget.epochs or epoch + 1),
            epochs=budget.epochs,
            split=split,
            batch=tracker.batch_in_epoch if split is None else run.position,
            expected=run.expected,
            rate=(batch - before) / (elapsed - then) if batch > before and elapsed > then else self._view.rate,
            elapsed=elapsed,
            left=(1 - share) * spent / gone if spent > 0 and gone > 0 else None,
            metrics=dict(self._metrics),
        )


def _share(run: Run, epochs: float) -> float:
    """Return which part of a run is done, by what will be used up first; 0 if nobody knows."""
    budget, tracker = run.budget, run.tracker
    parts = [
        epochs / budget.epochs if budget.epochs else 0.0,
        tracker.steps / budget.steps if budget.steps else 0.0,
        tracker.samples / budget.samples if budget.samples else 0.0,
        tracker.elapsed / budget.seconds if budget.seconds else 0.0,
    ]
    return min(1.0, max(parts))
