"""Guards: when they ask for a stop, with which reason, and what they read to know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, optim
from torch.amp import GradScaler
from torch.overrides import TorchFunctionMode

from tests.training.fakes import Learner, loader, written
from torchsystem.domain.plain import plain
from torchsystem.errors import (
    InvalidStopping,
    MissingGradients,
    MissingMetric,
    NonFiniteMetric,
    NonFiniteWeights,
    UnreadablePredictions,
)
from torchsystem.progress import Progress
from torchsystem.training import Optimization, Supervised, Training, device
from torchsystem.training.events import (
    BatchEnded,
    EpochEnded,
    GradientsUpdated,
    OptimizerStepped,
    TrainingEnded,
    TrainingStarted,
)
from torchsystem.training.guards import StopOnDegeneratePredictions, StopOnNonFinite, StopOnThreshold

NAN, INF = float("nan"), float("inf")


class Reads(TorchFunctionMode):
    """Count how often values are brought from a device: `tolist`, of which torch's dispatcher knows nothing, too."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.__name__ in {"tolist", "item", "numpy", "cpu", "__bool__", "__int__", "__float__"}
        return func(*args, **(kwargs or {}))


def supervised(**options: Any) -> Supervised:
    """Make a network of two layers that learns by an optimization."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    optimizer = optim.SGD(network.parameters(), lr=0.1)
    return Supervised(network, nn.CrossEntropyLoss(), Optimization(optimizer, **options))


def training() -> Training:
    """Make a training on the CPU."""
    made = Training()
    made.override(device, lambda: "cpu")
    return made


def ended(aggregate: Any, epoch: int = 1, **metrics: float) -> EpochEnded:
    """Make the end of an epoch."""
    return EpochEnded(aggregate, Progress(epoch=epoch), {name.replace("_", "/"): v for name, v in metrics.items()})


def reasons(aggregate: Any) -> list[str]:
    """List what is asked for."""
    return [str(event) for event in aggregate.events.queue]


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=10), st.floats(-1, 1), st.sampled_from(["above", "below"]))
def test_a_target_is_reached_at_the_first_value_that_is_as_good(
    values: list[float], target: float, direction: str
) -> None:
    """The target itself counts, in either direction, and the reason names both."""
    upwards = direction == "above"
    guard = StopOnThreshold("validation/loss", **{direction: target})
    for value in values:
        learner = Learner()
        guard.consume(ended(learner, validation_loss=value))
        reached = value >= target if upwards else value <= target
        assert reasons(learner) == ([f"validation/loss is {value:g}, and {target:g} was to be reached"] * reached)


@pytest.mark.parametrize("kind", [int, float, torch.tensor, np.float32, np.int64])
def test_a_target_is_reached_by_numbers_of_any_kind(kind: Any) -> None:
    """Loops of one's own report what they have, also whole numbers."""
    learner = Learner()
    for value, expected in ((1, 0), (3, 1)):
        above, below = StopOnThreshold("train/hits", above=2.5), StopOnThreshold("train/hits", below=-2.5)
        above.consume(EpochEnded(learner, Progress(epoch=1), {"train/hits": kind(value)}))
        below.consume(EpochEnded(learner, Progress(epoch=1), {"train/hits": kind(-value)}))
        assert len(reasons(learner)) == expected


def test_a_run_ends_when_its_target_is_reached() -> None:
    """The epoch's facts are out, the reason is told, and nothing is left over for the next run."""
    service, model = training(), supervised()
    log = written(service.producer)
    service.producer.register(StopOnThreshold("train/loss", below=100.0))
    history = service.handle("fit", model, {"train": loader()}, epochs=5)
    assert len(history) == model.epoch == 1
    assert isinstance(log[-1], TrainingEnded)
    assert log[-1].reason.endswith("and 100 was to be reached")
    assert not model.events.queue


def test_a_target_of_a_metric_that_never_comes_is_an_error_at_once() -> None:
    """But one that comes only now and then may be missing now and then, also in a run that goes on."""
    guard = StopOnThreshold("validation/accuracy", above=0.9)
    with pytest.raises(MissingMetric, match=r"no 'validation/accuracy'.*validation/loss"):
        guard.consume(ended(Learner(), validation_loss=1.0))
    guard.consume(ended(Learner(), validation_accuracy=0.5))
    guard.consume(ended(Learner(), validation_loss=1.0))
    other = StopOnThreshold("validation/accuracy", above=0.9)
    other.load_state_dict(guard.state_dict())
    other.consume(ended(Learner(), validation_loss=1.0))


