"""Signals: noted when they come, acted on within one batch, and given back to whom they belonged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tests.training.fakes import names, written
from tests.training.resuming import Net, Points, data_loaders, equal
from torchsystem.adapters.checkpoints import Checkpoints
from torchsystem.errors import InvalidSignal
from torchsystem.services import Consumer
from torchsystem.storage import Repository
from torchsystem.training import Training, batches, device, epochs, interrupts, seed
from torchsystem.training.events import BatchEnded, Interrupted, TrainingEnded
from torchsystem.triggers import every

NUMBERS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Fail a test that does not leave the handlers of all signals as they were."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    assert {number: signal.getsignal(number) for number in NUMBERS} == before


def send(number: int) -> None:
    """Send a signal to this very process; Python has run its handler when this returns."""
    os.kill(os.getpid(), number)


class Signalled(Net):
    """A network in whose so-manieth batch a signal comes: in `fit`, in `evaluate` or in `predict`."""

    def __init__(self, number: int, *, fit: int = 0, evaluate: int = 0, predict: int = 0) -> None:
        super().__init__()
        self.number = number
        self.at = {"fit": fit, "evaluate": evaluate, "predict": predict}
        self.counts = dict.fromkeys(self.at, 0)

    def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        self._count("fit")
        return super().fit(inputs, targets)

    def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        self._count("evaluate")
        return super().evaluate(inputs, targets)

    def predict(self, inputs: Tensor) -> Tensor:
        self._count("predict")
        return self.forward(inputs)

    def _count(self, what: str) -> None:
        self.counts[what] += 1
        if self.counts[what] == self.at[what]:
            send(self.number)


def trainer(*signals: int) -> Training:
    """Make a training on the CPU."""
    training = Training(signals=signals) if signals else Training()
    training.override(device, lambda: "cpu")
    return training


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("where", [{"fit": 1}, {"fit": 6}, {"fit": 9}, {"evaluate": 2}, {"evaluate": 3}])
def test_a_signal_is_acted_on_after_the_batch(number: int, where: dict[str, int]) -> None:
    """In training and in validation: that batch is finished, `Interrupted` is told, and no other batch begins."""
    training = trainer(*NUMBERS)
    log = written(training.producer)
    model = Signalled(number, **where)
    with pytest.raises(SystemExit) as caught:
        training.handle("fit", model, data_loaders()(), epochs=2)
    assert caught.value.code == 128 + number
    ((what, count),) = where.items()
    assert model.counts[what] == count
    assert names(log)[-1] == "Interrupted"
    assert names(log).count("Interrupted") == 1
    assert "TrainingFailed" not in names(log)
    assert log[-1].signal == number
    assert log[-1].progress.batch == model.counts["fit"]
    assert names(log).count("BatchEnded") == model.counts["fit"]


@pytest.mark.parametrize("action", ["train", "validate", "predict"])
def test_a_pass_over_one_split_is_left_after_the_batch(action: str) -> None:
    """Each handler of a training looks at signals."""
    training = trainer()
    log = written(training.producer)
    kind = {"train": "fit", "validate": "evaluate", "predict": "predict"}[action]
    model = Signalled(signal.SIGTERM, **{kind: 2})
    with pytest.raises(SystemExit) as caught:
        training.handle(action, model, data_loaders()()["train"])
    assert caught.value.code == 143
    assert model.counts[kind] == 2
    assert names(log)[-1] == "Interrupted"


def test_a_prediction_that_a_listener_asked_for_is_left_after_the_batch() -> None:
    """The run around it is left too: it has said so, and does not call it a failure."""
    training = trainer()
    consumer = Consumer("predicting")

    @consumer.handler
    def predict(event: BatchEnded) -> None:
        training.predict(event.aggregate, data_loaders()()["validation"])

    training.producer.register(consumer)
    log = written(training.producer)
    model = Signalled(signal.SIGTERM, predict=2)
    with pytest.raises(SystemExit) as caught:
        training.handle("fit", model, data_loaders()(), epochs=1)
    assert caught.value.code == 143
    assert model.counts == {"fit": 1, "evaluate": 0, "predict": 2}
    assert [name for name in names(log)[3:] if name not in {"GradientsUpdated", "OptimizerStepped"}] == [
        "BatchStarted",
        "BatchPredicted",
        "BatchPredicted",
        "Interrupted",
    ]


def test_a_signal_in_a_listener_is_acted_on_before_the_next_batch() -> None:
    """Whichever of them it comes in."""
    training = trainer()
    consumer = Consumer("slow")

    @consumer.handler
    def take_long(event: BatchEnded) -> None:
        send(signal.SIGTERM)

    training.producer.register(consumer)
    model = Signalled(signal.SIGTERM)
    with pytest.raises(SystemExit):
        training.handle("fit", model, data_loaders()(), epochs=1)
    assert model.counts["fit"] == 1


def test_previous_handlers_are_called_and_are_back() -> None:
    """Somebody else may want to know, too; Python's own, which would raise at once, is not called."""
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    mine = signal.getsignal(signal.SIGUSR1)
    try:
        for number in (signal.SIGUSR1, signal.SIGINT):
            with pytest.raises(SystemExit), interrupts(signal.SIGUSR1, signal.SIGINT):
                send(number)
            assert signal.getsignal(signal.SIGUSR1) is mine
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_handlers_are_back_whatever_leaves_the_block(error: type[BaseException]) -> None:
    """The exception goes on as it is."""
    with pytest.raises(error), interrupts():
        raise error
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_was_ignored_is_ignored_again() -> None:
    """A handler may be none: under `nohup`, say."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit), interrupts(signal.SIGUSR1):
            send(signal.SIGUSR1)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_block_in_a_block_adds_its_signals() -> None:
    """What the outer one asked for stays its own; the inner one, such as that of `fit`, does not turn it off."""
    with interrupts(signal.SIGUSR1):
        noted = signal.getsignal(signal.SIGUSR1)
        with interrupts(signal.SIGTERM, signal.SIGUSR1):
            assert signal.getsignal(signal.SIGUSR1) == signal.getsignal(signal.SIGTERM) == noted
        assert signal.getsignal(signal.SIGUSR1) == noted
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_of_an_inner_block_is_acted_on_by_the_outer_one() -> None:
    """It is not lost where the inner one ends without a safe point."""
    with pytest.raises(SystemExit) as caught, interrupts(signal.SIGUSR1):
        with interrupts(signal.SIGTERM):
            send(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert caught.value.code == 143


def test_what_no_safe_point_saw_is_acted_on_at_the_end_of_the_block() -> None:
    """No signal is lost: what stands behind the block is not reached."""
    done = []
    with pytest.raises(SystemExit) as caught:
        with interrupts():
            send(signal.SIGTERM)
            done.append("the block")
        done.append("what follows")
    assert caught.value.code == 143
    assert done == ["the block"]


def test_other_threads_leave_signals_alone() -> None:
    """Python handles them in the main one; a run elsewhere is not interrupted, and the main thread is."""
    found: list[Any] = []

    def work() -> None:
        with interrupts():
            found.append(signal.getsignal(signal.SIGTERM))
        training = trainer()
        training.handle("fit", model, data_loaders()(), epochs=1)

    model = Net()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]
    with pytest.raises(SystemExit), interrupts():
        send(signal.SIGTERM)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert model.epoch == 1  # the same line again: nothing was left to do


def test_a_users_own_loop_is_left_after_the_batch() -> None:
    """In a block of one's own, `batches` has the safe points."""
    model, done = Net(), []
    with pytest.raises(SystemExit) as caught, interrupts(signal.SIGUSR1):
        for epoch in epochs(model, epochs=2):
            for inputs, targets in batches(epoch, data_loaders()()["train"]):
                model.fit(inputs, targets)
                done.append(len(inputs))
                if len(done) == 2:
                    send(signal.SIGUSR1)
    assert caught.value.code == 128 + signal.SIGUSR1
    assert len(done) == 2


