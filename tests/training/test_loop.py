"""The life of a run: which events, in which order, whatever ends it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from tests.training.fakes import Clock, Learner, loader, names, written
from torchsystem import Aggregate
from torchsystem.errors import (
    InvalidBudget,
    InvalidLoss,
    InvalidMetric,
    InvalidOptimization,
    InvalidSplit,
    NonFiniteLoss,
    NotAnAggregate,
    UnkeepableValue,
)
from torchsystem.services import Consumer, Producer
from torchsystem.training import (
    EarlyStopping,
    Optimization,
    Split,
    Training,
    accuracy,
    batches,
    device,
    epochs,
    metrics,
    precision,
)
from torchsystem.training.events import (
    BatchEnded,
    EpochEnded,
    EpochStarted,
    GradientsUpdated,
    Trained,
    TrainingEnded,
    TrainingFailed,
    Validated,
)
from torchsystem.triggers import every


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still."""
    return Clock()


@pytest.fixture
def training(clock: Clock) -> Training:
    """Return a training on the CPU."""
    training = Training(clock=clock)
    training.override(device, lambda: "cpu")
    training.override(metrics, lambda: {"accuracy": accuracy})
    return training


EPOCH = ["EpochStarted", *["BatchStarted", "BatchEnded"] * 3, "Trained", "Validated", "EpochEnded"]


def test_a_run_that_completes_tells_all_of_its_life(training: Training) -> None:
    """Process, training, epochs, batches, splits and the end, in the order that the vocabulary draws."""
    log = written(training.producer)
    history = training.handle("fit", Learner(), {"train": loader(), "validation": loader()}, epochs=2)
    assert names(log) == ["ProcessStarted", "TrainingStarted", *EPOCH, *EPOCH, "TrainingEnded"]
    assert log[-1].reason == "2 epochs are done"
    assert [sorted(row) for row in history] == [
        ["train/accuracy", "train/loss", "validation/accuracy", "validation/loss"]
    ] * 2


def test_progress_tells_how_far_it_is(training: Training) -> None:
    """Batches, samples and epochs, counted in all, and seconds on the given clock."""
    log = written(training.producer)
    training.handle("fit", Learner(), {"train": loader(3, samples=4)}, epochs=2)
    ended = [event.progress for event in log if isinstance(event, BatchEnded)]
    assert [p.batch for p in ended] == [1, 2, 3, 4, 5, 6]
    assert [p.batch_in_epoch for p in ended] == [1, 2, 3, 1, 2, 3]
    assert [p.samples for p in ended] == [4, 8, 12, 16, 20, 24]
    assert [p.step for p in ended] == [1, 2, 3, 4, 5, 6]
    assert [p.epoch for p in ended] == [0, 0, 0, 1, 1, 1]
    assert [e.progress.epoch for e in log if isinstance(e, EpochEnded)] == [1, 2]


def test_the_same_line_again_goes_on(training: Training) -> None:
    """The budget is the total: two calls are one run, and a finished run is left as it is."""
    twice, once = Learner(), Learner()
    splits = {"train": loader(), "validation": loader()}
    training.handle("fit", twice, splits, epochs=2)
    training.handle("fit", twice, splits, epochs=5)
    training.handle("fit", once, splits, epochs=5)
    assert twice.epoch == once.epoch == 5
    assert torch.equal(twice.nn.weight, once.nn.weight)
    before = twice.nn.weight.clone()
    log = written(training.producer)
    assert training.handle("fit", twice, splits, epochs=5) == []
    assert names(log) == ["ProcessStarted", "TrainingEnded"]
    assert torch.equal(twice.nn.weight, before)


@pytest.mark.parametrize(
    ("budget", "reason", "batches_done"),
    [
        ({"steps": 4}, "4 steps are done", 4),
        ({"samples": 20}, "20 samples are done", 5),
        ({"epochs": 9, "steps": 2}, "2 steps are done", 2),
        ({"epochs": 1, "steps": 20}, "1 epochs are done", 3),
    ],
)
def test_whatever_budget_is_used_up_first_ends_the_run(
    training: Training, budget: dict[str, int], reason: str, batches_done: int
) -> None:
    """Between two batches, to the batch; and what was begun and not finished has no facts."""
    log = written(training.producer)
    learner = Learner()
    training.handle("fit", learner, {"train": loader()}, **budget)
    assert log[-1].reason == reason
    assert learner.calls.count("fit") == batches_done
    assert names(log).count("EpochEnded") == batches_done // 3


