"""The loop at its edges: nothing to go through, splits that are not due, loops in loops, nothing left to do."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn, optim

from tests.training.fakes import Learner, loader, names, written
from torchsystem.errors import AlreadyTraining, InvalidBudget, InvalidSplit, MissingMetric, NotAnAggregate
from torchsystem.progress import Progress
from torchsystem.services import Consumer, Producer
from torchsystem.training import EarlyStopping, Optimization, Split, Supervised, Training, batches, device, epochs
from torchsystem.training.events import (
    BatchEnded,
    BatchStarted,
    EpochEnded,
    EpochStarted,
    ProcessStarted,
    TrainingEnded,
    Validated,
)
from torchsystem.triggers import after, at, every, once


@pytest.fixture
def training() -> Training:
    """Return a training on the CPU."""
    made = Training()
    made.override(device, lambda: "cpu")
    return made


def supervised(**options: Any) -> Supervised:
    """Make a small aggregate."""
    torch.manual_seed(0)
    network = nn.Linear(2, 2)
    optimizer = optim.SGD(network.parameters(), lr=0.1)
    return Supervised(network, nn.CrossEntropyLoss(), Optimization(optimizer, **options))


class Stream:
    """Batches of which nobody knows the number, or which say a wrong one."""

    def __init__(self, count: int, length: int | None = None) -> None:
        self.count = count
        self.length = length

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(loader(self.count))

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError("nobody knows")
        return self.length


# nothing to go through


@pytest.mark.parametrize("budget", [{"epochs": 2}, {"steps": 2}, {"samples": 2}])
@pytest.mark.parametrize("length", [None, 3])
def test_a_split_of_which_no_batch_comes_ends_the_run(training: Training, budget: Any, length: int | None) -> None:
    """Though it did not say so before; a budget of steps or samples would never be used up."""
    with pytest.raises(InvalidSplit, match="the loader of 'train', a Stream, gave no batches"):
        training.handle("fit", Learner(), {"train": Stream(0, length)}, **budget)


def test_a_validation_of_which_no_batch_comes_ends_the_run(training: Training) -> None:
    """Its loss would be missing, and whoever watches it would see nothing."""
    with pytest.raises(InvalidSplit, match="the loader of 'validation', a Stream, gave no batches"):
        training.handle("fit", Learner(), {"train": loader(), "validation": Stream(0)}, epochs=1)


@pytest.mark.parametrize("name", ["train", "validate"])
@pytest.mark.parametrize("data", [[], Stream(0)], ids=["list", "stream"])
def test_a_split_alone_of_which_no_batch_comes_is_refused(training: Training, name: str, data: Any) -> None:
    """There is no loss to return."""
    with pytest.raises(InvalidSplit, match="gave no batches"):
        training.handle(name, Learner(), data)


def test_a_loop_of_ones_own_over_nothing_ends() -> None:
    """A budget of steps would let it go round for ever; a validation without a batch is the loop's own business."""
    for epoch in epochs(Learner(), steps=2):
        assert list(batches(epoch, Stream(0), split="validation")) == []
        with pytest.raises(InvalidSplit, match="gave no batches"):
            list(batches(epoch, Stream(0)))
        break


@pytest.mark.parametrize("name", ["fit", "train", "validate"])
def test_a_limit_to_nothing_is_refused(training: Training, name: str) -> None:
    """An epoch without a batch is none; of predictions there may be none."""
    data: Any = {"train": loader()} if name == "fit" else loader()
    with pytest.raises(InvalidBudget, match="Write a whole number of 1 or more"):
        training.handle(name, Learner(), data, limit=0, **({"steps": 1} if name == "fit" else {}))


@pytest.mark.parametrize(("said", "steps"), [(3, 5), (4, 7), (20, 5), (None, 5)])
def test_a_budget_is_kept_whatever_a_loader_says_of_its_length(training: Training, said: int, steps: int) -> None:
    """One that gives more than it has said is cut where the budget is used up, too."""
    model = supervised()
    training.handle("fit", model, {"train": Stream(10, said)}, steps=steps)
    assert model.optimization.steps == steps