@pytest.mark.parametrize("wrong", [0, 4711, "SIGTERM", signal.SIGKILL, signal.SIGSTOP, None])
def test_what_is_no_signal_or_cannot_be_handled_is_refused(wrong: Any) -> None:
    """When the training is made, not when it runs."""
    with pytest.raises(InvalidSignal):
        Training(signals=(wrong,))
    with pytest.raises(InvalidSignal), interrupts(wrong):
        pass  # pragma: no cover


def in_a_child(work: Callable[[], object]) -> int:
    """Run something in a forked process; return how it ended, as `subprocess` does."""
    child = os.fork()
    if child == 0:
        code = 0
        try:
            work()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        except BaseException:  # noqa: BLE001 - the parent has to see that there was one
            code = 99
        os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def endless() -> NoReturn:
    """Reach no safe point."""
    while True:
        send(signal.SIGTERM)


def test_a_second_signal_leaves_at_once() -> None:
    """Whoever asks twice does not want to wait: no clean-up, no handler, no exception."""

    def work() -> None:
        with interrupts():
            try:
                endless()
            finally:
                os._exit(98)

    assert in_a_child(work) == 143


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 7)])
def test_forked_processes_are_as_if_nobody_watched(number: int, expected: int) -> None:
    """A worker is terminated when asked to; what a terminal sends to all is for the one that watches."""

    def work() -> NoReturn:
        send(number)
        raise SystemExit(7)

    with interrupts():
        assert in_a_child(work) == expected


