"""One writer: who comes second is refused, and takes over only from who is gone."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.models import Learner, advance
from torchsystem.errors import FolderInUse, LeaseLost
from torchsystem.services.owners import Owner, is_running, this_process
from torchsystem.storage import Repository
from torchsystem.storage.lease import Lease


class World:
    """A clock, and processes that run until they are said to be gone."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.gone: set[Owner] = set()

    def clock(self) -> float:
        return self.now

    def lease(self, folder: Path, owner: Owner, seen_from: str = "here") -> Lease:
        """Make the lease of a process, which knows of processes on its own host alone."""

        def runs(other: Owner) -> bool | None:
            return other not in self.gone if other.host == seen_from else None

        return Lease(folder, clock=self.clock, me=lambda: owner, runs=runs, lapse=60)


def owner(pid: int, host: str = "here") -> Owner:
    """Make a process."""
    return Owner(host, "machine", pid, "start")


def test_a_second_process_is_refused_naming_the_first(tmp_path: Path) -> None:
    """As long as the first one runs, however long it was silent."""
    world = World()
    first, second = world.lease(tmp_path, owner(1)), world.lease(tmp_path, owner(2))
    assert first.take()
    world.now += 1e6
    with pytest.raises(FolderInUse, match="is written by process 1 on here"):
        second.take()
    first.check()


def test_who_has_it_has_it(tmp_path: Path) -> None:
    """Taking it again changes nothing; another part of the same process shares it."""
    world = World()
    first, again = world.lease(tmp_path, owner(1)), world.lease(tmp_path, owner(1))
    assert [first.take(), first.take(), again.take()] == [True, False, False]
    first.release()
    again.check()
    with pytest.raises(FolderInUse):
        world.lease(tmp_path, owner(2)).take()


def test_a_dead_owner_on_this_host_is_taken_over_at_once(tmp_path: Path) -> None:
    """And finds, should it wake up after all, that it lost the folder."""
    world = World()
    first, second = world.lease(tmp_path, owner(1)), world.lease(tmp_path, owner(2))
    first.take()
    world.gone.add(owner(1))
    assert second.take()
    second.check()
    with pytest.raises(LeaseLost, match="taken over by process 2 on here"):
        first.check()


def test_a_dead_owner_elsewhere_is_taken_over_when_its_heartbeat_lapses(tmp_path: Path) -> None:
    """Not before: from here nobody can tell a dead process from a slow one."""
    world = World()
    first = world.lease(tmp_path, owner(1, "there"), "there")
    second = world.lease(tmp_path, owner(2))
    first.take()
    world.now += 59
    with pytest.raises(FolderInUse, match=r"silent for 59 seconds; after 60 it is taken for dead"):
        second.take()
    first.beat()
    world.now += 59
    with pytest.raises(FolderInUse):
        second.take()
    world.now += 1
    assert second.take()
    first.beat()
    with pytest.raises(LeaseLost):
        first.check()


def test_it_is_free_when_it_was_released(tmp_path: Path) -> None:
    """At once, for anybody."""
    world = World()
    first, second = world.lease(tmp_path, owner(1, "there"), "there"), world.lease(tmp_path, owner(2))
    first.take()
    first.release()
    assert second.take()
    with pytest.raises(LeaseLost):
        first.check()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_lease_that_somebody_removed_is_taken_again(tmp_path: Path) -> None:
    """Nobody else has it; and if somebody takes it meanwhile, that one has it."""
    world = World()
    first = world.lease(tmp_path, owner(1))
    first.take()
    for path in tmp_path.iterdir():
        path.unlink()
    first.check()
    with pytest.raises(FolderInUse):
        world.lease(tmp_path, owner(2)).take()
    for path in tmp_path.iterdir():
        path.unlink()
    assert world.lease(tmp_path, owner(2)).take()
    with pytest.raises(LeaseLost):
        first.check()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_lease_that_is_being_written_is_held(tmp_path: Path, text: str) -> None:
    """On a file system without links one may be seen half; it lapses as any other."""
    world = World()
    path = tmp_path / ".lease-000001.json"
    path.write_text(text)
    os.utime(path, (world.now, world.now))
    with pytest.raises(FolderInUse, match="a process that is just taking it"):
        world.lease(tmp_path, owner(2)).take()
    world.now += 60
    assert world.lease(tmp_path, owner(2)).take()


def attempt(results: list[str], number: int, lease: Lease, together: Callable[[], object]) -> None:
    """Try to take a lease, and note what came of it."""
    together()
    try:
        lease.take()
        results[number] = "taken"
    except FolderInUse:
        results[number] = "refused"


