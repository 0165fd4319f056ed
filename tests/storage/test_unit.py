"""A unit of work: events and state together, or neither."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tests.storage.disk import Disk
from tests.storage.models import Learner, advance, told
from torchsystem.errors import InvalidUnit, UnitOver
from torchsystem.services import Consumer, Producer
from torchsystem.storage import Repository
from torchsystem.storage.saving import FailurePolicy


def hearing() -> tuple[Producer, list[Any]]:
    """Return a producer, and the list of what was heard."""
    heard: list[Any] = []
    consumer, producer = Consumer("writer"), Producer()

    @consumer.handler
    def hear(event: str) -> None:
        heard.append(event)

    producer.register(consumer)
    return producer, heard


def test_events_leave_and_state_is_stored_on_commit(tmp_path: Path) -> None:
    """Not before, and in order: the unit's, then the aggregate's own; when they are heard the state is stored."""
    producer, heard = hearing()
    learner = Learner()
    learner.events.handlers[ValueError] = lambda: heard.append("own")
    with Repository(tmp_path) as repository:
        with repository.unit(learner, producer, metrics={"validation/loss": 0.5}) as unit:
            advance(learner, 1)
            unit.dispatch("first")
            learner.events.enqueue(ValueError)
            unit.dispatch("second")
            assert (heard, repository.checkpoints(learner)) == ([], [])
            unit.commit()
            assert heard == ["first", "second", "own"]
        (stored,) = repository.checkpoints(learner)
        assert stored.metrics == {"validation/loss": 0.5}
        assert told(repository.restore(Learner())) == {1.0}


def test_leaving_the_block_commits(tmp_path: Path) -> None:
    """What was not committed; and nothing twice."""
    producer, heard = hearing()
    learner = Learner()
    with Repository(tmp_path) as repository:
        with repository.unit(learner, producer) as unit:
            unit.dispatch("only an event")
        with repository.unit(learner, producer) as unit:
            advance(learner, 2)
            unit.commit()
            advance(learner, 3)
        with repository.unit(learner, producer) as unit:
            advance(learner, 4)
            unit.commit()
        assert heard == ["only an event"]
        assert [each.progress.epoch for each in repository.checkpoints(learner)] == [0, 2, 3, 4]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_on_an_error_both_are_dropped_and_the_aggregate_is_as_it_was(
    tmp_path: Path, error: type[BaseException]
) -> None:
    """State, events of the unit, and the queue of the aggregate; no hook runs, and the error goes on."""
    producer, heard = hearing()
    learner = advance(Learner(), 1)
    learner.events.enqueue("before")
    with Repository(tmp_path) as repository:
        with pytest.raises(error), repository.unit(learner, producer) as unit:
            advance(learner, 2)
            learner.phase = "evaluation"
            learner.events.enqueue("own")
            unit.dispatch("event")
            raise error
        assert repository.checkpoints(learner) == []
    assert told(learner) == {1.0}
    assert learner.phase == "train"
    assert list(learner.events.queue) == ["before"]
    assert heard == []


def test_an_error_undoes_what_came_after_the_last_commit(tmp_path: Path) -> None:
    """What was committed is, and was heard."""
    producer, heard = hearing()
    learner = Learner()
    with Repository(tmp_path) as repository:
        with pytest.raises(RuntimeError), repository.unit(learner, producer) as unit:
            unit.dispatch("one")
            advance(learner, 1)
            unit.commit()
            unit.dispatch("two")
            advance(learner, 2)
            raise RuntimeError
        assert (told(learner), heard) == ({1.0}, ["one"])
        assert told(repository.restore(Learner())) == {1.0}


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_a_state_that_cannot_be_stored_lets_no_event_leave(tmp_path: Path, policy: FailurePolicy) -> None:
    """Whatever the policy is for saves alone; and the aggregate is as it was."""
    producer, heard = hearing()
    learner = advance(Learner(), 1)
    disk = Disk(fails_at=3, failure=lambda: OSError(errno.EIO, "input or output"), for_good=False)
    with Repository(tmp_path, files=disk, on_failure=policy) as repository:
        with pytest.raises(OSError, match="input or output"), repository.unit(learner, producer) as unit:
            advance(learner, 2)
            unit.dispatch("event")
        assert repository.checkpoints(learner) == []
    assert (told(learner), heard) == ({1.0}, [])


def test_a_listener_that_fails_undoes_nothing(tmp_path: Path) -> None:
    """The state is stored when events leave; a request to stop goes on as itself."""
    producer, _ = hearing()
    learner = Learner()
    learner.events.enqueue(StopIteration("enough"))
    with Repository(tmp_path) as repository:
        with pytest.raises(StopIteration, match="enough"), repository.unit(learner, producer):
            advance(learner, 1)
        assert told(repository.restore(Learner())) == {1.0}
    assert told(learner) == {1.0}


def test_it_can_be_rolled_back_by_hand(tmp_path: Path) -> None:
    """And used from there."""
    producer, heard = hearing()
    learner = advance(Learner(), 1)
    with Repository(tmp_path) as repository:
        with repository.unit(learner, producer) as unit:
            advance(learner, 2)
            unit.dispatch("two")
            unit.rollback()
            assert told(learner) == {1.0}
            unit.dispatch("three")
        assert told(repository.restore(Learner())) == {1.0}
    assert heard == ["three"]


def test_outside_its_block_it_is_over(tmp_path: Path) -> None:
    """Before and after."""
    producer, _ = hearing()
    with Repository(tmp_path) as repository:
        unit = repository.unit(Learner(), producer)
        for call in (unit.commit, unit.rollback, lambda: unit.dispatch("event")):
            with pytest.raises(UnitOver, match="used in its block"):
                call()
        with unit, pytest.raises(UnitOver, match="has begun already"):
            unit.__enter__()


@pytest.mark.parametrize(("aggregate", "producer"), [(nn.Linear(1, 1), Producer()), (Learner(), None)], ids=str)
def test_what_is_no_aggregate_or_no_producer_is_refused(tmp_path: Path, aggregate: Any, producer: Any) -> None:
    """When the unit is made, before anything is stored."""
    with pytest.raises(InvalidUnit, match="an aggregate, and a producer"):
        Repository(tmp_path).unit(aggregate, producer)