def test_a_value_that_is_not_a_number_reaches_no_target() -> None:
    """It stops the run with its own reason, is ignored, or is an error, as was said."""
    learner = Learner()
    StopOnThreshold("train/loss", below=0.1, nan="ignore").consume(ended(learner, train_loss=NAN))
    assert reasons(learner) == []
    StopOnThreshold("train/loss", below=0.1).consume(ended(learner, train_loss=NAN))
    assert reasons(learner) == ["train/loss is not a number"]
    with pytest.raises(NonFiniteMetric):
        StopOnThreshold("train/loss", below=0.1, nan="raise").consume(ended(learner, train_loss=NAN))


@pytest.mark.parametrize(
    "make",
    [
        lambda: StopOnThreshold("loss", below=1.0),
        lambda: StopOnThreshold("train/loss"),
        lambda: StopOnThreshold("train/loss", above=1.0, below=0.0),
        lambda: StopOnThreshold("train/loss", above=NAN),
        lambda: StopOnThreshold("train/loss", below=True),
        lambda: StopOnThreshold("train/loss", below=1.0, nan=cast("Any", "maybe")),
        lambda: StopOnNonFinite(cast("Any", "warn")),
        lambda: StopOnNonFinite("raise", every=0),
        lambda: StopOnNonFinite("raise", every=True),
        lambda: StopOnDegeneratePredictions(cast("Any", "scores"), window=3),
        lambda: StopOnDegeneratePredictions("classes", window=0),
        lambda: StopOnDegeneratePredictions("classes", window=3, share=0.5),
        lambda: StopOnDegeneratePredictions("classes", window=3, share=1.1),
        lambda: StopOnDegeneratePredictions("classes", window=3, tolerance=0.1),
        lambda: StopOnDegeneratePredictions("values", window=3, tolerance=-0.1),
        lambda: StopOnDegeneratePredictions("values", window=3, transform=cast("Any", 3)),
    ],
    ids=str,
)
def test_a_guard_without_meaning_is_refused(make: Callable[[], object]) -> None:
    """When it is made, and not after the first epoch."""
    with pytest.raises(InvalidStopping, match="has no meaning"):
        make()


@given(st.data())
def test_each_broken_weight_is_found_and_named(data: st.DataObject) -> None:
    """Anywhere in a parameter, infinite or not a number; in a buffer only what is not a number. Nothing else is."""
    model = supervised()
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    floating = [name for name, tensor in tensors.items() if tensor.is_floating_point()]
    chosen = data.draw(st.lists(st.sampled_from(floating), unique=True, max_size=3))
    expected = []
    for name in chosen:
        value = data.draw(st.sampled_from([NAN, INF, -INF]))
        with torch.no_grad():
            tensors[name].view(-1)[data.draw(st.integers(0, tensors[name].numel() - 1))] = value
        if value != value or name in dict(model.named_parameters()):  # noqa: PLR0124 - it is not a number
            expected.append(name)
    StopOnNonFinite("stop").consume(ended(model, 4))
    if not expected:
        assert reasons(model) == []
        return
    (reason,) = reasons(model)
    before, _, names = reason.partition(": ")
    assert before == "not finite after epoch 4"
    assert sorted(names.split(", ")) == sorted(expected)