@pytest.mark.parametrize("name", ["train", "validation"])
@pytest.mark.parametrize("data", [None, 3])
def test_what_is_no_loader_is_refused_before_anything_is_learned(training: Training, name: str, data: Any) -> None:
    """By the name of its split, and not when the others were gone through."""
    model = Learner()
    with pytest.raises(InvalidSplit, match=f"the loader of '{name}', a {type(data).__name__}, has no batches"):
        training.handle("fit", model, {"train": loader(), "validation": loader(), name: data}, epochs=1)
    assert model.calls == []
    with pytest.raises(InvalidSplit, match=f"validate: a {type(data).__name__}, has no batches"):
        training.handle("validate", model, data)


def test_a_loader_that_refuses_to_say_its_length_has_none(training: Training) -> None:
    """In whatever way it does."""

    class Refusing(Stream):
        def __len__(self) -> int:
            raise NotImplementedError

    model = supervised(accumulate=2)
    training.handle("fit", model, {"train": Refusing(3)}, epochs=1)
    assert model.optimization.steps == 2


# splits that are not due


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (once(), [1]),
        (at(2, "epochs"), [2]),
        (every(2, "epochs"), [2, 4]),
        (after(3, "epochs"), [3, 4]),
        (every(5, "batches"), [2, 4]),
        (once() | at(3, "epochs"), [1, 3]),
        (every(100, "epochs"), []),
    ],
    ids=repr,
)
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_a_split_is_gone_through_when_it_is_due(training: Training, when: Any, expected: list[int], cut: int) -> None:
    """Also at the end of the first epoch, and never twice because a run was cut."""
    log = written(training.producer)
    model, splits = Learner(), {"train": loader(3), "test": Split(loader(1), when)}
    for total in (cut, 4):
        training.handle("fit", model, splits, epochs=total)
    assert [event.progress.epoch + 1 for event in log if isinstance(event, Validated)] == expected


def test_an_interval_of_what_is_learned_from_is_refused(training: Training) -> None:
    """It would have no effect: each epoch learns."""
    with pytest.raises(InvalidSplit, match=r"'train' is gone through in every epoch, and not every\(2, 'epochs'\)"):
        training.handle("fit", Learner(), {"train": Split(loader(), every(2, "epochs"))}, epochs=1)
    training.handle("fit", Learner(), {"train": Split(loader(), every(1, "epochs"))}, epochs=1)


def test_who_watches_a_split_waits_until_it_is_due(training: Training) -> None:
    """Early stopping and a plateau judge it when it comes, and not before."""
    model = supervised()
    optimizer = model.optimization.optimizers["optimizer"]
    plateau = optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", patience=0, factor=0.5)
    model.optimization = Optimization(optimizer, plateau, metric="validation/loss")
    stopping = EarlyStopping("validation/loss", "max", patience=2)
    training.producer.register(stopping)
    history = training.handle(
        "fit", model, {"train": loader(), "validation": Split(loader(1), every(2, "epochs"))}, epochs=20
    )
    assert len(history) == 6  # the loss falls, so of three values none is higher than the first
    assert plateau.num_bad_epochs == 0
    assert model.optimization.learning_rates == {"optimizer": [0.025]}


def test_who_watches_later_waits_as_well(training: Training) -> None:
    """What is delivered in the background is heard when the next epoch is under way, whose splits are its own."""
    stopping = EarlyStopping("validation/loss", "min", patience=9)
    late: list[EpochEnded] = []
    consumer = Consumer()

    @consumer.handler
    def keep(event: EpochEnded) -> None:
        late.append(event)

    @consumer.handler
    def hand_on(event: EpochStarted) -> None:
        while late:
            stopping.consume(late.pop())

    training.producer.register(consumer)
    splits = {"train": loader(), "validation": Split(loader(1), every(3, "epochs"))}
    training.handle("fit", Learner(), splits, epochs=5)
    assert (len(late), stopping.best is None) == (1, False)


