"""Which checkpoints stay: never less than was promised, and never none."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.disk import Disk
from tests.storage.models import Learner, advance
from torchsystem.errors import BrokenCheckpoint, InvalidRetention
from torchsystem.progress import Progress
from torchsystem.storage import Checkpoint, Repository, Retention, UnknownBest

ACCURACY = "validation/accuracy"


def checkpoint(number: int, value: float | None) -> Checkpoint:
    """Make a checkpoint that lies nowhere."""
    return Checkpoint(
        folder=Path(f"{number:06}"),
        number=number,
        id="learner",
        run="default",
        created=datetime.now(UTC),
        progress=Progress(),
        metrics={} if value is None else {ACCURACY: value},
        metadata={},
        parts={},
    )


values = st.lists(st.one_of(st.none(), st.sampled_from([0.1, 0.2, 0.3, math.nan, -math.inf, math.inf])), max_size=12)


@given(values, st.one_of(st.none(), st.integers(1, 4)), st.sampled_from([None, "min", "max"]))
def test_what_stays_is_the_last_and_the_best(metrics: list[float | None], last: int | None, best: Any) -> None:
    """The newest are kept, and the first of those with the best value, whatever came in which order."""
    retention = Retention(keep_last=last, keep_best=None if best is None else (ACCURACY, best))
    there: list[Checkpoint] = []
    for number, value in enumerate(metrics, start=1):
        there.append(checkpoint(number, value))
        gone = retention.superfluous(there)
        there = [each for each in there if each not in gone]

    if last is None:
        assert len(there) == len(metrics)
        return
    expected = set(range(max(1, len(metrics) - last + 1), len(metrics) + 1))
    told = [
        (value, number) for number, value in enumerate(metrics, start=1) if value is not None and not math.isnan(value)
    ]
    if best is not None and told:
        extreme = (max if best == "max" else min)(value for value, _ in told)
        expected.add(min(number for value, number in told if value == extreme))
    assert {each.number for each in there} == expected


@pytest.mark.parametrize(
    "options",
    [
        {"keep_last": 0},
        {"keep_last": True},
        {"keep_last": 1.0},
        {"keep_best": "validation/accuracy"},
        {"keep_best": ("validation/accuracy", "highest")},
        {"keep_best": ("validation/accuracy",)},
    ],
    ids=repr,
)
def test_a_rule_without_meaning_is_refused(options: dict[str, Any]) -> None:
    """When it is made."""
    with pytest.raises(InvalidRetention, match="has no meaning"):
        Retention(**options)


def test_files_come_and_go_as_the_rule_says(tmp_path: Path) -> None:
    """In the background too, and the best is the one whose own epoch was the best."""
    accuracies = [0.5, 0.9, 0.7, 0.8, 0.6]
    with Repository(tmp_path, retention=Retention(keep_last=2, keep_best=(ACCURACY, "max"))) as repository:
        for epoch, accuracy in enumerate(accuracies, start=1):
            repository.save(advance(Learner(), epoch), metrics={ACCURACY: accuracy}, wait=False)
        kept = repository.verify(Learner())
    assert [(each.progress.epoch, each.metrics[ACCURACY]) for each in kept] == [(2, 0.9), (4, 0.8), (5, 0.6)]
    assert Repository(tmp_path).restore(Learner(), checkpoint=2).epoch == 2


def test_a_save_may_have_a_rule_of_its_own(tmp_path: Path) -> None:
    """It holds for that save."""
    with Repository(tmp_path) as repository:
        for epoch in (1, 2, 3):
            repository.save(advance(Learner(), epoch))
        repository.save(advance(Learner(), 4), retention=Retention(keep_last=2))
        assert [each.number for each in repository.checkpoints(Learner())] == [3, 4]


class Liar(Disk):
    """A disk that writes something else than it was given, and says that all is well."""

    def write(self, path: Path, chunks: Any) -> None:
        super().write(path, chunks)
        if path.name == "state.json":
            path.write_bytes(path.read_bytes()[:-1] + b" ")


def test_nothing_is_removed_before_its_successor_was_read_back(tmp_path: Path) -> None:
    """A disk that lies is found out, and the last verified one stays."""
    with Repository(tmp_path) as repository:
        repository.save(advance(Learner(), 1))
    with Repository(tmp_path, files=Liar(), retention=Retention(keep_last=1)) as repository:
        with pytest.raises(BrokenCheckpoint, match=r"state\.json was changed"):
            repository.save(advance(Learner(), 2))
        assert [each.number for each in repository.checkpoints(Learner())] == [1, 2]
        assert repository.restore(Learner(), checkpoint=1).epoch == 1


def test_a_metric_that_never_came_is_said(tmp_path: Path) -> None:
    """A misspelled name would let the best go; a save in the middle of an epoch has none, which is no mistake."""
    with Repository(tmp_path, retention=Retention(keep_last=1, keep_best=(ACCURACY, "max"))) as repository:
        repository.save(Learner())
        with pytest.warns(UnknownBest, match=r"no checkpoint of learner has.*of this one are: validation/acuracy"):
            repository.save(Learner(), metrics={"validation/acuracy": 0.5})
        repository.save(Learner(), metrics={ACCURACY: 0.5})
        repository.save(Learner(), metrics={"train/loss": 0.1})