def test_a_budget_of_seconds_is_counted_over_all_processes(training: Training, clock: Clock) -> None:
    """What went by while nothing ran does not count."""
    learner = Learner()
    consumer = Consumer()

    @consumer.handler
    def pass_time(event: BatchEnded) -> None:
        clock.now += 1

    training.producer.register(consumer)
    training.handle("fit", learner, {"train": loader()}, seconds=2)
    assert learner.calls.count("fit") == 2
    clock.now += 1000
    training.handle("fit", learner, {"train": loader()}, seconds=5)
    assert learner.calls.count("fit") == 5


def test_a_limit_makes_a_smoke_run(training: Training) -> None:
    """So many batches of each split, and no more."""
    learner = Learner()
    training.handle("fit", learner, {"train": loader(5), "validation": loader(5)}, epochs=1, limit=2)
    assert learner.calls == ["fit"] * 2 + ["evaluate"] * 2


def test_splits_have_any_names_and_intervals(training: Training) -> None:
    """A split with a trigger is gone through only when it is due."""
    log = written(training.producer)
    splits = {"train": loader(), "validation": loader(), "test": Split(loader(), every(2, "epochs"))}
    training.handle("fit", Learner(), splits, epochs=4)
    validated = [(event.progress.epoch, event.split) for event in log if isinstance(event, Validated)]
    assert [split for _, split in validated] == ["validation", "validation", "test"] * 2


def test_a_stop_from_inside_takes_effect_after_the_facts(training: Training) -> None:
    """`onepoch` raises it, and the epoch still counts, and is told of."""
    log = written(training.producer)
    learner = Learner(patience=2)
    training.handle("fit", learner, {"train": loader()}, epochs=9)
    assert learner.epoch == 2
    assert names(log)[-2:] == ["EpochEnded", "TrainingEnded"]
    assert log[-1].reason == "the patience is over"


@pytest.mark.parametrize("moment", [EpochStarted, BatchEnded, Trained, Validated, EpochEnded])
@pytest.mark.parametrize("way", ["raise", "enqueue"])
def test_a_stop_asked_for_by_a_listener_is_undone_by_nobody(training: Training, moment: type, way: str) -> None:
    """Raised or enqueued, at whatever moment: the epoch is finished, all hear its facts, then the run ends."""
    log: list[object] = []
    asking, other = Consumer("asking"), Consumer("other")

    def ask(event: object) -> None:
        stop = StopIteration("enough")
        if way == "raise":
            raise stop
        event.aggregate.events.enqueue(stop)  # type: ignore[attr-defined]

    ask.__annotations__["event"] = moment
    asking.handler(ask)
    training.producer.register(asking, other)
    log = written(training.producer)
    learner = Learner()
    training.handle("fit", learner, {"train": loader(), "validation": loader()}, epochs=9)
    assert learner.epoch == 1
    assert names(log)[-2:] == ["EpochEnded", "TrainingEnded"]
    assert log[-1].reason == "enough"  # type: ignore[attr-defined]


def test_a_failure_is_told_before_it_goes_on(training: Training) -> None:
    """`TrainingFailed` comes instead of `TrainingEnded`, and the very exception reaches the caller."""
    log = written(training.producer)
    error = ValueError("bad batch")
    learner = Learner()

    def failing() -> object:
        yield loader()[0]
        raise error

    with pytest.raises(ValueError, match="bad batch") as caught:
        training.handle("fit", learner, {"train": failing()}, epochs=1)
    assert caught.value is error
    assert names(log)[-1] == "TrainingFailed"
    assert log[-1].error is error
    assert "TrainingEnded" not in names(log)
    assert learner.__dict__["progress"].batch == 1