def test_a_loop_of_ones_own_says_which_split_is_not_due() -> None:
    """Nobody else can know; what is not said is an error, as a misspelled name is."""

    def run(*, says: bool) -> EarlyStopping:
        model = supervised()
        optimizer = model.optimization.optimizers["optimizer"]
        plateau = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        model.optimization = Optimization(optimizer, plateau, metric="validation/loss")
        producer, stopping = Producer(failures="finish"), EarlyStopping("validation/loss", "min", patience=2)
        producer.register(stopping)
        for epoch in epochs(model, producer, epochs=4):
            for inputs, targets in batches(epoch, loader(2)):
                model.fit(inputs, targets)
            if epoch.number % 2:
                epoch.report("validation", {"loss": 1.0 / (1 + epoch.number)})
            elif says:
                epoch.waiting.add("validation")
        return stopping

    assert run(says=True).best == 0.25
    with pytest.raises(MissingMetric):
        run(says=False)


def test_a_metric_that_a_split_does_not_have_is_an_error_when_it_comes(training: Training) -> None:
    """It was waited for in vain."""
    training.producer.register(EarlyStopping("validation/lost", "min", patience=2))
    model = Learner()
    with pytest.raises(ExceptionGroup) as caught:
        training.handle("fit", model, {"train": loader(), "validation": Split(loader(1), every(2, "epochs"))}, epochs=9)
    assert "no 'validation/lost'" in str(caught.value.exceptions[0])
    assert model.epoch == 2


# loops in loops


@pytest.mark.parametrize("moment", [ProcessStarted, EpochStarted, BatchStarted, BatchEnded, EpochEnded, TrainingEnded])
@pytest.mark.parametrize("name", ["fit", "train"])
def test_a_listener_does_not_train_what_is_being_trained(training: Training, moment: type, name: str) -> None:
    """Both would count, and step, each without knowing of the other; the run ends, and says why."""
    model = supervised()
    consumer = Consumer()

    def train(event: Any) -> None:
        training.handle(name, model, {"train": loader()} if name == "fit" else loader(), **options)

    options: dict[str, Any] = {"epochs": 9} if name == "fit" else {}
    train.__annotations__["event"] = moment
    consumer.handler(train)
    training.producer.register(consumer)
    with pytest.raises(ExceptionGroup) as caught:
        training.handle("fit", model, {"train": loader()}, epochs=1)
    assert isinstance(caught.value.exceptions[0], AlreadyTraining)
    training.producer.unregister(consumer)
    training.handle("fit", model, {"train": loader()}, epochs=5)
    assert model.epoch == 5


def test_a_thread_does_not_train_what_another_trains(training: Training) -> None:
    """The second one is told; copies are trained side by side."""
    model = supervised()
    entered, go_on = threading.Event(), threading.Event()
    consumer = Consumer()

    @consumer.handler
    def wait(event: EpochStarted) -> None:
        entered.set()
        assert go_on.wait(200)

    training.producer.register(consumer)
    thread = threading.Thread(target=training.fit, args=(model, {"train": loader()}), kwargs={"epochs": 1})
    thread.start()
    assert entered.wait(200)
    try:
        with pytest.raises(AlreadyTraining, match="this Supervised is being trained already"):
            training.handle("fit", model, {"train": loader()}, epochs=1)
        other = Training()
        other.override(device, lambda: "cpu")
        assert len(other.handle("fit", supervised(), {"train": loader()}, epochs=2)) == 2
    finally:
        go_on.set()
        thread.join()
    assert model.epoch == 1


@pytest.mark.parametrize("moment", [ProcessStarted, EpochStarted, EpochEnded, TrainingEnded])
def test_a_listener_that_fails_in_a_loop_of_ones_own_fails_the_run(moment: type) -> None:
    """It is told last, and who listens is closed, as in the ready-made loop."""
    producer = Producer(failures="finish")
    log = written(producer)
    consumer = Consumer()

    def fail(event: object) -> None:
        raise LookupError("disk full")

    fail.__annotations__["event"] = moment
    consumer.handler(fail)
    producer.register(consumer)

    def loop() -> None:
        model = Learner()
        for epoch in epochs(model, producer, epochs=1):
            for inputs, targets in batches(epoch, loader()):
                model.fit(inputs, targets)

    with pytest.raises(ExceptionGroup, match="a handler failed"):
        loop()
    gc.collect()
    assert names(log)[-2:] == [moment.__name__, "TrainingFailed"]
    assert names(log).count("TrainingFailed") == 1