@settings(max_examples=30)
@given(st.integers(2, 6), st.sampled_from(["nobody", "dead", "freed"]))
def test_of_several_takers_one_has_it(tmp_path_factory: pytest.TempPathFactory, takers: int, before: str) -> None:
    """Whoever was there before."""
    folder = tmp_path_factory.mktemp("race")
    world = World()
    if before != "nobody":
        first = world.lease(folder, owner(0))
        first.take()
        world.gone.add(owner(0))
        if before == "freed":
            first.release()
    results = [""] * takers
    barrier = Barrier(takers)
    threads = [
        Thread(target=attempt, args=(results, number, world.lease(folder, owner(number + 1)), barrier.wait))
        for number in range(takers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["refused"] * (takers - 1) + ["taken"]
    assert len([path for path in folder.iterdir() if path.suffix == ".json"]) == 1


def test_a_number_that_was_freed_meanwhile_is_not_taken_again(tmp_path: Path) -> None:
    """A third one may have seen it free, and take the next: both would hold the folder."""
    world = World()
    quick = world.lease(tmp_path, owner(1))

    def slow() -> Owner:
        if not list(tmp_path.iterdir()):
            quick.take()
            quick.release()
        return owner(2)

    lease = Lease(tmp_path, clock=world.clock, me=slow, runs=lambda _: True)
    assert lease.take()
    lease.check()
    assert [path.name for path in tmp_path.iterdir()] == [".lease-000002.json"]


def test_a_process_is_told_from_a_later_one_of_its_number() -> None:
    """By when it began."""
    me = this_process()
    assert is_running(me) is True
    assert is_running(Owner(me.host, me.machine, me.pid, "0")) is False
    assert is_running(Owner("elsewhere", me.machine, me.pid, me.started)) is None


def test_a_process_that_is_hidden_is_not_taken_for_dead(tmp_path: Path) -> None:
    """Machines may hide the processes of others; that there is one can still be told."""
    me = this_process()
    assert is_running(me, processes=tmp_path) is True
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert is_running(Owner(me.host, me.machine, process.pid, "1"), processes=tmp_path) is False


RENAMED = """
import socket
from torchsystem.services.owners import is_running, this_process
before = this_process()
socket.gethostname = lambda: "elsewhere"
print(before == this_process(), is_running(before))
"""


def test_a_process_stays_who_it_is_when_its_machine_gets_another_name() -> None:
    """As laptops do in every network; otherwise it would lose what it holds."""
    done = subprocess.run(  # noqa: S603 - our own text
        [sys.executable, "-c", RENAMED], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True True\n"


HOLDER = """
import sys
from torch import nn
from torchsystem.storage import Repository
repository = Repository(sys.argv[1])
repository.save(nn.Linear(1, 1))
print("ready", flush=True)
sys.stdin.readline()
"""


def test_real_processes_keep_to_it(tmp_path: Path) -> None:
    """One that runs refuses others; one that was killed, and is not even waited for, does not."""
    with subprocess.Popen(  # noqa: S603 - our own text
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        learner = advance(Learner(), 1)
        repository = Repository(tmp_path)
        with pytest.raises(FolderInUse, match=f"process {process.pid} on"):
            repository.claim()
        with pytest.raises(FolderInUse):
            repository.save(learner)
        assert repository.restore(learner) is learner  # reading needs no lease
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert repository.save(learner) is not None
        repository.close()


def in_child(repository: Repository) -> None:
    """Try to save, in the child of a fork."""
    try:
        repository.save(Learner())
    except FolderInUse:
        os._exit(17)
    os._exit(0)


def test_a_child_of_a_fork_is_another_process(tmp_path: Path) -> None:
    """It does not share what its parent holds, and its end takes nothing away."""
    with Repository(tmp_path) as repository:
        repository.save(Learner())
        child = multiprocessing.get_context("fork").Process(target=in_child, args=(repository,))
        child.start()
        child.join()
        assert child.exitcode == 17
        assert repository.save(Learner()) is not None


def test_what_killed_takers_have_left_is_removed(tmp_path: Path) -> None:
    """When it is old; others may be taking it right now."""
    world = World()
    for name, age in (("old", 60), ("new", 59)):
        draft = tmp_path / f".lease-{name}.draft"
        draft.touch()
        os.utime(draft, (world.now - age, world.now - age))
    assert world.lease(tmp_path, owner(1)).take()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lease-000001.json", ".lease-new.draft"]


def test_the_file_says_who_it_is(tmp_path: Path) -> None:
    """For whoever looks into the folder."""
    with Repository(tmp_path) as repository:
        repository.claim()
        (path,) = (tmp_path / "default").iterdir()
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert [path.suffix for path in (tmp_path / "default").iterdir()] == [".free"]