def test_a_broken_weight_is_an_error_if_it_shall_be_one() -> None:
    """Large values are none, of any type; the message names three at most, and how many more there are."""
    model = supervised()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3e38)
    guard = StopOnNonFinite("raise")
    guard.consume(ended(model))
    guard.consume(ended(supervised().double()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(NAN)
    with pytest.raises(NonFiniteWeights, match=r"after epoch 1: nn.0.weight, nn.0.bias, nn.1.weight and 3 others"):
        guard.consume(ended(model))


def test_a_look_at_all_weights_is_one_read() -> None:
    """However many there are."""
    model = supervised()
    with Reads() as reads:
        StopOnNonFinite("raise").consume(ended(model))
    assert reads.count == 1


def test_a_broken_gradient_is_found_in_the_step_that_is_due() -> None:
    """As it was before it was clipped; steps are counted, not batches; the batch that broke it stops the run."""
    model, service = supervised(accumulate=2, clip_norm=1.0), training()
    batches = loader(12)
    batches[7] = (torch.full((4, 2), INF), batches[7][1])  # in the fourth step
    service.producer.register(StopOnNonFinite("raise", every=2))
    with pytest.raises(ExceptionGroup) as caught:
        service.handle("fit", model, {"train": batches}, epochs=1)
    assert caught.group_contains(NonFiniteWeights, match=r"in step 4 of 'optimizer': the gradient of nn.0.weight")


def test_looking_seldom_costs_nothing_in_between() -> None:
    """A guard of epochs alone does not hear of steps; one of steps reads in those that are due alone."""
    service = training()
    service.producer.register(StopOnNonFinite("raise"))
    assert not any(service.producer.wants(kind) for kind in (BatchEnded, GradientsUpdated, OptimizerStepped))
    model, guard = supervised(), StopOnNonFinite("stop", every=5)
    optimization = model.optimization
    seen: list[int] = []
    optimization.listen(
        lambda *facts: guard.consume(GradientsUpdated(model, Progress(), *facts)),
        lambda name: (seen.append(reads.count), guard.consume(OptimizerStepped(model, Progress(), name))),
    )
    for inputs, targets in loader(12):
        before = len(seen)
        with Reads() as reads:
            model.fit(inputs, targets)
        looked = reads.count > 0
        assert looked == ((before + 1) % 5 == 0)


def test_a_step_that_a_scaler_skips_is_no_broken_one() -> None:
    """Overflowing gradients are how a scaler finds its scale."""
    model = supervised(precision="fp16", scaler=GradScaler("cpu", init_scale=2.0**100))
    service = training()
    service.producer.register(StopOnNonFinite("raise", every=1))
    log = written(service.producer)
    service.handle("fit", model, {"train": loader(100)}, epochs=1)
    steps = sum(type(event).__name__ == "OptimizerStepped" for event in log)
    assert 0 < steps < 100


def test_steps_that_nobody_tells_of_are_not_watched_in_silence() -> None:
    """Without an `Optimization`, a guard of steps would see none for a whole run."""
    service = training()
    service.producer.register(StopOnNonFinite("raise", every=10))
    with pytest.raises(ExceptionGroup) as caught:
        service.handle("fit", Learner(), {"train": loader()}, epochs=1)
    assert caught.group_contains(MissingGradients, match="Learner has none")


@given(st.integers(1, 5), st.integers(0, 20), st.integers(0, 20))
def test_counting_goes_on_where_it_was(every: int, first: int, second: int) -> None:
    """A run that is cut looks at the same steps as one left alone."""

    def looks(guard: StopOnNonFinite, steps: int) -> list[bool]:
        found = []
        for _ in range(steps):
            learner = Broken()
            guard.consume(GradientsUpdated(learner, Progress(), "optimizer", 0, steps=True))
            guard.consume(OptimizerStepped(learner, Progress(), "optimizer"))
            found.append(bool(reasons(learner)))
        return found

    class Broken(Learner):
        def __init__(self) -> None:
            super().__init__()
            self.optimization = Optimization(self.optimizer)
            nn.init.constant_(self.nn.bias, NAN)

    alone, cut, resumed = (StopOnNonFinite("stop", every=every) for _ in range(3))
    expected = looks(alone, first + second)
    assert expected == [(number + 1) % every == 0 for number in range(first + second)]
    before = looks(cut, first)
    resumed.load_state_dict(cut.state_dict())
    assert before + looks(resumed, second) == expected


def batch_ended(learner: Any, predictions: Any) -> BatchEnded:
    """Make the end of a batch."""
    return BatchEnded(learner, Progress(), None, predictions, torch.tensor(1.0))


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=9),
    st.integers(1, 4),
    st.sampled_from([0.51, 0.75, 1.0]),
    st.sampled_from(["whole", "boolean", "scores", "segments"]),
)
def test_predictions_are_degenerate_when_so_many_are_the_same(
    batches: list[list[int]], window: int, share: float, kind: str
) -> None:
    """Counted by hand over each full window, for every spelling of a class."""
    guard = StopOnDegeneratePredictions("classes", window=window, share=share)
    for start in range(0, len(batches), window):
        learner = Learner()
        taken = batches[start : start + window]
        for batch in taken:
            classes = torch.tensor(batch)
            scores = nn.functional.one_hot(classes, 3).float()
            spelled = {
                "whole": classes,
                "boolean": classes > 0,
                "scores": scores,
                "segments": scores[:, :, None].expand(-1, -1, 2),
            }[kind]
            guard.consume(batch_ended(learner, spelled))
        counted = Counter((item > 0) if kind == "boolean" else item for batch in taken for item in batch)
        most = max(counted.values()) / counted.total()
        fires = len(taken) == window and most >= share
        assert reasons(learner) == [f"{most:.1%} of the predictions of {window} batches are the same"] * fires


def test_constant_values_are_degenerate_within_the_tolerance() -> None:
    """Rows are compared as a whole; numbers of one column that are the same do not make rows the same."""
    constant = torch.tensor([[0.1, 0.9]]).expand(4, 2)
    nearly = constant + torch.tensor([0.0, 0.01, -0.01, 0.0])[:, None]
    half = torch.stack([torch.ones(4), torch.arange(4.0)], dim=1)
    cases = [
        (constant, 0.0, True),
        (nearly, 0.0, False),
        (nearly, 0.02, True),
        (half, 0.0, False),
        (half[:, 0], 0.0, 1),
    ]
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for values, tolerance, fires in cases:
            learner = Learner()
            guard = StopOnDegeneratePredictions("values", window=2, tolerance=tolerance)
            for _ in range(2):
                guard.consume(batch_ended(learner, values.to(dtype).requires_grad_()))
            assert bool(reasons(learner)) == bool(fires) or (dtype == torch.bfloat16 and tolerance > 0)