def test_an_epoch_of_ones_own_loop_may_be_trained_by_the_service(training: Training) -> None:
    """What the service has learned there counts: in the progress, and for budgets."""
    model, log = supervised(), written(producer := Producer(failures="finish"))
    for epoch in epochs(model, producer, samples=30):
        epoch.report("train", training.handle("train", model, loader(3)))
        training.handle("validate", model, loader(2))
    assert model.epoch == 3
    ended = log[-1].progress
    assert (ended.batch, ended.batch_in_epoch, ended.samples, ended.step) == (9, 3, 36, 9)
    assert model.progress.samples == 36


# nothing to do, and numbers of others


def test_a_finished_run_is_left_as_it_is_to_the_last_value(training: Training) -> None:
    """The whole snapshot, time included: what was not spent in training is not counted."""
    model = supervised()
    splits = {"train": loader(), "validation": loader()}
    training.handle("fit", model, splits, epochs=2)
    before = model.snapshot()
    for budget in ({"epochs": 2}, {"steps": 6}, {"samples": 1}, {"seconds": 0}):
        training.handle("fit", model, splits, **budget)
    after_all = model.snapshot()
    assert after_all["parts"]["progress"] == before["parts"]["progress"]
    assert after_all["counters"] == before["counters"]
    assert all(torch.equal(value, after_all["modules"][name]) for name, value in before["modules"].items())


@pytest.mark.parametrize("name", ["epochs", "steps", "samples", "seconds"])
def test_whole_numbers_of_numpy_are_budgets(training: Training, name: str) -> None:
    """As they come out of tables; the limit, too."""
    model = supervised(accumulate=2)
    history = training.handle("fit", model, {"train": loader(5)}, limit=np.int32(2), **{"epochs": 1, name: np.int64(1)})
    assert model.epoch == len(history) == (0 if name == "samples" else 1)  # of samples, one batch has more


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", "3"),
        ("epochs", torch.tensor(3)),
        ("steps", np.float64(3.0)),
        ("samples", [3]),
        ("seconds", "3"),
        ("seconds", torch.tensor(3.0)),
        ("seconds", True),
    ],
)
def test_what_is_no_number_is_no_budget(training: Training, name: str, value: Any) -> None:
    """It is refused by name; a tensor would be read from its device after each batch."""
    with pytest.raises(InvalidBudget, match=f"fit: {name}=.* is no budget"):
        training.handle("fit", Learner(), {"train": loader()}, **{name: value})


def test_no_number_is_too_large(training: Training) -> None:
    """A limit, or a budget, that nothing reaches is none."""
    history = training.handle("fit", Learner(), {"train": loader()}, epochs=1, steps=10**40, limit=10**40)
    assert len(history) == 1


def test_an_aggregate_that_cannot_evaluate_is_refused_before_it_learns(training: Training) -> None:
    """And not after the first epoch; without a split to evaluate, it need not."""

    class Learning(Learner):
        evaluate: Any = None

    model = Learning()
    with pytest.raises(NotAnAggregate, match=r"Learning has no evaluate\(\)"):
        training.handle("fit", model, {"train": loader(), "validation": loader()}, epochs=1)
    assert model.calls == []
    assert model.progress == Progress()
    training.handle("fit", model, {"train": loader()}, epochs=1)
    assert model.epoch == 1


@pytest.mark.parametrize("name", ["train", "validate", "predict", "tune-learning-rate", "tune-batch-size"])
def test_a_network_alone_is_no_aggregate_for_any_handler(training: Training, name: str) -> None:
    """It is told what is, instead of which attribute a network lacks."""
    with pytest.raises(NotAnAggregate, match=r"a Linear is no aggregate\. Train Supervised"):
        training.handle(name, nn.Linear(2, 2), loader())


def test_a_training_takes_the_accelerator_that_there_is() -> None:
    """Nothing has to be bound to train on it; nor where there is none."""
    kinds = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "xpu": torch.xpu.is_available}
    there = [kind for kind, is_available in kinds.items() if is_available()]
    assert device() in (there or ["cpu"])