def test_a_listener_that_fails_on_the_failure_hides_nothing(training: Training) -> None:
    """What it raised is noted on the exception that is on its way."""
    consumer = Consumer()

    @consumer.handler
    def fail(event: TrainingFailed) -> None:
        raise LookupError("listener")

    training.producer.register(consumer)
    with pytest.raises(TypeError) as caught:
        training.handle("fit", Learner(), {"train": [3]}, epochs=1)
    assert any("listener" in note for note in caught.value.__notes__)


def test_a_failure_beside_a_stop_is_a_failure(training: Training) -> None:
    """One listener asks for a stop, another fails: the failure is not taken for a reason."""
    stopping, failing = Consumer(), Consumer()

    @stopping.handler
    def stop(event: EpochEnded) -> None:
        raise StopIteration("enough")

    @failing.handler
    def fail(event: EpochEnded) -> None:
        raise LookupError("disk full")

    training.producer.register(stopping, failing)
    with pytest.raises(ExceptionGroup) as caught:
        training.handle("fit", Learner(), {"train": loader()}, epochs=3)
    assert isinstance(caught.value.exceptions[0], LookupError)


def test_a_loss_that_is_not_finite_ends_the_run(training: Training) -> None:
    """At the report of its split, with its batch named."""
    broken = loader()
    broken[1][0][0, 0] = float("nan")
    with pytest.raises(NonFiniteLoss, match="batch 1 "):
        training.handle("fit", Learner(), {"train": broken}, epochs=1)


