"""Saving in the background: nothing is lost in silence."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from threading import Thread

import pytest

from tests.storage.disk import Disk, Slow, full
from tests.storage.models import Learner, advance, told
from torchsystem.errors import DiskFull, FolderInUse
from torchsystem.storage import Repository, SaveFailed


def test_the_caller_only_copies(tmp_path: Path) -> None:
    """It goes on while the disk is busy; what is written is the state at the call."""
    disk = Slow()
    with Repository(tmp_path, files=disk) as repository:
        learner = advance(Learner(), 1)
        assert repository.save(learner, wait=False) is None
        advance(learner, 2)
        assert disk.begun.wait(200)
        assert Repository(tmp_path).checkpoints(learner) == []
        disk.go.set()
        repository.flush()
        assert told(Repository(tmp_path).restore(Learner())) == {1.0}


def test_a_new_save_waits_for_the_one_being_written(tmp_path: Path) -> None:
    """And so does whoever reads through the same repository: they are in order, and all there."""
    with Repository(tmp_path) as repository:
        for epoch in range(1, 8):
            repository.save(advance(Learner(), epoch), wait=False)
        assert repository.restore(Learner()).epoch == 7
        assert [each.progress.epoch for each in repository.checkpoints(Learner())] == [*range(1, 8)]


@pytest.mark.parametrize("call", ["save", "flush", "close", "restore", "checkpoints"])
def test_a_failure_in_the_background_surfaces_as_itself(tmp_path: Path, call: str) -> None:
    """At the next call, once; the state before is as it was."""
    learner = advance(Learner(), 1)
    repository = Repository(tmp_path, files=Disk(fails_at=8, failure=full, for_good=False))
    repository.save(learner, wait=False)
    with pytest.raises(DiskFull, match="the disk is full"):
        getattr(repository, call)(*[learner] * (call not in ("flush", "close")))
    assert repository.save(learner) is not None
    repository.close()


def interrupt_who_waits(disk: Slow) -> None:
    """Interrupt the main thread as soon as it waits for what is being written."""
    main = threading.main_thread().ident
    assert main is not None
    while not any(frame.name == "settle" for frame in traceback.extract_stack(sys._current_frames()[main])):  # noqa: SLF001 - there is no other way to see it
        assert disk.begun.wait(200)
    signal.pthread_kill(main, signal.SIGINT)


def flush(repository: Repository, events: list[str]) -> None:
    """Wait for what is being written, and note when it was."""
    repository.flush()
    events.append("durable")


def test_an_interrupt_while_waiting_ends_no_save(tmp_path: Path) -> None:
    """Whoever waits is interrupted; what is written is written, and the next one who waits does wait."""
    disk, events = Slow(), list[str]()
    with Repository(tmp_path, files=disk) as repository:
        repository.save(advance(Learner(), 1), wait=False)
        interrupter = Thread(target=interrupt_who_waits, args=(disk,))
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            repository.flush()
        interrupter.join()
        waiter = Thread(target=flush, args=(repository, events))
        waiter.start()
        events.append("the disk goes on")
        disk.go.set()
        waiter.join()
    assert events == ["the disk goes on", "durable"]
    assert told(Repository(tmp_path).restore(Learner())) == {1.0}


def test_a_failure_surfaces_at_the_end_of_the_block(tmp_path: Path) -> None:
    """Whoever never calls again hears of it there."""
    disk = Disk(fails_at=8, failure=lambda: OSError(errno.EIO, "input or output"))
    with pytest.raises(OSError, match="input or output"), Repository(tmp_path, files=disk) as repository:
        repository.save(Learner(), wait=False)


def save_and_flush(repository: Repository, learner: Learner, *, wait: bool) -> None:
    """Save what cannot be saved."""
    assert repository.save(learner, wait=wait) is None
    repository.flush()


@pytest.mark.parametrize("wait", [True, False])
def test_a_run_can_go_on_and_says_it_at_every_save(tmp_path: Path, *, wait: bool) -> None:
    """`on_failure="continue"`: each save that fails is a warning, and each that does not is there."""
    learner = Learner()
    with Repository(tmp_path, on_failure="continue") as repository:
        repository.save(advance(learner, 1))
    with Repository(tmp_path, files=Disk(fails_at=5, failure=full), on_failure="continue") as repository:
        for epoch in (2, 3, 4):
            with pytest.warns(SaveFailed, match="no checkpoint was saved, and the run goes on without: the disk is"):
                save_and_flush(repository, advance(learner, epoch), wait=wait)
    assert told(Repository(tmp_path).restore(Learner())) == {1.0}


def test_a_folder_in_use_is_no_failure_of_the_disk(tmp_path: Path) -> None:
    """It is raised where it is noticed, whatever the policy."""
    folder = tmp_path / "default"
    folder.mkdir()
    (folder / ".lease-000001.json").write_text('{"host": "there", "machine": "", "pid": 1, "started": ""}')
    with Repository(tmp_path, on_failure="continue") as repository, pytest.raises(FolderInUse):
        repository.save(Learner(), wait=False)


PROGRAM = """
import atexit, errno, signal, sys, threading, time
from torch import nn
from torchsystem.storage import Repository
from torchsystem.storage.ports import LocalFiles

waits, interrupted = threading.Event(), threading.Event()

class Files(LocalFiles):
    def write(self, path, chunks):
        if sys.argv[3] == "interrupted" and not interrupted.is_set():
            waits.wait()
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            interrupted.wait()
        time.sleep(0.1)
        if sys.argv[2] == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(path, chunks)

def save():
    repository.save(nn.Linear(1, 1), wait=False)

repository = Repository(sys.argv[1], files=Files())
if sys.argv[3] == "after the end":
    atexit.register(save)
else:
    save()
print("the end", flush=True)
if sys.argv[3] == "interrupted":
    try:
        waits.set()
        repository.flush()
    except KeyboardInterrupt:
        interrupted.set()
"""


@pytest.mark.parametrize(
    ("disk", "when"),
    [("well", "at the end"), ("full", "at the end"), ("well", "after the end"), ("well", "interrupted")],
)
def test_at_exit_what_is_not_written_is_finished_or_said(tmp_path: Path, disk: str, when: str) -> None:
    """The interpreter waits; and a failure that nobody could see any more is on the standard error."""
    done = subprocess.run(  # noqa: S603 - our own text
        [sys.executable, "-c", PROGRAM, tmp_path, disk, when], capture_output=True, text=True, check=False
    )
    assert done.stdout == "the end\n"
    there = Repository(tmp_path).checkpoints(id="linear")
    if disk == "well":
        assert len(there) == 1
        assert done.stderr == ""
    else:
        assert there == []
        assert "was not saved: the disk is full" in done.stderr
    assert [path.suffix for path in (tmp_path / "default").glob(".lease*")] == [".free"]