def test_a_forked_process_may_watch_for_itself() -> None:
    """A run in a child of a run acts on a signal at its own safe points; who was there before hears of it once."""
    heard: list[int] = []

    def work() -> None:
        with interrupts():
            send(signal.SIGTERM)
            if heard != [signal.SIGTERM]:
                os._exit(97)

    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with interrupts():
            assert in_a_child(work) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == []


def start(folder: Path, number: int = 0, **where: int) -> tuple[Any, Any]:
    """Run the lines of a program: build, restore, fit."""
    seed(1)
    model = Signalled(number, **where)
    training = trainer(*NUMBERS)
    with Repository(folder) as repository:
        training.producer.register(Checkpoints(repository, every=every(100, "batches")))
        repository.restore(model)
        history = training.handle("fit", model, data_loaders(noisy=True)(), epochs=3)
        return model.snapshot(), history


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("where", [{"fit": 1}, {"fit": 8}, {"fit": 12}, {"evaluate": 2}, {"evaluate": 6}])
def test_a_run_that_was_interrupted_goes_on_exactly(tmp_path: Path, number: int, where: dict[str, int]) -> None:
    """There is a checkpoint of the very batch, in training and validation: the same lines again end bit-identical."""
    whole, history = start(tmp_path / "whole")
    with pytest.raises(SystemExit):
        start(tmp_path / "cut", number, **where)
    with Repository(tmp_path / "cut") as repository:
        assert len(repository.checkpoints(Signalled(0))) == 1
    again, continued = start(tmp_path / "cut")
    assert equal(whole, again)
    assert history == continued


def test_a_run_that_was_interrupted_in_a_listeners_prediction_goes_on_exactly(tmp_path: Path) -> None:
    """No checkpoint is made while an event of the run is being told: it goes on from the one before."""
    whole, _ = start(tmp_path / "whole")
    seed(1)
    model = Signalled(signal.SIGTERM, predict=16)
    training = trainer()
    consumer = Consumer("predicting")

    @consumer.handler
    def predict(event: BatchEnded) -> None:
        training.predict(event.aggregate, data_loaders(noisy=True)()["validation"])

    with Repository(tmp_path / "cut") as repository:
        training.producer.register(Checkpoints(repository, every=every(2, "batches")), consumer)
        with pytest.raises(SystemExit):
            training.handle("fit", model, data_loaders(noisy=True)(), epochs=3)
        assert repository.checkpoints(model)[-1].progress.batch == 4
    again, _ = start(tmp_path / "cut")
    assert equal(whole, again)


def test_interrupted_comes_before_the_checkpoint_and_is_the_last_word(tmp_path: Path) -> None:
    """A listener may still put something into what is kept; after it there is no `TrainingEnded`."""
    training = trainer()
    order: list[str] = []
    consumer = Consumer("last words")

    @consumer.handler
    def hear(event: Interrupted | TrainingEnded) -> None:
        order.append(f"{type(event).__name__} {len(repository.checkpoints(event.aggregate))}")

    with Repository(tmp_path) as repository:
        training.producer.register(Checkpoints(repository), consumer)
        with pytest.raises(SystemExit):
            training.handle("fit", Signalled(signal.SIGTERM, fit=1), data_loaders()(), epochs=1)
    assert order == ["Interrupted 0"]


PROGRAM = """
import os, signal, sys, time
import torch
from torch.utils.data import DataLoader, Dataset
sys.path.insert(0, {root!r})
from tests.training.resuming import Net
from torchsystem.training import Training, device


class Slow(Dataset):
    def __len__(self):
        return 400

    def __getitem__(self, index):
        return torch.ones(3), torch.tensor(0)


class Told(Net):
    def fit(self, inputs, targets):
        if self.optimization.steps == 2:
            os.killpg(os.getpgid(0), signal.SIGINT)
        return super().fit(inputs, targets)


training = Training()
training.override(device, lambda: "cpu")
training.handle("fit", Told(), {{"train": DataLoader(Slow(), 4, num_workers=2)}}, epochs=1)
"""


def test_workers_survive_what_a_terminal_sends_to_all(tmp_path: Path) -> None:
    """Ctrl+C goes to the whole group: the workers leave it to the main process, which goes to a safe point.

    A worker that died of it would fail the run with another error, and say so in the middle of things.
    """
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(root=str(Path(__file__).parents[2])))
    ended = subprocess.run(  # noqa: S603 - it is our own
        [sys.executable, str(program)], capture_output=True, text=True, start_new_session=True, timeout=200, check=False
    )
    assert ended.returncode == 130, ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_threads_of_a_loader_do_not_hide_a_signal() -> None:
    """With workers in use, a signal to the main process alone is acted on within a batch, too."""
    training = trainer()
    model = Signalled(signal.SIGTERM, fit=2)
    with pytest.raises(SystemExit):
        training.handle("fit", model, {"train": DataLoader(Points(), 4, num_workers=1)}, epochs=1)
    assert model.counts["fit"] == 2
    assert torch.is_grad_enabled()
