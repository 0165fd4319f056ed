"""The progress bar: what it shows where, that it costs the loop nothing, and that it fails no run."""

from __future__ import annotations

import gc
import html
import io
import logging
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from statistics import median
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from torch import Tensor

from tests.training.fakes import Clock, Learner, loader
from torchsystem.adapters.progress import ProgressBar
from torchsystem.adapters.screens import OFTEN, Lines, Notebook, Screen, Terminal, View, screen_of
from torchsystem.errors import InvalidOption
from torchsystem.progress import Progress
from torchsystem.services import Producer
from torchsystem.training import Split, Training, batches, device, epochs
from torchsystem.training.events import (
    BatchEnded,
    BatchStarted,
    GradientsUpdated,
    Interrupted,
    OptimizerStepped,
    ProcessStarted,
)
from torchsystem.triggers import every

NEVER = 1e6  # seconds after which nobody looks any more
VIEW = View(
    epoch=3, epochs=10, split="train", batch=120, expected=600, rate=1203.4, elapsed=12, left=63, metrics={"a/b": 0.25}
)


class Slow(Learner):
    """A learner for whom each batch takes a second, by its clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        self.clock.now += 1
        return super().fit(inputs, targets)


def training_of(*listeners: Any, clock: Any = time.monotonic) -> Training:
    """Make a training with listeners."""
    training = Training(clock=clock)
    training.override(device, lambda: "cpu")
    training.producer.register(*listeners)
    return training


def piped(file: io.StringIO | None = None, *, seconds: float | None = NEVER) -> tuple[ProgressBar, io.StringIO]:
    """Make a bar that writes into a pipe."""
    file = io.StringIO() if file is None else file
    return ProgressBar(Console(file=file), seconds=seconds), file


def terminal() -> Console:
    """Make a terminal."""
    return Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=110, _environ={})


def drawn(console: Console) -> str:
    """Return what a terminal was sent."""
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def watchers() -> list[threading.Thread]:
    """Return the threads that look on, after those that are about to end have ended."""
    found = [thread for thread in threading.enumerate() if thread.name == "torchsystem progress bar"]
    for thread in found:
        thread.join(200)
    return [thread for thread in found if thread.is_alive()]


def calls_per_batch(training: Training, count: int) -> list[int]:
    """Count the Python calls from one batch to the next, in the thread of the loop."""
    learner, made = Learner(), loader(count, samples=2)
    calls, at = 0, list[int]()

    def note(frame: FrameType, kind: str, _: object) -> None:
        nonlocal calls
        calls += kind in {"call", "c_call"}
        if kind == "call" and frame.f_code is Learner.fit.__code__:
            at.append(calls)

    gc.disable()
    sys.setprofile(note)
    try:
        training.handle("fit", learner, {"train": made}, epochs=1)
    finally:
        sys.setprofile(None)
        gc.enable()
    return [after - before for before, after in pairwise(at)]


def test_a_batch_costs_no_call_more_than_without_it() -> None:
    """Nothing is heard of batches, so that their events need not even be built: the thread of the loop does nothing."""
    plain, shown = training_of(), training_of(ProgressBar(terminal(), seconds=0.001))
    for kind in (BatchStarted, BatchEnded, GradientsUpdated, OptimizerStepped):
        assert not shown.producer.wants(kind)
    calls_per_batch(plain, 2), calls_per_batch(shown, 2)  # what is done once is done
    with_it = calls_per_batch(shown, 50)
    assert with_it == calls_per_batch(plain, 50)
    assert len(with_it) == 49


@pytest.mark.parametrize("where", ["terminal", "notebook"])
def test_looking_takes_less_than_a_hundredth_of_the_time(where: str) -> None:
    """The thread that draws holds the interpreter meanwhile: that, too, is to be less than 1 % of any batch."""
    screen: Screen = Terminal(terminal()) if where == "terminal" else Notebook(Display())
    seconds = []
    for _ in range(50):
        start = time.thread_time()
        screen.look(VIEW)
        seconds.append(time.thread_time() - start)
    screen.end(VIEW, "over")
    assert screen.seconds == OFTEN
    assert median(seconds) < 0.01 * OFTEN


def test_in_a_pipe_there_is_a_line_for_each_epoch() -> None:
    """Epochs, batches, pace, time left and metrics; plain text, and how it ended."""
    clock = Clock()
    bar, file = piped()
    told = training_of(bar, clock=clock).handle("fit", Slow(clock), {"train": loader(), "test": loader(1)}, epochs=3)
    expected = [
        f"epoch {number}/3 | 3 batches | 1.0 batches/s | 0:{number * 3:02}, 0:{9 - number * 3:02} left | "
        f"train/loss {metrics['train/loss']:.4g} | test/loss {metrics['test/loss']:.4g}"
        for number, metrics in enumerate(told, start=1)
    ]
    assert file.getvalue().splitlines() == [*expected, "ended: 3 epochs are done | 0:09"]


def test_the_line_of_an_epoch_has_nothing_that_was_measured_in_another() -> None:
    """A split that was not due is not shown with what it came to the last time that it was."""
    bar, file = piped()
    loaders = {"train": loader(), "test": Split(loader(1), every(2, "epochs"))}
    training_of(bar).handle("fit", Learner(), loaders, epochs=4)
    lines = file.getvalue().splitlines()
    assert ["test/loss" in line for line in lines] == [False, True, False, True, False]
    assert all("train/loss" in line for line in lines[:4])


@pytest.mark.parametrize(("budget", "left"), [({"steps": 12}, 9), ({"samples": 48}, 9), ({"seconds": 12}, 9)])
def test_the_time_left_is_that_of_what_is_used_up_first(budget: dict[str, Any], left: int) -> None:
    """Whatever the run is budgeted by."""
    clock = Clock()
    bar, file = piped()
    training_of(bar, clock=clock).handle("fit", Slow(clock), {"train": loader()}, epochs=1000, **budget)
    assert f"epoch 1/1000 | 3 batches | 1.0 batches/s | 0:03, 0:{left:02} left" in file.getvalue()


def test_a_run_that_goes_on_counts_from_where_it_is() -> None:
    """The epochs are those of the run; the pace and the time left are those of this process."""
    clock = Clock()
    learner = Slow(clock)
    training_of(clock=clock).handle("fit", learner, {"train": loader()}, epochs=8)
    clock.now += 1000
    bar, file = piped()
    training_of(bar, clock=clock).handle("fit", learner, {"train": loader()}, epochs=10)
    assert file.getvalue().startswith("epoch 9/10 | 3 batches | 1.0 batches/s | 0:27, 0:03 left")


def test_a_line_is_written_when_there_was_none_for_a_while() -> None:
    """In an epoch that takes long, that is; not beside the lines of short ones."""
    clock, file = Clock(), io.StringIO()
    lines = Lines(file, 30, clock=clock)
    for now in (10, 20, 30, 40, 59):
        clock.now = now
        lines.look(View(elapsed=now))
    lines.mark(View(elapsed=59))
    for now in (61, 88, 89):
        clock.now = now
        lines.look(View(elapsed=now))
    assert [line.split(" | ")[1] for line in file.getvalue().splitlines()] == ["0:30", "0:59", "1:29"]


class Window(io.StringIO):
    """A file in which somebody waits for a text to come."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.came = threading.Event()

    def write(self, text: str) -> int:
        if self.text in text:
            self.came.set()
        return super().write(text)


