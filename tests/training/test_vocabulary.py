"""The vocabulary: each event at its place, with its facts, whatever way a run ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from tests.training.fakes import Clock, Learner, loader, names, written
from torchsystem.domain.continuation import attach
from torchsystem.errors import NonFiniteLoss
from torchsystem.progress import Progress
from torchsystem.services import Consumer, Depends, Producer
from torchsystem.training import (
    EarlyStopping,
    Optimization,
    Supervised,
    Training,
    accuracy,
    batches,
    device,
    epochs,
    metrics,
)
from torchsystem.training import events as vocabulary
from torchsystem.training.events import (
    BatchEnded,
    BatchPredicted,
    BatchStarted,
    EpochEnded,
    EpochStarted,
    GradientsUpdated,
    Interrupted,
    Lifecycle,
    OptimizerStepped,
    Predicted,
    ProcessStarted,
    Trained,
    TrainingEnded,
    TrainingFailed,
    TrainingStarted,
    Validated,
)
from torchsystem.training.run import Run, under_way

BEGIN = ["ProcessStarted", "TrainingStarted"]
BATCH = ["BatchStarted", "GradientsUpdated", "OptimizerStepped", "BatchEnded"]
BROKEN = ["BatchStarted", "GradientsUpdated", "OptimizerStepped"]
EPOCH = ["EpochStarted", *BATCH * 3, "Trained", "Validated", "EpochEnded"]


@pytest.fixture
def training() -> Training:
    """Return a training on the CPU, with a clock that stands still."""
    training = Training(clock=Clock())
    training.override(device, lambda: "cpu")
    training.override(metrics, lambda: {"accuracy": accuracy})
    return training


class Model(Supervised):
    """A model that lets something happen in some batch, counted from 1."""

    def __init__(self, **options: Any) -> None:
        torch.manual_seed(0)
        network = nn.Linear(2, 2)
        optimization = Optimization(optim.SGD(network.parameters(), lr=0.1), **options)
        super().__init__(network, nn.CrossEntropyLoss(), optimization)
        self.happens: dict[tuple[str, int], Callable[[], object]] = {}
        self.counts = {"fit": 0, "evaluate": 0}

    def fit(self, inputs: Any, targets: Tensor) -> tuple[Any, Tensor]:
        """Learn, and let it happen."""
        result = super().fit(inputs, targets)
        self._happen("fit")
        return result

    def evaluate(self, inputs: Any, targets: Tensor) -> tuple[Any, Tensor]:
        """Predict, and let it happen."""
        self._happen("evaluate")
        return super().evaluate(inputs, targets)

    def _happen(self, where: str) -> None:
        self.counts[where] += 1
        self.happens.get((where, self.counts[where]), lambda: None)()


def failing(error: BaseException) -> Callable[[], object]:
    """Return what raises an error."""

    def fail() -> None:
        raise error

    return fail


def interrupted() -> None:
    """Send the signal that a scheduler sends."""
    os.kill(os.getpid(), signal.SIGTERM)


def raising(moment: type, error: BaseException, *, number: int = 1) -> Consumer:
    """Make a listener that fails at the so-manieth event of a kind."""
    consumer, left = Consumer("raising"), [number]

    def fail(event: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise error

    fail.__annotations__["event"] = moment
    consumer.handler(fail)
    return consumer


class Way:
    """A way for a run to go: what happens, what it is budgeted for, what raises, and what is told."""

    def __init__(  # noqa: PLR0913 - each is a column of a table
        self,
        told: Iterable[str],
        *,
        budget: dict[str, Any] | None = None,
        happens: dict[tuple[str, int], Callable[[], object]] | None = None,
        listeners: Callable[[], list[Consumer]] = list,
        raises: type[BaseException] | None = None,
        reason: str | None = None,
    ) -> None:
        self.told = list(told)
        self.budget = {"epochs": 2} if budget is None else budget
        self.happens = {} if happens is None else happens
        self.listeners = listeners
        self.raises = raises
        self.reason = reason


WAYS = {
    "completion": Way([*BEGIN, *EPOCH * 2, "TrainingEnded"], reason="2 epochs are done"),
    "early stop": Way(
        [*BEGIN, *EPOCH * 3, "TrainingEnded"],
        budget={"epochs": 9},
        listeners=lambda: [EarlyStopping("train/loss", "max", patience=2)],
        reason="train/loss did not get better than",
    ),
    "a budget of epochs that was spent": Way(
        ["ProcessStarted", "TrainingStarted", "TrainingEnded"], budget={"epochs": 0}, reason="0 epochs are done"
    ),
    "steps, in the middle of an epoch": Way(
        [*BEGIN, *EPOCH, "EpochStarted", *BATCH * 2, "TrainingEnded"], budget={"steps": 5}, reason="5 steps are done"
    ),
    "steps, at the end of an epoch": Way(
        [*BEGIN, *EPOCH, "TrainingEnded"], budget={"steps": 3}, reason="3 steps are done"
    ),
    "samples": Way(
        [*BEGIN, "EpochStarted", *BATCH * 2, "TrainingEnded"], budget={"samples": 8}, reason="8 samples are done"
    ),
    "seconds": Way(
        [*BEGIN, "EpochStarted", *BATCH, "TrainingEnded"],
        budget={"seconds": 5},
        happens={("fit", 1): lambda: None},  # the clock is moved by the test
        reason="5 seconds are over",
    ),
    "a signal in training": Way(
        [*BEGIN, "EpochStarted", *BATCH * 2, "Interrupted"], happens={("fit", 2): interrupted}, raises=SystemExit
    ),
    "a signal in the last batch": Way(
        [*BEGIN, "EpochStarted", *BATCH * 3, "Interrupted"], happens={("fit", 3): interrupted}, raises=SystemExit
    ),
    "a signal in validation": Way(
        [*BEGIN, *EPOCH, *EPOCH[:-2], "Interrupted"], happens={("evaluate", 4): interrupted}, raises=SystemExit
    ),
    "a failure in fit": Way(
        [*BEGIN, "EpochStarted", *BATCH, *BROKEN, "TrainingFailed"],
        happens={("fit", 2): failing(ValueError("a bad batch"))},
        raises=ValueError,
    ),
    "a failure in evaluate": Way(
        [*BEGIN, *EPOCH[:-2], "TrainingFailed"],
        happens={("evaluate", 2): failing(LookupError("no such label"))},
        raises=LookupError,
    ),
    "a keyboard interrupt of nobody's": Way(
        [*BEGIN, "EpochStarted", *BROKEN, "TrainingFailed"],
        happens={("fit", 1): failing(KeyboardInterrupt())},
        raises=KeyboardInterrupt,
    ),
    "an exit that fit asks for": Way(
        [*BEGIN, "EpochStarted", *BROKEN, "TrainingFailed"],
        happens={("fit", 1): failing(SystemExit(3))},
        raises=SystemExit,
    ),
    "a failure in a listener": Way(
        [*BEGIN, *EPOCH, "TrainingFailed"],
        listeners=lambda: [raising(EpochEnded, OSError("disk full"))],
        raises=ExceptionGroup,
    ),
    "a failure in a listener of the beginning": Way(
        ["ProcessStarted", "TrainingFailed"],
        listeners=lambda: [raising(ProcessStarted, OSError("no network"))],
        raises=ExceptionGroup,
    ),
    "a failure in a listener of gradients": Way(
        [*BEGIN, "EpochStarted", "BatchStarted", "GradientsUpdated", "TrainingFailed"],
        listeners=lambda: [raising(GradientsUpdated, RuntimeError("exploded"))],
        raises=ExceptionGroup,
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_each_way_of_a_run_tells_its_own_events(way: Way) -> None:
    """Exactly these, in this order; the way out is told before it is taken, and once."""
    clock = Clock()
    training = Training(clock=clock)
    training.override(device, lambda: "cpu")
    log = written(training.producer)
    training.producer.register(*way.listeners())
    model = Model()
    model.happens = dict(way.happens)
    if "seconds" in way.budget:
        model.happens = {("fit", 1): lambda: setattr(clock, "now", 5.0)}
    loaders = {"train": loader(), "validation": loader()}
    if way.raises is None:
        training.handle("fit", model, loaders, **way.budget)
        assert log[-1].reason.startswith(way.reason)
    else:
        with pytest.raises(way.raises) as caught:
            training.handle("fit", model, loaders, **way.budget)
        if isinstance(log[-1], TrainingFailed):
            assert log[-1].error is caught.value
        else:
            assert log[-1].signal == signal.SIGTERM
            assert isinstance(caught.value, SystemExit)
            assert caught.value.code == 128 + signal.SIGTERM
    assert names(log) == way.told


def kept_at(model: Model, training: Training, moment: type, number: int) -> dict[str, Any]:
    """Run, and keep both halves of the run at the safe point after some event."""
    kept: dict[str, Any] = {}
    consumer, left = Consumer("keeper"), [number]

    def keep(run: Run) -> None:
        kept["run"], kept["snapshot"] = run.state(), run.aggregate.snapshot()

    def hear(event: Any) -> None:
        left[0] -= 1
        run = under_way(event.aggregate)
        if left[0] == 0 and run is not None:
            run.when_safe(lambda: keep(run))

    hear.__annotations__["event"] = moment
    consumer.handler(hear)
    with training.producer.connected(consumer):
        training.handle("fit", model, {"train": loader(), "validation": loader()}, epochs=2)
    return kept


@pytest.mark.parametrize(
    ("moment", "number", "told"),
    [
        (BatchEnded, 1, [*BATCH * 2, "Trained", "Validated", "EpochEnded", *EPOCH, "TrainingEnded"]),
        (BatchEnded, 3, ["Trained", "Validated", "EpochEnded", *EPOCH, "TrainingEnded"]),
        (EpochEnded, 1, [*EPOCH, "TrainingEnded"]),
        (EpochEnded, 2, ["TrainingEnded"]),
    ],
)
def test_a_run_that_goes_on_tells_what_is_left(training: Training, moment: type, number: int, told: list[str]) -> None:
    """The process starts; the training does not start again, nor does an epoch that was under way."""
    kept = kept_at(Model(), training, moment, number)
    model = Model()
    model.restore(kept["snapshot"])
    attach(model, kept["run"])
    log = written(training.producer)
    training.handle("fit", model, {"train": loader(), "validation": loader()}, epochs=2)
    assert names(log) == ["ProcessStarted", *told]


FACTS: dict[type[Lifecycle], Callable[[Any], bool]] = {
    ProcessStarted: lambda event: event.progress.batch == 0,
    TrainingStarted: lambda event: event.progress.batch == 0,
    EpochStarted: lambda event: event.progress.epoch in {0, 1},
    BatchStarted: lambda event: torch.equal(event.batch[0], loader()[event.progress.batch_in_epoch][0]),
    GradientsUpdated: lambda event: (event.optimizer, event.index, event.steps) == ("optimizer", 0, True),
    OptimizerStepped: lambda event: event.optimizer == "optimizer" and event.progress.step >= 1,
    BatchEnded: lambda event: not event.loss.requires_grad and event.predictions.shape == (4, 2) and event.batch,
    Trained: lambda event: sorted(event.metrics) == ["accuracy", "loss"],
    Validated: lambda event: event.split == "validation" and sorted(event.metrics) == ["accuracy", "loss"],
    EpochEnded: lambda event: (
        sorted(event.metrics) == ["train/accuracy", "train/loss", "validation/accuracy", "validation/loss"]
        and event.progress.epoch in {1, 2}
    ),
    BatchPredicted: lambda event: (
        event.predictions.shape == (4, 2)
        and event.targets.shape == (4,)
        and event.dataset == "test"
        and event.metadata is None
    ),
    Predicted: lambda event: event.predictions.shape == (12, 2) and event.dataset == "test" and not event.is_cached,
    Interrupted: lambda event: event.signal == signal.SIGTERM,
    TrainingEnded: lambda event: event.reason == "2 epochs are done",
    TrainingFailed: lambda event: isinstance(event.error, ValueError),
}


@pytest.fixture(scope="module")
def lives() -> list[Any]:
    """Return all events of a run that completes, of one that fails, of one that is interrupted, and of a prediction."""
    training = Training()
    training.override(device, lambda: "cpu")
    training.override(metrics, lambda: {"accuracy": accuracy})
    log = written(training.producer)
    loaders = {"train": loader(), "validation": loader()}
    training.handle("fit", Model(), loaders, epochs=2)
    for error, happens in ((ValueError, failing(ValueError())), (SystemExit, interrupted)):
        model = Model()
        model.happens = {("fit", 1): happens}
        with pytest.raises(error):
            training.handle("fit", model, loaders, epochs=2)
    training.handle("predict", Model(), loader(), split="test")
    return log


@pytest.mark.parametrize("kind", FACTS, ids=lambda kind: kind.__name__)
def test_each_event_carries_its_facts(kind: type[Lifecycle], lives: list[Any]) -> None:
    """The aggregate, the progress, and what the table in the docs says."""
    told = [event for event in lives if type(event) is kind]
    assert told
    for event in told:
        assert isinstance(event.aggregate, Model)
        assert type(event.progress) is Progress
        assert FACTS[kind](event)


def test_what_a_batch_came_to_keeps_no_graph(training: Training) -> None:
    """Predictions and loss are detached, whatever they are made of: a listener that keeps them keeps no activations."""

    class Several(Model):
        def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Any, Tensor]:
            predictions, loss = super().fit(inputs, targets)
            scores = self.nn(inputs)
            return {"scores": scores, "parts": (predictions, [scores])}, loss

    log = written(training.producer)
    training.override(metrics, dict)
    training.handle("fit", Several(), {"train": loader()}, epochs=1)
    ended = [event for event in log if isinstance(event, BatchEnded)]
    assert len(ended) == 3
    for event in ended:
        assert not event.predictions["scores"].requires_grad
        assert not event.predictions["parts"][1][0].requires_grad
        assert not event.loss.requires_grad


def test_the_table_of_the_facts_is_complete() -> None:
    """Every event of the vocabulary has a row, here and in the docs, and the row there names its fields."""
    kinds = {
        kind
        for kind in vars(vocabulary).values()
        if isinstance(kind, type) and issubclass(kind, Lifecycle) and kind is not Lifecycle
    }
    assert kinds == set(FACTS)
    lines = (Path(__file__).parents[2] / "docs/training.md").read_text("utf-8").splitlines()
    rows = {line.split("`")[1]: line for line in lines if line.startswith("| `")}
    for kind in kinds:
        own = [field.name for field in fields(kind)][2:]
        assert all(f"`{name}`" in rows[kind.__name__] for name in own), kind


def test_the_events_of_an_accumulation_come_in_their_order(training: Training) -> None:
    """Each backward pass is told with its place in its group; a step follows where it is said, before `BatchEnded`."""
    log = written(training.producer)
    model = Model(accumulate=2, clip_norm=1.0)
    training.handle("fit", model, {"train": loader(5)}, epochs=1)
    only, step = ["BatchStarted", "GradientsUpdated", "BatchEnded"], BATCH
    assert names(log)[3:-3] == [*only, *step, *only, *step, *step]  # the last group has one batch
    gradients = [(event.index, event.steps) for event in log if isinstance(event, GradientsUpdated)]
    assert gradients == [(0, False), (1, True), (0, False), (1, True), (0, True)]
    steps = [event.progress.step for event in log if isinstance(event, OptimizerStepped)]
    assert steps == [1, 2, 3]


def test_the_last_group_of_a_loader_of_unknown_length_is_stepped_on_at_its_end(training: Training) -> None:
    """Nobody knew that it was the last: its step follows the last batch, and precedes what is told of the split."""

    class Unknown:
        def __iter__(self) -> Iterator[Any]:
            yield from loader(3)

    log = written(training.producer)
    training.handle("fit", Model(accumulate=2), {"train": Unknown()}, epochs=1)
    assert names(log)[-5:] == ["BatchEnded", "OptimizerStepped", "Trained", "EpochEnded", "TrainingEnded"]


def test_what_listeners_have_opened_is_closed_when_a_run_fails() -> None:
    """After `TrainingFailed`, of which they still hear; then the exception goes on."""
    told: list[str] = []

    def writer() -> Iterator[list[str]]:
        told.append("opened")
        yield told
        told.append("closed")

    consumer = Consumer("writing")

    @consumer.handler
    def write(event: BatchStarted | TrainingFailed, to: list[str] = Depends(writer, scope="provider")) -> None:
        to.append(type(event).__name__)

    training = Training()
    training.override(device, lambda: "cpu")
    training.producer.register(consumer)
    model = Model()
    model.happens = {("fit", 2): failing(ValueError("a bad batch"))}
    with pytest.raises(ValueError, match="a bad batch"):
        training.handle("fit", model, {"train": loader()}, epochs=1)
    assert told == ["opened", "BatchStarted", "BatchStarted", "TrainingFailed", "closed"]


def test_what_fails_while_closing_hides_nothing(training: Training) -> None:
    """It is noted on the exception that is on its way."""

    class Odd(Consumer):
        def close(self) -> None:
            raise OSError("the disk went away")

    training.producer.register(Odd("odd"))
    model = Model()
    model.happens = {("fit", 1): failing(ValueError("a bad batch"))}
    with pytest.raises(ValueError, match="a bad batch") as caught:
        training.handle("fit", model, {"train": loader()}, epochs=1)
    assert any("the disk went away" in note for note in caught.value.__notes__)


def test_a_loss_that_is_not_finite_is_a_failure(training: Training) -> None:
    """Told as one, before anything is reported of the split."""
    log = written(training.producer)
    model = Model()
    inputs, targets = loader()[0]
    with pytest.raises(NonFiniteLoss):
        training.handle("fit", model, {"train": [(inputs * float("nan"), targets)]}, epochs=1)
    assert names(log) == [*BEGIN, "EpochStarted", *BATCH, "TrainingFailed"]


@pytest.mark.parametrize("first", [True, False])
def test_a_stop_is_undone_by_no_other_listener(training: Training, first: bool) -> None:  # noqa: FBT001
    """Whatever listeners before and after it do: the facts come out, to all of them, and the first reason stays."""
    stopping, busy = raising(Trained, StopIteration("enough")), Consumer("busy")
    heard: list[str] = []

    @busy.handler
    def hear(event: Lifecycle) -> None:
        heard.append(type(event).__name__)
        if isinstance(event, EpochEnded):
            raise StopIteration("too late")

    training.producer.register(*([stopping, busy] if first else [busy, stopping]))
    log = written(training.producer)
    model = Model()
    training.handle("fit", model, {"train": loader(), "validation": loader()}, epochs=9)
    assert heard == names(log) == [*BEGIN, *EPOCH, "TrainingEnded"]
    assert log[-1].reason == "enough"
    assert model.epoch == 1


def test_a_run_that_failed_is_over() -> None:
    """Nobody finds it under way any more, also while somebody still holds the exception."""
    training = Training()
    training.override(device, lambda: "cpu")
    model = Model()
    model.happens = {("fit", 1): failing(ValueError("a bad batch"))}
    with pytest.raises(ValueError, match="a bad batch") as caught:
        training.handle("fit", model, {"train": loader()}, epochs=1)
    assert under_way(model) is None
    assert caught.value.__traceback__ is not None


def test_events_that_nobody_hears_are_not_built(training: Training) -> None:
    """A run with one listener of one kind of event builds those alone: here, nobody asks for a progress."""
    asked: list[int] = []

    class Counted(Clock):
        def __call__(self) -> float:
            asked.append(1)
            return self.now

    counted = Training(clock=Counted())
    counted.override(device, lambda: "cpu")
    counted.handle("fit", Model(), {"train": loader(50)}, epochs=1)
    assert len(asked) < 10


def keeping() -> tuple[Consumer, list[int]]:
    """Make a listener that keeps a run at the first safe point after its end, and the batches it was kept at."""
    saved: list[int] = []
    consumer = Consumer("keeping")

    @consumer.handler
    def keep(event: TrainingEnded) -> None:
        run = under_way(event.aggregate)
        assert run is not None
        run.when_safe(lambda: saved.append(run.tracker.batch))

    return consumer, saved


@pytest.mark.parametrize("moment", [EpochStarted, BatchStarted, BatchEnded, Trained])
@pytest.mark.parametrize("failures", ["stop", "finish"])
def test_ones_own_loop_keeps_nothing_that_only_some_have_heard_of(moment: type, failures: Any) -> None:
    """Where a listener fails, those after it may not know what is done: whoever goes on there would tell them never."""
    consumer, saved = keeping()
    producer = Producer(failures=failures)
    producer.register(raising(moment, ValueError("a listener")), consumer)
    log = written(producer)

    def loop() -> None:
        model = Learner()
        for epoch in epochs(model, producer, epochs=2):
            for inputs, targets in batches(epoch, loader()):
                model.fit(inputs, targets)
            epoch.report("train", {"loss": 0.5})

    with pytest.raises((ValueError, ExceptionGroup)):
        loop()
    assert saved == []
    assert names(log)[-1] in {"TrainingEnded", "TrainingFailed"}


@pytest.mark.parametrize("left_in", ["train", "validation", "between"])
def test_leaving_ones_own_loop_keeps_nothing_of_a_batch_that_may_be_half_done(left_in: str) -> None:
    """Whether the batch was learned from is known to nobody: what waits for a safe point is not done; else it is."""
    consumer, saved = keeping()
    producer = Producer(failures="finish")
    producer.register(consumer)
    log = written(producer)

    def loop() -> None:
        model = Learner()
        for epoch in epochs(model, producer, epochs=3):
            model.phase = "train"
            for inputs, targets in batches(epoch, loader()):
                model.fit(inputs, targets)
                if left_in == "train":
                    return
            if left_in == "between":
                return
            model.phase = "evaluation"
            for _ in batches(epoch, loader(), split="validation"):
                raise ValueError("a bad batch")

    if left_in == "validation":
        with pytest.raises(ValueError, match="a bad batch"):
            loop()
    else:
        loop()
    is_torn = left_in != "between"
    assert log[-1].reason == ("the loop was left in the middle of a batch" if is_torn else "the loop was left")
    assert saved == ([] if is_torn else [3])
