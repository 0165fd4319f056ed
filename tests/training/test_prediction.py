"""Predictions: told batch by batch, of whatever a batch is, made once per state, and disturbing nothing."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.training.fakes import Clock, loader, names, written
from tests.training.resuming import Net, Points, data_loaders, equal
from torchsystem import Aggregate
from torchsystem.services import Consumer, Elapsed, Timers
from torchsystem.training import Training, device, seed
from torchsystem.training.events import BatchEnded, BatchPredicted, EpochEnded, Predicted, Trained, Validated
from torchsystem.training.randomness import are_equal, capture


class Predictor(Aggregate):
    """A linear network with a buffer, that counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.nn = nn.Linear(2, 2)
        self.register_buffer("shift", torch.zeros(2))
        self.register_buffer("scale", torch.ones(2), persistent=False)
        self.asked = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.asked += 1
        assert self.phase == "evaluation"
        assert not torch.is_grad_enabled()
        return torch.as_tensor(self.nn(inputs) * self.scale + self.shift)


@pytest.fixture
def training() -> Training:
    """Return a training on the CPU."""
    training = Training()
    training.override(device, lambda: "cpu")
    return training


def test_each_batch_is_told_and_the_end(training: Training) -> None:
    """With predictions, targets, what the aggregate says of the batch, and the name of the split; the end has all."""

    class Describing(Predictor):
        def metadata(self, batch: Any) -> dict[str, int]:
            return {"samples": len(batch[0])}

    log = written(training.producer)
    model, given = Describing(), loader(2)
    answer = training.handle("predict", model, given, split="test")
    assert names(log) == ["BatchPredicted", "BatchPredicted", "Predicted"]
    for event, (_, targets) in zip(log, given, strict=False):
        assert event.dataset == "test"
        assert event.metadata == {"samples": 4}
        assert torch.equal(event.targets, targets)
    assert torch.equal(torch.cat([event.predictions for event in log[:2]]), answer)
    assert log[2].predictions is answer
    assert (log[2].dataset, log[2].is_cached) == ("test", False)
    assert model.phase == "train"


def test_predictions_are_transformed_batch_by_batch_and_collated_at_the_end(training: Training) -> None:
    """What is told is transformed already; what is returned is what `collate` makes of it."""
    log = written(training.producer)
    model = Predictor()
    answer = training.predict(
        model, loader(3), transform=lambda scores: scores.argmax(1), collate=lambda parts: [len(part) for part in parts]
    )
    assert answer == [4, 4, 4]
    assert all(event.predictions.shape == (4,) for event in log if isinstance(event, BatchPredicted))


class Sample:
    """A batch that is an object."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)


class OfObjects(Predictor):
    """Predicts from objects, and knows their targets."""

    def predict(self, sample: Sample) -> Tensor:
        return self.forward(sample.inputs)

    def targets(self, sample: Sample) -> Tensor:
        return sample.targets


class OfMappings(Predictor):
    """Knows the targets of mappings."""

    def targets(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["labels"]


class OfPairs(Predictor):
    """Predicts from two inputs at once."""

    def forward(self, inputs: Tensor, more: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(inputs + more * 0)


class Asked(Predictor):
    """Has a `predict` of its own."""

    def predict(self, inputs: Tensor) -> Tensor:
        return self.forward(inputs)

    def fit(self, *_: object) -> None:
        """Do nothing."""


KINDS: dict[str, tuple[Callable[[], Predictor], Callable[[Tensor, Tensor], Any], bool]] = {
    "tuples": (Predictor, lambda x, y: (x, y), True),
    "lists": (Predictor, lambda x, y: [x, y], True),
    "two inputs": (OfPairs, lambda x, y: (x, x, y), True),
    "mappings": (OfMappings, lambda x, y: {"inputs": x, "labels": y}, True),
    "mappings without targets": (Predictor, lambda x, _: {"inputs": x}, False),
    "objects": (OfObjects, Sample, True),
    "tuples of one": (Predictor, lambda x, _: (x,), False),
    "lists of one": (Predictor, lambda x, _: [x], False),
    "tensors": (Predictor, lambda x, _: x, False),
    "a predict of its own": (Asked, lambda x, y: (x, y), True),
}


@pytest.mark.parametrize(("model", "batch", "has_targets"), KINDS.values(), ids=KINDS)
def test_batches_are_what_they_like(
    training: Training,
    model: Callable[[], Predictor],
    batch: Callable[..., Any],
    has_targets: bool,  # noqa: FBT001
) -> None:
    """The inputs are all but the targets; targets are the last item, or what the aggregate says, or None."""
    log = written(training.producer)
    one = model()
    answer = training.predict(one, [batch(x, y) for x, y in loader(2)])
    with torch.no_grad():
        expected = torch.cat([one.nn(x) for x, _ in loader(2)])
    assert torch.equal(answer, expected)
    for event, (_, targets) in zip(log, loader(2), strict=False):
        assert torch.equal(event.targets, targets) if has_targets else event.targets is None


class OfSeveralTargets(Predictor):
    """Knows several targets of a batch, by name or in order."""

    def targets(self, batch: Any) -> Any:
        return batch[1:] if isinstance(batch, tuple) else {name: batch[name] for name in ("labels", "boxes")}


@pytest.mark.parametrize("kind", [tuple, dict])
def test_several_targets_are_no_inputs(training: Training, kind: type) -> None:
    """An aggregate may return them together, as it took them out of the batch."""
    log = written(training.producer)
    given = [(x, y, y + 1) if kind is tuple else {"inputs": x, "labels": y, "boxes": y + 1} for x, y in loader(2)]
    assert training.predict(OfSeveralTargets(), given).shape == (8, 2)
    assert [len(event.targets) for event in log if isinstance(event, BatchPredicted)] == [2, 2]


def test_inputs_that_are_the_targets_are_still_inputs(training: Training) -> None:
    """An autoencoder's batch may hold one tensor twice: the last one is the targets, the first is not."""
    points = loader(1)[0][0]
    assert training.predict(Predictor(), [(points, points)]).shape == (4, 2)


