"""Learning rates: what each batch was learned with, once and without gaps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim, tensor

from tests.adapters.boards import learner, loaders, network, resumed, take_turns, training
from tests.training.fakes import Learner
from torchsystem import Aggregate
from torchsystem.adapters.learning_rate import LearningRate, Rate
from torchsystem.errors import InvalidState, MissingOptimizer
from torchsystem.progress import Progress
from torchsystem.training import Optimization, Supervised
from torchsystem.training.events import BatchStarted, EpochStarted, ProcessStarted
from torchsystem.triggers import Trigger, every


def test_it_records_what_each_epoch_begins_with() -> None:
    """The rate that its batches are learned with, not the one that the scheduler leaves at its end."""
    rates = LearningRate()
    training(rates).fit(learner(), loaders(3), epochs=3)
    assert rates.records == [
        Rate(0, 0, 0, "optimizer", 0, 0.5),
        Rate(1, 3, 3, "optimizer", 0, 0.25),
        Rate(2, 6, 6, "optimizer", 0, 0.125),
    ]
    assert rates.of("optimizer") == [0.5, 0.25, 0.125]


def test_it_records_within_epochs_when_a_trigger_says() -> None:
    """Schedulers that count steps are seen as they are, warm-up included."""
    layers = network()
    optimizer = optim.SGD(layers.parameters(), lr=1.0)
    model = Supervised(layers, nn.CrossEntropyLoss(), Optimization(optimizer, warmup=4))
    rates = LearningRate(every(1, "batches") | every(1, "epochs"))
    training(rates).fit(model, loaders(6), epochs=1)
    assert rates.of() == [0.5, 0.75, 1.0, 1.0, 1.0]


@given(st.integers(1, 4), st.integers(0, 3), st.sampled_from([None, every(2, "batches")]))
@settings(max_examples=8)
def test_a_resumed_run_has_neither_gaps_nor_doubles(kept: int, lost: int, when: Trigger | None) -> None:
    """In another process, and in the same one, however far it had come."""
    alone, first, second = (LearningRate(when) for _ in range(3))
    snapshot = take_turns(alone, first, second, kept=kept, lost=lost)
    assert second.records == alone.records
    if when is None:
        training(first).fit(resumed(snapshot), loaders(3), epochs=6)
        assert first.records == alone.records


def test_another_run_begins_anew() -> None:
    """What was recorded of the first is not taken for the second's."""
    rates = LearningRate()
    training(rates).fit(learner(), loaders(3), epochs=2)
    training(rates).fit(learner(), loaders(3), epochs=1)
    assert rates.of() == [0.5]


def test_optimizers_are_found_wherever_they_are() -> None:
    """Plain ones, in collections, several of one optimization, and tensors for rates."""
    model: Any = Aggregate()
    model.one, model.two = nn.Linear(1, 1), nn.Linear(1, 1)
    model.critics = [optim.SGD(model.one.parameters(), lr=0.125)]
    model.optimization = Optimization(
        {"a": optim.SGD(model.two.parameters(), lr=tensor(0.25)), "b": optim.SGD(model.one.parameters(), lr=0.75)}
    )
    rates = LearningRate()
    rates.consume(EpochStarted(model, Progress()))
    found = sorted((each.optimizer, each.value) for each in rates.records)
    assert found == [("a", 0.25), ("b", 0.75), ("critics.0", 0.125)]


def test_those_of_an_aggregate_inside_are_recorded_too() -> None:
    """What learns there learns at a rate."""
    whole: Any = Aggregate()
    whole.part = Supervised(network := nn.Linear(1, 1), nn.MSELoss(), optim.SGD(network.parameters(), lr=0.25))
    whole.other = nn.Linear(1, 1)
    whole.other.optimizer = optim.SGD(whole.other.parameters(), lr=0.5)
    rates = LearningRate()
    rates.consume(EpochStarted(whole, Progress()))
    assert {(each.optimizer, each.value) for each in rates.records} == {("optimizer", 0.25), ("other.optimizer", 0.5)}


def test_an_optimizer_that_is_held_beside_its_optimization_is_one() -> None:
    """Its rate is recorded once, as the optimization knows it: warm-up included."""
    model: Any = Aggregate()
    model.nn = nn.Linear(1, 1)
    model.optimizer = optim.SGD(model.nn.parameters(), lr=0.5)
    model.optimization = Optimization(model.optimizer, warmup=2)
    rates = LearningRate()
    rates.consume(EpochStarted(model, Progress()))
    assert [(each.optimizer, each.value) for each in rates.records] == [("optimizer", 0.25)]


def test_two_of_one_name_are_told_apart() -> None:
    """An optimizer does not hide behind another."""
    model: Any = Aggregate()
    model.one, model.two = nn.Linear(1, 1), nn.Linear(1, 1)
    model.first = Optimization(optim.SGD(model.one.parameters(), lr=0.25))
    model.second = Optimization(optim.SGD(model.two.parameters(), lr=0.5))
    rates = LearningRate()
    rates.consume(EpochStarted(model, Progress()))
    assert [(each.optimizer, each.value) for each in rates.records] == [("optimizer", 0.25), ("second.optimizer", 0.5)]


def test_an_aggregate_without_optimizer_is_named() -> None:
    """Nothing would ever be recorded."""
    with pytest.raises(MissingOptimizer, match="Aggregate has no optimizer among its attributes"):
        LearningRate().consume(ProcessStarted(Aggregate(), Progress()))
    LearningRate().consume(ProcessStarted(Learner(), Progress()))


def test_the_state_of_something_else_is_refused() -> None:
    """And nothing is changed."""
    rates = LearningRate(every(1, "batches"))
    rates.consume(BatchStarted(learner(), Progress(batch=3), None))
    before = rates.state_dict()
    for state in ({"handlers": {}}, {"handlers": {}, "records": [[1]]}, {"handlers": {}, "records": []}):
        with pytest.raises(InvalidState):
            rates.load_state_dict(state)
    assert rates.state_dict() == before