def test_predictions_that_nobody_can_compare_are_refused() -> None:
    """A guard that would never fire says so: without predictions, or with one score of two classes."""
    guard = StopOnDegeneratePredictions("classes", window=2)
    for predictions in (None, {"logits": torch.ones(2)}, torch.tensor(1)):
        with pytest.raises(UnreadablePredictions, match="transform="):
            guard.consume(batch_ended(Learner(), predictions))
    for scores in (torch.ones(4), torch.ones(4, 1)):
        with pytest.raises(UnreadablePredictions, match="scores > 0"):
            guard.consume(batch_ended(Learner(), scores))
    learner = Learner()
    binary = StopOnDegeneratePredictions("classes", window=1, transform=lambda outputs: outputs["logits"] > 0)
    binary.consume(batch_ended(learner, {"logits": torch.tensor([[0.5], [2.0]])}))
    assert reasons(learner) == ["100.0% of the predictions of 1 batches are the same"]


def test_predictions_are_read_once_per_window() -> None:
    """Until it is full, nothing is."""
    guard = StopOnDegeneratePredictions("classes", window=4)
    counts = []
    for number in range(8):
        with Reads() as reads:
            guard.consume(batch_ended(Learner(), torch.arange(4) * number))
        counts.append(reads.count)
    assert counts == [0, 0, 0, 1, 0, 0, 0, 1]


def test_a_window_goes_on_where_it_was() -> None:
    """What is kept of it is in the state."""
    first, second, learner = (
        StopOnDegeneratePredictions("classes", window=2),
        StopOnDegeneratePredictions("classes", window=2),
        Learner(),
    )
    first.consume(batch_ended(learner, torch.tensor([1, 1])))
    second.load_state_dict(first.state_dict())
    second.consume(batch_ended(learner, torch.tensor([1, 1])))
    assert len(reasons(learner)) == 1


def test_what_guards_remember_is_of_one_run() -> None:
    """Another one begins with an empty window, and counts its steps from its first."""
    window, steps, learner = (
        StopOnDegeneratePredictions("classes", window=2),
        StopOnNonFinite("stop", every=2),
        Learner(),
    )
    window.consume(batch_ended(learner, torch.tensor([1, 1])))
    steps.consume(OptimizerStepped(learner, Progress(), "optimizer"))
    fresh = (StopOnDegeneratePredictions("classes", window=2), StopOnNonFinite("stop", every=2))
    for guard, before in zip((window, steps), fresh, strict=True):
        assert guard.state_dict() != before.state_dict()
        guard.consume(TrainingStarted(learner, Progress()))
        assert guard.state_dict() == before.state_dict()


def test_a_model_that_has_collapsed_stops_once() -> None:
    """Several windows of one epoch ask for one stop, so that none is left over for the next run."""

    class Collapsed(Learner):
        def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            predictions, loss = super().fit(inputs, targets)
            return torch.zeros_like(predictions) + self.epoch, loss

    service, model = training(), Collapsed()
    log = written(service.producer)
    service.producer.register(StopOnDegeneratePredictions("classes", window=2))
    for epoch in (1, 2):
        service.handle("fit", model, {"train": loader(8)}, epochs=5)
        assert model.epoch == epoch
        assert not model.events.queue
        assert log[-1].reason == "100.0% of the predictions of 2 batches are the same"


def test_two_guards_stop_a_run_once() -> None:
    """The first who asks is named; no request is left over that would stop the next run."""
    service, model = training(), supervised()
    log = written(service.producer)
    service.producer.register(StopOnThreshold("train/loss", below=100.0), StopOnThreshold("train/loss", above=-100.0))
    service.handle("fit", model, {"train": loader()}, epochs=5)
    assert log[-1].reason.endswith("and 100 was to be reached")
    assert not model.events.queue
    training().handle("fit", model, {"train": loader()}, epochs=5)
    assert model.epoch == 5


def test_guards_are_told_apart_in_what_is_kept_of_a_run() -> None:
    """Each has a name of its own, and a state of tensors and plain values."""
    guards = [
        StopOnThreshold("train/loss", above=9.0),
        StopOnThreshold("train/loss", below=0.1),
        StopOnNonFinite("raise"),
        StopOnNonFinite("stop", every=2),
        StopOnDegeneratePredictions("values", window=3),
        StopOnDegeneratePredictions("values", window=4),
    ]
    assert len({guard.name for guard in guards}) == len(guards)
    service = training()
    service.producer.register(*guards)
    service.handle("fit", supervised(), {"train": loader(5)}, epochs=1)
    for guard in guards:
        assert plain(guard.state_dict(), "state").keys() > {"handlers"}
    assert len(guards[-1].state_dict()["kept"]) == 1