class Patient(Learner):
    """A learner that does not go on before its second batch was seen to be under way."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.window = window

    def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if self.calls == ["fit"]:
            assert self.window.came.wait(200)
        return super().fit(inputs, targets)

    def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if self.calls[-2:] == ["fit", "evaluate"]:
            self.window.came.clear()
            self.window.text = "validation 1/2"
            assert self.window.came.wait(200)
        return super().evaluate(inputs, targets)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_batches_are_seen_while_they_are_under_way(is_terminal: bool) -> None:  # noqa: FBT001
    """Nobody tells of them, of whichever split: they are looked for."""
    window = Window("train 1/3")
    console = Console(file=window, force_terminal=is_terminal, width=110)
    loaders = {"train": loader(), "validation": loader(2)}
    training_of(ProgressBar(console, seconds=0.001)).handle("fit", Patient(window), loaders, epochs=1)
    assert window.came.is_set()
    assert watchers() == []


def test_in_a_terminal_there_is_one_bar_and_what_is_printed_stands_above() -> None:
    """Everything that is known of the run; standard output is itself again in the end."""
    console, before = terminal(), (sys.stdout, sys.stderr)
    screen = screen_of(console)
    assert isinstance(screen, Terminal)
    screen.look(VIEW)
    print("hello")  # noqa: T201 - that is the test
    screen.end(VIEW, "ended: 10 epochs are done")
    assert (sys.stdout, sys.stderr) == before
    text = drawn(console)
    for part in ("epoch 3/10", "━", "train 120/600", "1,203.4 batches/s", "0:12, 1:03 left", "a/b 0.25", "hello"):
        assert part in text
    assert text.rindex("epoch 3/10") < text.rindex("ended: 10 epochs are done")
    assert text.count("\x1b[?25h") >= text.count("\x1b[?25l") > 0  # the cursor is there, also while it is drawn
    assert text.index("\x1b[?25h") < text.index("epoch")


def test_names_are_shown_as_they_are() -> None:
    """What looks like the markup of a console, or of a page, is none."""
    console, display = terminal(), Display()
    view = View(split="[red]odd", batch=1, metrics={"[b]<i>/x": 1.0})
    for screen in (Terminal(console), Notebook(display)):
        screen.end(view, "[u]over<u>")
    for part in ("[red]odd 1", "[b]<i>/x 1", "[u]over<u>"):
        assert part in drawn(console)
        assert html.escape(part) in display.shown[0]


class Display:
    """What a notebook shows: outputs, of which each is shown anew in its place."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    HTML = staticmethod(str)

    def display(self, page: str, *, display_id: bool) -> Any:
        assert display_id
        self.shown.append(page)
        return SimpleNamespace(update=self.update)

    def update(self, page: str) -> None:
        self.shown[-1] = page