class Nested(Predictor):
    """Gives several things of different shapes."""

    def forward(self, inputs: Tensor) -> Any:
        scores = super().forward(inputs)
        return {"scores": scores, "parts": (scores[:, 0], {"mean": scores.mean()}), "name": "linear"}


def test_nested_predictions_are_joined_part_by_part(training: Training) -> None:
    """Tensors along their first dimension, those without one stacked, anything else listed."""
    answer = training.predict(Nested(), loader(3))
    assert answer["scores"].shape == (12, 2)
    assert answer["parts"][0].shape == (12,)
    assert answer["parts"][1]["mean"].shape == (3,)
    assert answer["name"] == ["linear"] * 3


def test_a_limit_and_an_empty_loader(training: Training) -> None:
    """So many batches at most; of none there is nothing, and that is told."""
    log = written(training.producer)
    model = Predictor()
    assert training.predict(model, loader(5), limit=2).shape == (8, 2)
    assert training.predict(model, []) == []
    assert names(log) == ["BatchPredicted", "BatchPredicted", "Predicted", "Predicted"]
    assert model.asked == 2


def test_the_same_question_is_answered_from_memory(training: Training) -> None:
    """No batch is predicted again, and the event says so."""
    log = written(training.producer)
    model, given = Predictor(), loader()
    first = training.predict(model, given)
    second = training.predict(model, given)
    assert second is first
    assert model.asked == 3
    assert names(log) == ["BatchPredicted"] * 3 + ["Predicted"] * 2
    assert [event.is_cached for event in log if isinstance(event, Predicted)] == [False, True]


def _in_place(model: Predictor) -> None:
    with torch.no_grad():
        model.nn.bias[0] += 1e-7


def _through_data(model: Predictor) -> None:
    model.nn.weight.data[0, 0] += 1


def _buffer(model: Predictor) -> None:
    model.get_buffer("shift").add_(1)


def _buffer_that_is_not_saved(model: Predictor) -> None:
    model.get_buffer("scale").mul_(2)


def _replaced(model: Predictor) -> None:
    model.nn = nn.Linear(2, 2)


def _converted(model: Predictor) -> None:
    model.nn.weight.data = model.nn.weight.data.clone() * 2


@pytest.mark.parametrize(
    "change", [_in_place, _through_data, _buffer, _buffer_that_is_not_saved, _replaced, _converted]
)
def test_whatever_changes_the_state_is_noticed(training: Training, change: Callable[[Predictor], None]) -> None:
    """Weights, also through `.data`, and buffers, also those that no state dict has; changed back, it is the same."""
    model, given = Predictor(), loader()
    first = training.predict(model, given)
    change(model)
    second = training.predict(model, given)
    assert model.asked == 6
    assert not torch.equal(first, second)
    assert torch.equal(second, training.predict(model, given, cache=False))


