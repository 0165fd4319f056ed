"""Stopping early: direction, patience, delta, missing and broken metrics, and memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.fakes import Learner, loader
from torchsystem.errors import InvalidStopping, MissingMetric, NonFiniteMetric
from torchsystem.progress import Progress
from torchsystem.training import EarlyStopping, Training, device
from torchsystem.training.events import EpochEnded, TrainingStarted

NAN = float("nan")


def stops_after(stopping: EarlyStopping, values: list[float]) -> int | None:
    """Tell after how many epochs a stop is asked for; None if never."""
    learner = Learner()
    for number, value in enumerate(values, start=1):
        stopping.consume(EpochEnded(learner, Progress(epoch=number), {"validation/loss": value}))
        if learner.events.queue:
            return number
    return None


def simple(values: list[float], direction: str, patience: int, delta: float) -> int | None:
    """Say the same by looking at all values anew in each epoch."""
    best, since = None, 0
    for number, value in enumerate(values, start=1):
        better = best is None or (best - value if direction == "min" else value - best) > delta
        best, since = (value, 0) if better else (best, since + 1)
        if since >= patience:
            return number
    return None


@given(
    st.lists(st.floats(-5, 5), max_size=30),
    st.sampled_from(["min", "max"]),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.5]),
)
def test_it_stops_when_nothing_better_came_for_so_long(
    values: list[float], direction: Any, patience: int, delta: float
) -> None:
    """In either direction, with any patience, and by at least the delta."""
    stopping = EarlyStopping("validation/loss", direction, patience=patience, minimum_delta=delta)
    assert stops_after(stopping, values) == simple(values, direction, patience, delta)


@given(st.lists(st.floats(-5, 5), max_size=20), st.integers(0, 20))
def test_a_run_that_goes_on_is_as_patient_as_one_left_alone(values: list[float], cut: int) -> None:
    """What it remembers is in its state: cutting a run anywhere changes nothing."""
    left_alone = EarlyStopping("validation/loss", "min", patience=2)
    expected = stops_after(left_alone, values)
    first, second = (EarlyStopping("validation/loss", "min", patience=2) for _ in range(2))
    early = stops_after(first, values[:cut])
    second.load_state_dict(first.state_dict())
    if early is None:
        late = stops_after(second, values[cut:])
        assert expected == (None if late is None else late + min(cut, len(values)))
    else:
        assert expected == early


def test_a_value_that_is_not_a_number_means_what_was_said() -> None:
    """It stops at once, is an epoch without anything better, or is an error."""
    assert stops_after(EarlyStopping("validation/loss", "min", patience=9), [1.0, NAN]) == 2
    assert stops_after(EarlyStopping("validation/loss", "min", patience=2, nan="ignore"), [1.0, NAN, NAN]) == 3
    with pytest.raises(NonFiniteMetric, match="after epoch 1"):
        stops_after(EarlyStopping("validation/loss", "min", patience=9, nan="raise"), [NAN])


def test_what_was_remembered_of_one_run_is_forgotten_when_another_begins() -> None:
    """One rule for many runs, as in a cross-validation, is as patient with the second model as with the first."""
    stopping = EarlyStopping("train/loss", "max", patience=2)
    training = Training()
    training.override(device, lambda: "cpu")
    training.producer.register(stopping)
    lengths = [len(training.handle("fit", Learner(), {"train": loader()}, epochs=9)) for _ in range(2)]
    assert lengths == [3, 3]
    assert (stopping.waited, stopping.best is None) == (2, False)
    missing = Learner()
    stopping.consume(TrainingStarted(missing, Progress()))
    with pytest.raises(MissingMetric):
        stopping.consume(EpochEnded(missing, Progress(epoch=1), {}))


def test_what_is_remembered_is_plain_whatever_is_reported() -> None:
    """Loops of one's own may report tensors, and whole numbers; a checkpoint holds neither as `best`."""
    stopping = EarlyStopping("validation/loss", "min", patience=2)
    values: list[Any] = [torch.tensor(3.0), 2, torch.tensor(2.5), torch.tensor(4)]
    assert stops_after(stopping, values) == 4
    assert (stopping.state_dict()["best"], type(stopping.best)) == (2.0, float)


def test_a_metric_that_never_comes_is_an_error_at_once() -> None:
    """A misspelled name would watch nothing for a whole run."""
    with pytest.raises(MissingMetric, match=r"no 'validation/los'.*validation/loss"):
        stops_after(EarlyStopping("validation/los", "min", patience=3), [1.0])


@pytest.mark.parametrize(
    "arguments",
    [
        ("loss", "min", {"patience": 3}),
        ("validation/loss", "lower", {"patience": 3}),
        ("validation/loss", "min", {"patience": 0}),
        ("validation/loss", "min", {"patience": True}),
        ("validation/loss", "min", {"patience": 3, "minimum_delta": -1.0}),
        ("validation/loss", "min", {"patience": 2.5}),
        ("validation/loss", "min", {"patience": NAN}),
        ("validation/loss", "min", {"patience": "3"}),
        ("validation/loss", "min", {"patience": 3, "minimum_delta": "0.1"}),
        ("validation/loss", "min", {"patience": 3, "minimum_delta": True}),
        (None, "min", {"patience": 3}),
        ("validation/loss", "min", {"patience": 3, "nan": "maybe"}),
    ],
)
def test_a_rule_without_meaning_is_refused(arguments: tuple[Any, Any, dict[str, Any]]) -> None:
    """When it is made, and not after the first epoch."""
    metric, direction, options = arguments
    with pytest.raises(InvalidStopping, match="has no meaning"):
        EarlyStopping(metric, direction, **options)