def test_in_a_notebook_it_has_an_output_of_its_own() -> None:
    """One, which is drawn anew in its place."""
    display = Display()
    screen = Notebook(display)
    screen.look(View())
    screen.mark(VIEW)
    screen.end(VIEW, "ended: 10 epochs are done")
    (page,) = display.shown
    for part in ("<pre", "epoch 3/10", "train 120/600", "a/b 0.25", "ended: 10 epochs are done", "color: #"):
        assert part in page


def test_what_a_console_is_decides_how_it_is_drawn() -> None:
    """A terminal that cannot move its cursor is written to in lines, as a pipe is."""
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(screen_of(dumb), Lines)
    assert isinstance(screen_of(Console(file=io.StringIO())), Lines)


def test_a_line_is_written_in_whatever_the_file_can_hold() -> None:
    """A name that it cannot is no reason for a run to fail."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    Lines(file).mark(View(epoch=1, metrics={"train/größe": 1.0}))
    assert raw.getvalue() == b"epoch 1 | 0:00 | train/gr\\xf6\\xdfe 1\n"


class Broken(io.StringIO):
    """A terminal that was closed, or a pipe whose reader has left."""

    def __init__(self, error: OSError, text: str) -> None:
        super().__init__()
        self.error = error
        self.text = text  # with which it breaks
        self.is_broken = threading.Event()

    def write(self, text: str) -> int:
        if self.text in text or self.is_broken.is_set():
            self.is_broken.set()
            raise self.error
        return super().write(text)


class Waiting(Learner):
    """A learner whose second epoch begins when a screen has broken."""

    def __init__(self, screen: Broken) -> None:
        super().__init__()
        self.screen = screen

    def onepoch(self) -> None:
        assert self.screen.is_broken.wait(200)


class Leaving(Console):
    """A console that leaves when its reader has left, as rich's own does, but leaves the process's output alone."""

    def on_broken_pipe(self) -> None:
        raise SystemExit(1)


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(5, "Input/output error")])
@pytest.mark.parametrize(("is_terminal", "text"), [(True, "\x1b[?25l"), (True, "epoch"), (False, "epoch")])
def test_a_screen_that_cannot_be_drawn_on_fails_no_run(
    caplog: pytest.LogCaptureFixture,
    error: OSError,
    is_terminal: bool,  # noqa: FBT001
    text: str,
) -> None:
    """Whether it breaks at once or later: it is said once, and left alone; standard output is what it was."""
    before = sys.stdout, sys.stderr
    screen = Broken(error, text)
    bar = ProgressBar(Leaving(file=screen, force_terminal=is_terminal), seconds=0.001 if is_terminal else None)
    learner = Waiting(screen) if is_terminal else Learner()
    told = training_of(bar).handle("fit", learner, {"train": loader()}, epochs=3)
    assert len(told) == 3
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1
    assert (sys.stdout, sys.stderr) == before
    assert watchers() == []


def test_however_a_run_ends_the_screen_is_given_back() -> None:
    """A failure, a signal, a loop that is left, a listener that is closed: each is said, and nobody looks on."""
    bar, file = piped()
    with pytest.raises(TypeError):
        training_of(bar).handle("fit", Learner(), {"train": [object()]}, epochs=1)
    bar.consume(ProcessStarted(Learner(), Progress()))
    bar.consume(Interrupted(Learner(), Progress(), signal.SIGTERM))
    producer = Producer()
    producer.register(bar)
    for epoch in epochs(Learner(), producer, epochs=3):
        for _ in batches(epoch, loader()):
            break
        break
    bar.consume(ProcessStarted(Learner(), Progress()))
    bar.close()
    bar.close()
    words = [line.split(" | ")[0].removesuffix(" in the middle of a batch") for line in file.getvalue().splitlines()]
    assert words == [
        "failed: InvalidBatch",
        f"interrupted: {signal.strsignal(signal.SIGTERM)}",
        "ended: the loop was left",
        "left",
    ]
    assert watchers() == []


def test_a_run_that_is_dropped_without_a_word_is_looked_at_no_longer() -> None:
    """Its thread finds out by itself."""
    bar, _ = piped(seconds=0.001)
    bar.consume(ProcessStarted(Learner(), Progress()))
    assert watchers() == []


def test_the_child_of_a_fork_prints_by_itself() -> None:
    """A worker that prints would wait for ever for a console that was locked when it was born."""
    before = sys.stdout
    screen = Terminal(terminal())
    assert sys.stdout is not before
    screen.after_fork()
    assert sys.stdout is before
    screen.end(VIEW, "over")
    assert sys.stdout is before


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), True, "1"])
def test_an_interval_that_has_no_meaning_is_refused(seconds: float) -> None:
    """Where it is written."""
    with pytest.raises(InvalidOption, match="never be drawn"):
        ProgressBar(seconds=seconds)


def test_what_is_no_console_is_refused() -> None:
    """Where it is written, and not in the log of a run."""
    with pytest.raises(InvalidOption, match="no console"):
        ProgressBar("stderr")  # type: ignore[arg-type]


def test_importing_one_without_its_package_says_which_extra_to_install() -> None:
    """And the others are there without any."""
    script = """
import sys
sys.modules.update(dict.fromkeys(["rich", "matplotlib", "pandas"]))
import torchsystem.adapters.alert, torchsystem.adapters.history, torchsystem.adapters.mail
for use in ("import torchsystem.adapters.plots", "import torchsystem.adapters.progress",
            "torchsystem.adapters.history.History().frame()"):
    try:
        exec(use)
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)  # noqa: S603
    assert done.stdout.splitlines() == [
        f"{package} is not installed. Write: pip install 'torchsystem[{extra}]'"
        for package, extra in [("matplotlib", "plots"), ("rich", "progress"), ("pandas", "history")]
    ]