@pytest.mark.parametrize(
    "other",
    [
        {"limit": 1},
        {"transform": lambda scores: scores * 2},
        {"collate": list},
        {"split": "test"},
        {"cache": False},
        {"loader": loader()},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_question_has_another_answer(training: Training, other: dict[str, Any]) -> None:
    """Another loader, though equal, another function, limit or split; or if one wants no memory."""
    model, given = Predictor(), loader()
    training.predict(model, given)
    asked = model.asked
    asking: dict[str, Any] = {"loader": given, **other}
    training.predict(model, **asking)
    assert model.asked > asked


def test_each_model_has_its_own_memory(training: Training) -> None:
    """Two of the same weights are two; and none is kept alive by what it predicted."""
    one, two, given = Predictor(), Predictor(), loader()
    training.predict(one, given)
    training.predict(two, given)
    assert (one.asked, two.asked) == (3, 3)
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None


class Noisy(Predictor):
    """Draws random numbers while it predicts."""

    def forward(self, inputs: Tensor) -> Tensor:
        random.random()  # noqa: S311 - it is what it is about
        np.random.random()  # noqa: NPY002
        return super().forward(inputs) + torch.rand(2)


@pytest.mark.parametrize("fails", [False, True])
def test_random_numbers_are_left_as_they_were(training: Training, fails: bool) -> None:  # noqa: FBT001
    """Those in use, and those that the loader holds, whatever is drawn, also if it fails."""
    own = torch.Generator().manual_seed(3)
    given = DataLoader(Points(noisy=True), batch_size=4, shuffle=True, generator=own)

    def broken(_: Tensor) -> Tensor:
        torch.rand(1)
        raise ValueError("broken")

    class OfThree(Noisy):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs[:, :2])

    model = OfThree()
    seed(1)
    before, held = capture(), capture({"own": own})
    if fails:
        with pytest.raises(ValueError, match="broken"):
            training.predict(model, given, transform=broken)
    else:
        training.predict(model, given)
    assert are_equal(before, capture())
    assert are_equal(held, capture({"own": own}))


def asking(training: Training, moment: type, given: Any) -> Consumer:
    """Make a listener that predicts and validates whenever something happened."""
    consumer = Consumer("asking")

    def ask(event: Any) -> None:
        training.predict(event.aggregate, given, split="test", cache=False)

    ask.__annotations__["event"] = moment
    consumer.handler(ask)
    return consumer


def run(moment: type | None, *, own: bool = False) -> tuple[Any, list[str], list[str]]:
    """Run, with or without predictions at some moment; return the state, the events of the run, and the phases."""
    seed(5)
    training = Training()
    training.override(device, lambda: "cpu")
    options: dict[str, Any] = {"generator": torch.Generator().manual_seed(2)} if own else {}
    loaders = data_loaders(noisy=True, **options)()
    model, phases = Net(), []
    log = written(training.producer)
    if moment is not None:
        training.producer.register(asking(training, moment, loaders["train"]))
    watching = Consumer("watching")

    @watching.handler
    def watch(event: BatchEnded | Trained | Validated | EpochEnded) -> None:
        phases.append(f"{type(event).__name__} {event.aggregate.phase}")

    training.producer.register(watching)
    history = training.handle("fit", model, loaders, epochs=2)
    told = [
        f"{type(event).__name__} {event.progress.batch}" for event in log if "Predicted" not in type(event).__name__
    ]
    return (model.snapshot(), history), told, phases


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("moment", [BatchEnded, Trained, Validated, EpochEnded])
def test_a_prediction_inside_a_run_disturbs_nothing(moment: type, own: bool) -> None:  # noqa: FBT001
    """With dropout, shuffling and noisy data: weights, history, events and phases are those of a run without it."""
    (state, history), told, phases = run(None, own=own)
    (other, again), retold, rephased = run(moment, own=own)
    assert equal(state, other)
    assert history == again
    assert told == retold
    assert phases == rephased


def test_a_validation_inside_a_run_leaves_its_modes_as_they_were(training: Training) -> None:
    """Each module for itself: what a user has frozen stays frozen."""
    model = Net()
    modes: list[bool] = []
    consumer = Consumer("validating")

    @consumer.handler
    def validate(event: BatchEnded) -> None:
        model.nn[1].eval()
        before = [module.training for module in model.modules()]
        training.handle("validate", model, validation)
        modes.append(before == [module.training for module in model.modules()])
        assert model.phase == "train"

    training.producer.register(consumer)
    loaders = data_loaders()()
    validation = loaders.pop("validation")
    training.handle("fit", model, loaders, epochs=1)
    assert modes == [True] * 6


def test_what_is_told_inside_a_run_has_the_progress_of_the_run(training: Training) -> None:
    """Also in the middle of an epoch, of which the aggregate has not been told yet."""
    log = written(training.producer)
    loaders = data_loaders()()
    training.producer.register(asking(training, BatchEnded, loaders["validation"]))
    training.handle("fit", Net(), {"train": loaders["train"]}, epochs=1)
    assert [event.progress.batch for event in log if isinstance(event, Predicted)] == [1, 2, 3, 4, 5, 6]


def test_timers_are_handed_out_between_predicted_batches() -> None:
    """A prediction has safe points as every pass has."""
    clock = Clock()
    training = Training(timers=Timers(1, clock=clock))
    training.override(device, lambda: "cpu")
    consumer, heard = Consumer("hearing"), []

    @consumer.handler
    def hear(event: Elapsed | BatchPredicted) -> None:
        heard.append(type(event).__name__)
        if isinstance(event, BatchPredicted):
            clock.now += 0.5

    training.producer.register(consumer)
    training.predict(Predictor(), loader(4))
    assert heard == ["BatchPredicted", "BatchPredicted", "Elapsed"] * 2
