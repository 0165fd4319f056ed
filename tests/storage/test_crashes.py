"""A crash at any write, rename and sync: what is left is always a newest state that loads."""

from __future__ import annotations

import errno
import random
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.disk import Disk, PowerLoss, full
from tests.storage.models import Learner, advance, told
from torchsystem.errors import DiskFull
from torchsystem.storage import Repository, Retention

KEEP_ONE = Retention(keep_last=1)
STEPS = 24  # that a save takes which removes the one before; tested below
LANDED = 14  # of them come before the manifest gets its name


def saved(root: Path, disk: Disk, epoch: int) -> bool:
    """Save a state as a process would that may be cut off; tell whether it was told that it survives."""
    repository = Repository(root, files=disk, retention=KEEP_ONE)
    try:
        return repository.save(advance(Learner(), epoch)) is not None
    except PowerLoss:
        return False
    finally:
        repository._writer._tenancy.leave(repository._writer)  # noqa: SLF001 - a process that is gone holds nothing


def restored(root: Path) -> set[float]:
    """Return what the newest state says."""
    learner = Repository(root).restore(advance(Learner(), 0))
    return told(learner)


def leftovers(root: Path) -> list[str]:
    """Name what no save should leave behind."""
    return [
        path.name for path in root.rglob("*") if path.name.startswith((".saving", ".deleting")) or "draft" in path.name
    ]


def test_the_steps_of_a_save_are_all_tried(tmp_path: Path) -> None:
    """The number of steps below is the real one."""
    disk = Disk()
    assert saved(tmp_path, Disk(), 1)
    assert saved(tmp_path, disk, 2)
    assert len(disk.done) == STEPS, disk.done
    assert disk.done.index("rename manifest.draft") == LANDED


@pytest.mark.parametrize("step", range(STEPS + 1))
@pytest.mark.parametrize("survival", ["everything", "nothing"])
@pytest.mark.parametrize("before", [0, 1])
def test_a_crash_at_any_step_leaves_a_newest_state_that_loads(
    tmp_path: Path, step: int, survival: str, before: int
) -> None:
    """Whether the process was killed (everything survives) or the machine lost power (nothing that was not synced)."""
    if before:
        assert saved(tmp_path, Disk(), before)
    disk = Disk(fails_at=step)
    sure = saved(tmp_path, disk, before + 1)
    disk.lose(tmp_path, survives=lambda: survival == "everything")
    assert restored(tmp_path) in ([{before + 1.0}] if sure else [{float(before)}, {before + 1.0}])
    assert saved(tmp_path, Disk(), before + 2)
    assert restored(tmp_path) == {before + 2.0}
    assert leftovers(tmp_path) == []


@settings(max_examples=60)
@given(st.lists(st.integers(0, STEPS), min_size=1, max_size=4), st.integers(0, 2**32))
def test_several_crashes_in_a_row_lose_nothing_that_was_sure(steps: list[int], seed: int) -> None:
    """Of what was not synced, any part may survive; what `save` returned for is there."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    with TemporaryDirectory() as folder:
        root, sure = Path(folder), 0.0
        for number, step in enumerate(steps, start=1):
            disk = Disk(fails_at=step)
            if saved(root, disk, number):
                sure = number
            disk.lose(root, survives=lambda: chance.random() < 0.5)
            (found,) = restored(root)
            assert sure <= found <= number
            sure = found
            Repository(root).verify(Learner())  # nor is anything older that is still there in pieces
        assert saved(root, Disk(), 9)
        assert restored(root) == {9.0}
        assert leftovers(root) == []


@pytest.mark.parametrize("step", range(LANDED + 1))
def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path: Path, step: int) -> None:
    """At whichever step it is full: the error says so, the state before is there, and nothing half is left."""
    assert saved(tmp_path, Disk(), 1)
    with Repository(tmp_path, files=Disk(fails_at=step, failure=full, for_good=False)) as repository:
        learner = advance(Learner(), 2)
        with pytest.raises(DiskFull, match="the disk is full") as caught:
            repository.save(learner)
        assert isinstance(caught.value, OSError)
        assert caught.value.errno == errno.ENOSPC
        assert restored(tmp_path) == {1.0}
        assert leftovers(tmp_path) == []
        assert repository.save(advance(learner, 3)) is not None
    assert restored(tmp_path) == {3.0}
