"""Alerts: bounds, crossings, memory, and names that are misspelled."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.fakes import Learner, loader
from torchsystem.adapters.alert import Alert, Alerted
from torchsystem.errors import InvalidAlert, InvalidMetric, InvalidState
from torchsystem.progress import Progress
from torchsystem.services import Consumer
from torchsystem.training import Training, device
from torchsystem.training.events import BatchEnded, EpochEnded, TrainingEnded

VALUES = st.lists(st.floats(-2, 2) | st.just(math.nan) | st.just(math.inf), max_size=20)


def ended(epoch: int, metrics: dict[str, float]) -> EpochEnded:
    """Say that an epoch is over."""
    return EpochEnded(Learner(), Progress(epoch=epoch), metrics)


def alarms(alert: Alert, values: list[float], *, first: int = 1) -> list[int]:
    """Return the epochs in which an alert gives the alarm."""
    told: list[Alerted] = []
    alert.tell = told.append
    for epoch, value in enumerate(values, start=first):
        alert.consume(ended(epoch, {"train/loss": value}))
    return [alerted.progress.epoch for alerted in told]


def simple(values: list[float], bound: float, *, above: bool) -> list[int]:
    """Say the same by looking at each value and the one before."""
    out = [not (value <= bound if above else value >= bound) for value in values]
    return [epoch for epoch, now in enumerate(out, start=1) if now and not (epoch > 1 and out[epoch - 2])]


@given(VALUES, st.floats(-1, 1), st.booleans())
@settings(max_examples=40)
def test_the_alarm_is_given_once_per_crossing(values: list[float], bound: float, above: bool) -> None:  # noqa: FBT001
    """Whenever the metric gets out of bounds, and not again until it was within; NaN is in no bounds."""
    alert = Alert("train/loss", above=bound) if above else Alert("train/loss", below=bound)
    assert alarms(alert, values) == simple(values, bound, above=above)


@given(VALUES, st.integers(0, 20))
@settings(max_examples=40)
def test_a_run_that_goes_on_does_not_give_the_alarm_again(values: list[float], cut: int) -> None:
    """Whether the alarm was given is its state: cutting a run anywhere changes nothing."""
    first, second = Alert("train/loss", above=0.5), Alert("train/loss", above=0.5)
    early = alarms(first, values[:cut])
    second.load_state_dict(first.state_dict())
    late = alarms(second, values[cut:], first=len(values[:cut]) + 1)
    assert early + late == alarms(Alert("train/loss", above=0.5), values)


def test_the_alarm_is_a_warning_and_an_event_for_whom_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """`tell=producer.dispatch` lets any listener hear of it, in the midst of the training."""
    training, heard = Training(), []
    training.override(device, lambda: "cpu")
    listener = Consumer("listener")

    @listener.handler
    def hear(event: Alerted) -> None:
        heard.append(str(event))

    training.producer.register(Alert("train/loss", below=100.0, tell=training.producer.dispatch), listener)
    assert not training.producer.wants(BatchEnded)
    with caplog.at_level(logging.WARNING):
        training.handle("fit", Learner(), {"train": loader()}, epochs=3)
    assert len(heard) == 1
    assert heard[0].startswith("train/loss is 0.")
    assert heard[0].endswith(", below 100, after epoch 1")
    assert [record.getMessage() for record in caplog.records if record.name.endswith("alert")] == heard


def test_a_value_that_is_not_a_number_is_said_to_be_so() -> None:
    """It is neither above nor below, and yet nothing to be silent about."""
    told: list[Any] = []
    Alert("train/loss", above=1.0, tell=told.append).consume(ended(4, {"train/loss": math.nan}))
    assert [str(alerted) for alerted in told] == ["train/loss is not a number, after epoch 4"]


def test_a_metric_that_is_not_there_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Once at the beginning, since it may come yet, and at the end if it never did."""
    alert = Alert("validation/los", above=1.0)
    with caplog.at_level(logging.WARNING):
        for epoch in (1, 2):
            alert.consume(ended(epoch, {"train/loss": 1.0, "validation/loss": 1.0}))
        alert.consume(TrainingEnded(Learner(), Progress(epoch=2), "over"))
    first, last = (record.getMessage() for record in caplog.records)
    assert "no 'validation/los'. Its metrics are: train/loss, validation/loss" in first
    assert "watched over nothing" in last
    caplog.clear()
    alert.consume(ended(3, {"validation/los": 0.5}))
    alert.consume(TrainingEnded(Learner(), Progress(epoch=3), "over"))
    assert caplog.records == []


@pytest.mark.parametrize("value", ["text", None, 10**400, [1.0]])
def test_a_metric_that_is_no_number_is_named(value: Any) -> None:
    """It is neither within bounds nor out of them."""
    with pytest.raises(InvalidMetric, match="'train/loss' is reported as"):
        Alert("train/loss", above=1.0).consume(ended(1, {"train/loss": value}))


def test_two_alerts_on_one_metric_have_two_names() -> None:
    """Their states are saved by name."""
    names = {Alert("train/loss", above=1).name, Alert("train/loss", above=2).name, Alert("train/loss", below=1).name}
    assert len(names) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        {"metric": "loss", "above": 1},
        {"metric": "train/loss"},
        {"metric": "train/loss", "above": 1, "below": 0},
        {"metric": "train/loss", "above": math.nan},
        {"metric": "train/loss", "below": True},
        {"metric": "train/loss", "below": 1, "tell": "me"},
    ],
)
def test_what_has_no_meaning_is_refused(arguments: dict[str, Any]) -> None:
    """An alert that could never be given is an error where it is made."""
    with pytest.raises(InvalidAlert, match="has no meaning"):
        Alert(**arguments)


def test_the_state_of_another_is_refused() -> None:
    """Nothing is changed then."""
    alert = Alert("train/loss", above=1.0)
    with pytest.raises(InvalidState, match="alert on train/loss"):
        alert.load_state_dict({"handlers": {}})