def test_batches_may_be_mappings_and_objects(training: Training) -> None:
    """`**batch` for a mapping, the object itself for anything else; the aggregate tells the targets."""

    class Sample:
        def __init__(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
            self.inputs, self.targets = inputs, targets

        def __len__(self) -> int:
            return len(self.inputs)

    class ByName(Learner):
        def targets(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return batch["targets"]

    class ByObject(Learner):
        def fit(self, sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
            return super().fit(sample.inputs, sample.targets)

        def targets(self, sample: Sample) -> torch.Tensor:
            return sample.targets

    plain, named, by_object = Learner(), ByName(), ByObject()
    histories = [
        training.handle("fit", plain, {"train": loader()}, epochs=2),
        training.handle("fit", named, {"train": [{"inputs": x, "targets": y} for x, y in loader()]}, epochs=2),
        training.handle("fit", by_object, {"train": [Sample(x, y) for x, y in loader()]}, epochs=2),
    ]
    assert histories[0] == histories[1] == histories[2]


def test_a_users_own_loop_tells_the_same(training: Training) -> None:
    """The generators give one's own loop the events of the ready-made one, and the same weights."""
    ours, own = Learner(), Learner()
    log = written(training.producer)
    training.handle("fit", ours, {"train": loader()}, epochs=2)
    producer = Producer(failures="finish")
    own_log = written(producer)
    for epoch in epochs(own, producer, epochs=2):
        own.phase = "train"
        for inputs, targets in batches(epoch, loader()):
            own.fit(inputs, targets)
        epoch.report("train", {"loss": 0.5})
    assert names(own_log) == names(log)
    assert torch.equal(ours.nn.weight, own.nn.weight)


def test_leaving_ones_own_loop_ends_the_run(training: Training) -> None:
    """A `break` is a reason like any other."""
    producer = Producer()
    log = written(producer)
    run = epochs(Learner(), producer, epochs=9)
    for _ in run:
        break
    run.close()  # type: ignore[attr-defined]
    assert names(log)[-1] == "TrainingEnded"
    assert log[-1].reason == "the loop was left"


class Typed(Aggregate):
    """An aggregate that writes down in which types it computes."""

    def __init__(self, precision: str | None = None) -> None:
        super().__init__()
        self.nn = nn.Linear(2, 2)
        self.optimization = Optimization(optim.SGD(self.nn.parameters(), lr=0.1), precision=precision)  # type: ignore[arg-type]
        self.types: set[torch.dtype] = set()

    def fit(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        predictions, loss = self.evaluate(inputs, targets)
        self.optimization.step(loss)
        return predictions, loss

    def evaluate(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        predictions = self.nn(inputs)
        self.types.add(predictions.dtype)
        return predictions, nn.functional.cross_entropy(predictions, targets)


@pytest.mark.parametrize(
    ("own", "bound", "expected"),
    [
        (None, None, torch.float32),
        ("bf16", None, torch.bfloat16),
        (None, torch.bfloat16, torch.bfloat16),
        (None, "bf16", torch.bfloat16),
        (None, "fp16", torch.float16),
    ],
)
def test_an_aggregate_computes_in_its_precision(
    training: Training, own: str | None, bound: torch.dtype | str | None, expected: torch.dtype
) -> None:
    """That of its optimization, unless the training binds another; what listeners compute is left alone."""
    heard: set[torch.dtype] = set()
    listener = Consumer()

    @listener.handler
    def compute(event: BatchEnded) -> None:
        heard.add((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)

    training.producer.register(listener)
    training.override(precision, lambda: bound)
    typed = Typed(own)
    training.handle("fit", typed, {"train": loader(), "validation": loader()}, epochs=1)
    assert typed.types == {expected}
    assert heard == {torch.float32}


def test_a_precision_that_is_none_is_refused(training: Training) -> None:
    """Before anything is learned, with what it may be."""
    training.override(precision, lambda: "half")
    with pytest.raises(InvalidOptimization, match=r"precision='half': write 'fp32', 'bf16' or 'fp16'"):
        training.handle("fit", Typed(), {"train": loader()}, epochs=1)


def test_the_events_of_an_optimization_reach_the_listeners(training: Training) -> None:
    """Backward passes and real steps, at their place in the life of a batch, and only while somebody listens."""
    log = written(training.producer)
    model = Typed()
    training.handle("fit", model, {"train": loader(2)}, epochs=1)
    batch = ["BatchStarted", "GradientsUpdated", "OptimizerStepped", "BatchEnded"]
    assert names(log) == [
        *["ProcessStarted", "TrainingStarted", "EpochStarted"],
        *batch * 2,
        *["Trained", "EpochEnded", "TrainingEnded"],
    ]
    gradients = [event for event in log if isinstance(event, GradientsUpdated)]
    assert [(event.optimizer, event.index, event.steps) for event in gradients] == [("optimizer", 0, True)] * 2
    assert model.__dict__["progress"].step == 2


def test_an_incomplete_last_group_is_stepped_on(training: Training) -> None:
    """Five batches in groups of two make three steps; a run that is cut in a group makes no step for it."""
    whole, cut = Typed(), Typed()
    for model in (whole, cut):
        model.optimization = Optimization(optim.SGD(model.nn.parameters(), lr=0.1), accumulate=2)
    training.handle("fit", whole, {"train": loader(5)}, epochs=1)
    training.handle("fit", cut, {"train": loader(5)}, samples=12)
    assert whole.optimization.steps == 3
    assert cut.optimization.steps == 1


@pytest.mark.parametrize("budget", [{}, {"epochs": -1}, {"steps": 1.5}, {"seconds": float("nan")}, {"epochs": True}])
def test_a_budget_that_is_none_is_refused(training: Training, budget: dict[str, object]) -> None:
    """Before anything happens."""
    log = written(training.producer)
    with pytest.raises(InvalidBudget):
        training.handle("fit", Learner(), {"train": loader()}, **budget)
    assert log == []


def test_without_a_training_split_nothing_begins(training: Training) -> None:
    """The message names the splits that there are."""
    with pytest.raises(InvalidSplit, match=r"\['validation'\]"):
        training.handle("fit", Learner(), {"validation": loader()}, epochs=1)


def test_train_and_validate_can_be_called_alone(training: Training) -> None:
    """Once through a loader, told by one event, and no epoch counted."""
    log = written(training.producer)
    learner = Learner()
    trained = training.handle("train", learner, loader())
    validated = training.validate(learner, loader())
    assert trained.keys() == validated.keys() == {"loss", "accuracy"}
    assert learner.epoch == 0
    assert [name for name in names(log) if not name.startswith("Batch")] == ["Trained", "Validated"]


@pytest.mark.parametrize(("action", "moment"), [("train", Trained), ("train", BatchEnded), ("validate", Validated)])
def test_a_stop_reaches_whoever_calls_for_one_split(training: Training, action: str, moment: type) -> None:
    """There is no run to end: the caller gets what the listener asked for, after the split's facts are out."""
    log = written(training.producer)
    asking = Consumer()

    def ask(event: object) -> None:
        raise StopIteration("enough")

    ask.__annotations__["event"] = moment
    asking.handler(ask)
    training.producer.register(asking)
    with pytest.raises(StopIteration, match="enough"):
        training.handle(action, Learner(), loader())
    assert names(log)[-1] == ("Trained" if action == "train" else "Validated")


def test_weights_are_those_of_a_hand_written_loop(training: Training) -> None:
    """Bit by bit."""
    ours, hand = Learner(), Learner()
    training.handle("fit", ours, {"train": loader(), "validation": loader()}, epochs=3)
    criterion = nn.CrossEntropyLoss()
    for _ in range(3):
        for inputs, targets in loader():
            loss = criterion(hand.nn(inputs), targets)
            loss.backward()
            hand.optimizer.step()
            hand.optimizer.zero_grad()
    assert torch.equal(ours.nn.weight, hand.nn.weight)


def test_early_stopping_ends_a_run_that_gets_no_better(training: Training) -> None:
    """After so many epochs without anything better, with the reason in the last event."""
    log = written(training.producer)
    training.producer.register(EarlyStopping("train/loss", "max", patience=3))
    learner = Learner()
    training.handle("fit", learner, {"train": loader()}, epochs=50)
    assert learner.epoch == 4
    ended = log[-1]
    assert isinstance(ended, TrainingEnded)
    assert ended.reason.startswith("train/loss did not get better than")


def test_several_requests_to_stop_are_one(training: Training) -> None:
    """The first is the reason; none is left in the queue, where it would end the next run after an epoch."""
    model, log = Learner(), written(training.producer)
    consumer = Consumer()

    @consumer.handler
    def ask(event: EpochEnded) -> None:
        if event.progress.epoch == 1:
            for reason in ("first", "second", "third"):
                event.aggregate.events.enqueue(StopIteration(reason))

    training.producer.register(consumer)
    training.handle("fit", model, {"train": loader()}, epochs=4)
    assert log[-1].reason == "first"
    assert not model.events.queue
    training.handle("fit", model, {"train": loader()}, epochs=4)
    assert model.epoch == 4


def test_an_iterator_is_gone_through_once(training: Training) -> None:
    """A second epoch of a generator would have no batches, and nobody would notice: it is refused by name."""
    training.handle("fit", Learner(), {"train": iter(loader())}, epochs=1)
    with pytest.raises(InvalidSplit, match="the loader of 'train' is a list_iterator, which can be gone through once"):
        training.handle("fit", Learner(), {"train": iter(loader())}, epochs=2)


@pytest.mark.parametrize("limit", [-1, 2.5, True, "3"])
def test_a_limit_is_a_number_of_batches(training: Training, limit: object) -> None:
    """Anything else is refused before anything is told or trained, wherever it is given."""
    log, model = written(training.producer), Learner()
    for name, data in {
        "fit": {"train": loader()},
        "train": loader(),
        "validate": loader(),
        "predict": loader(),
    }.items():
        with pytest.raises(InvalidBudget, match="no number of batches"):
            training.handle(name, model, data, limit=limit, **({"epochs": 1} if name == "fit" else {}))
    assert (log, model.calls) == ([], [])
    with pytest.raises(InvalidBudget, match="no number of batches"):
        batches(next(iter(epochs(model, epochs=1))), loader(), limit=limit)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("loaders", "says"),
    [
        (loader(), "a list is no loader by split"),
        ({"training": loader()}, "the one to learn from is called 'train'"),
        ({"training": loader(), 3: loader()}, r"the splits are \['training', 3\]"),
        ({"train": loader(), 3: loader()}, "3 is no name of a split"),
        ({"train": []}, "the loader of 'train' has no batches"),
        ({"train": loader(), "validation": []}, "the loader of 'validation' has no batches"),
        ({"train": loader(), "test": Split([], every(1, "epochs"))}, "the loader of 'test' has no batches"),
        ({"train": loader(), "test": Split(loader(), 5)}, r"Split\(..., 5\) for 'test': write when as a trigger"),  # type: ignore[arg-type]
    ],
)
def test_splits_that_nothing_would_come_of_are_refused(training: Training, loaders: Any, says: str) -> None:
    """An epoch without a batch would look like one that went well, so nothing is learned before it is said."""
    model = Learner()
    with pytest.raises(InvalidSplit, match=says):
        training.handle("fit", model, loaders, epochs=1)
    assert (model.epoch, model.calls) == (0, [])


@pytest.mark.parametrize("told", [0.5, None, [("loss", 0.5)]])
def test_metrics_without_names_are_refused(told: Any) -> None:
    """Listeners know them by their names."""
    with pytest.raises(InvalidMetric, match=r"epoch\.report\('train', \{'loss': \.\.\.\}\)"):
        for epoch in epochs(Learner(), epochs=1):
            epoch.report("train", told)


def test_an_epoch_and_a_loader_in_the_wrong_order_are_refused() -> None:
    """And so is what cannot be kept, when it is to be kept, and not when a checkpoint is made."""
    epoch: Any = next(iter(epochs(Learner(), epochs=1)))
    made: Any = loader()
    with pytest.raises(InvalidSplit, match=r"batches\(list, ...\): the epoch comes first"):
        batches(made, epoch)
    with pytest.raises(UnkeepableValue, match=r"epoch.keep\('hits', ...\): what is of type int cannot be kept"):
        epoch.keep("hits", 0)


class Returning(Learner):
    """Returns something from `fit` or `evaluate`."""

    def __init__(self, **outcomes: Any) -> None:
        super().__init__()
        self.outcomes = outcomes

    def fit(self, inputs: Tensor, targets: Tensor) -> Any:
        return self.outcomes.get("fit", super().fit(inputs, targets))

    def evaluate(self, inputs: Tensor, targets: Tensor) -> Any:
        return self.outcomes.get("evaluate", super().evaluate(inputs, targets))


@pytest.mark.parametrize("method", ["fit", "evaluate"])
@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (torch.tensor(1.0), "{} returned a Tensor. Let it return two things: predictions, loss."),
        (None, "{} returned a NoneType"),
        ((torch.zeros(4), torch.tensor(1.0), "more"), "{} returned a tuple"),
        ((torch.zeros(4), 0.25), r"the loss is 0.25, and no tensor. .* without .item\(\)"),
        ((torch.tensor(1.0), torch.zeros(4, 2)), r"the loss has the shape \(4, 2\)"),
        ((torch.zeros(4), torch.zeros(4)), r"the loss has the shape \(4,\)"),
    ],
)
def test_what_is_no_prediction_and_loss_is_refused(training: Training, method: str, outcome: Any, says: str) -> None:
    """By the name of the method and of what it returned, and not by what some operation on it says."""
    with pytest.raises(InvalidLoss, match=says.format(method)):
        training.handle("fit", Returning(**{method: outcome}), {"train": loader(), "validation": loader()}, epochs=1)


def test_what_is_no_aggregate_is_refused(training: Training) -> None:
    """A network alone cannot be trained: whoever does so is told what can, here and in a loop of their own."""
    network: Any = nn.Linear(2, 2)
    with pytest.raises(NotAnAggregate, match=r"a Linear is no aggregate\. Train Supervised"):
        training.handle("fit", network, {"train": loader()}, epochs=1)
    with pytest.raises(NotAnAggregate, match="a Linear is no aggregate"):
        epochs(network, epochs=1)


@pytest.mark.parametrize("name", ["train", "validate", "predict"])
def test_one_split_is_one_loader(training: Training, name: str) -> None:
    """Loaders by name belong to `fit`; elsewhere they would fail deep inside of torch."""
    with pytest.raises(InvalidSplit, match=f"{name}: takes one loader"):
        training.handle(name, Learner(), {"train": loader()})
