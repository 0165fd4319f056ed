"""The lease: one runner at a time, and the next takes over when it is dead."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.plans.fakes import Calls, Clock
from torchsystem.errors import PlanBusy, PlanTakenOver
from torchsystem.plans import Journal, MemoryJournal, Retry
from torchsystem.plans.workers import Worker, acting

if TYPE_CHECKING:
    from pathlib import Path

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when a process started")


def me(**changes: Any) -> Worker:
    """Return a worker that this process was, and is no more; or one of another process."""
    with acting() as worker:
        return of(Worker.read(worker), **changes)


def of(worker: Worker, **changes: Any) -> Worker:
    """Return a worker of another process."""
    return replace(worker, process=replace(worker.process, **changes))


def test_a_second_runner_is_refused_and_told_of_the_first() -> None:
    """Its process and machine, and what to do."""
    calls, journal = Calls(), MemoryJournal()
    plan, second = calls.plan([[]]), calls.plan([[]])
    refused: list[str] = []

    def run_again() -> None:
        with pytest.raises(PlanBusy) as caught:
            second.run(journal)
        refused.append(str(caught.value))
        with pytest.raises(PlanBusy):
            second.reset("work/0", journal)

    calls.behaviour[0] = run_again
    plan.run(journal)
    assert f"plan 'graph' is being run by process {os.getpid()} on " in refused[0]
    assert "end it" in refused[0]
    assert second.run(journal) == {"number": 0, "sum": 0}


@LINUX
def test_a_live_process_keeps_its_lease_and_a_dead_one_loses_it_at_once(tmp_path: Path) -> None:
    """However long ago it was last heard of; dead is also who nobody has waited for yet."""
    journal = Journal(tmp_path / "plan.db")
    program = (
        "import sys, time\n"
        "from torchsystem.plans import Journal\n"
        "from torchsystem.plans.workers import acting\n"
        "with acting() as owner:\n"
        "    Journal(sys.argv[1]).acquire('graph', owner, 1.0)\n"
        "    print(flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(journal.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:  # noqa: S603
        assert other.stdout is not None
        other.stdout.readline()
        calls = Calls()
        with pytest.raises(PlanBusy, match=f"process {other.pid} on"):
            calls.plan([[]]).run(journal)
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the table of processes
        assert calls.plan([[]]).run(journal) == {"number": 0, "sum": 0}


@LINUX
def test_a_number_that_is_used_again_is_no_owner() -> None:
    """Another process may have the number of a dead one: it started at another time."""
    journal, calls = MemoryJournal(), Calls()
    parent = me(pid=os.getppid(), started="1")
    journal.acquire("graph", str(parent), 1.0)
    assert calls.plan([[]]).run(journal) == {"number": 0, "sum": 0}


def test_this_process_is_not_one_that_had_its_number() -> None:
    """Though it may be doing as many things."""
    journal, calls = MemoryJournal(), Calls()
    with acting() as owner:
        journal.acquire("graph", str(of(Worker.read(owner), started="long ago")), 1.0)
        assert calls.plan([[]]).run(journal) == {"number": 0, "sum": 0}


def test_what_this_process_no_longer_does_is_over() -> None:
    """A run that ended without giving its lease back, as by a broken disk, does not lock its own process out."""
    journal, calls = MemoryJournal(), Calls()
    journal.acquire("graph", str(me()), 1.0)
    assert calls.plan([[]]).run(journal) == {"number": 0, "sum": 0}


@pytest.mark.parametrize("owner", [me(host="elsewhere"), me(machine="another boot")], ids=str)
def test_an_owner_elsewhere_is_waited_for(owner: Worker) -> None:
    """Whether it is alive cannot be seen from here: its heartbeat decides."""
    journal, calls, clock = MemoryJournal(), Calls(), Clock()
    journal.acquire("graph", str(owner), clock.now)
    plan = calls.plan([[]], clock=clock)
    clock.now += 50
    with pytest.raises(PlanBusy, match=r"last heard of 50 seconds ago\. Wait until it was not heard of for 60 seconds"):
        plan.run(journal)
    clock.now += 11
    assert plan.run(journal) == {"number": 0, "sum": 0}


def test_who_lost_the_lease_begins_nothing_more() -> None:
    """It was taken for dead, as after a long sleep: its next step is refused, whoever runs it."""
    calls, journal = Calls(), MemoryJournal()

    def take_over() -> None:
        journal.acquire("graph", "another", 2.0, instead_of=journal.lease("graph").number)

    calls.behaviour[0] = take_over
    with pytest.raises(PlanTakenOver, match="another runner has taken over"):
        calls.plan([[], [], []]).run(journal)
    assert calls.made == [0]
    assert journal.records("graph")[0].state == "finished"
    assert journal.lease("graph").owner == "another"


def take_over(journal: MemoryJournal) -> int:
    """Take the lease from a runner, and come back when that knows."""
    number = journal.acquire("graph", "another", 2.0, instead_of=journal.lease("graph").number).number
    for thread in threading.enumerate():
        if thread.name.startswith("heartbeat"):
            thread.join(30)
    return number


def test_a_runner_that_waits_to_try_again_learns_that_it_lost_the_lease() -> None:
    """At its next look, and not at the end of the wait."""
    calls, journal, clock = Calls(), MemoryJournal(), Clock()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        take_over(journal)

    calls.behaviour[0] = lambda: 1 / 0
    plan = calls.plan([[]], clock=clock, sleep=sleep)
    with pytest.raises(PlanTakenOver, match="lost its lease: another runner has taken over"):
        plan.run(journal, failures=Retry(1, wait=3600), lapse=0.2)
    assert len(clock.slept) == 1


def test_who_lost_the_lease_writes_no_failure_for_another() -> None:
    """Its engine failed to do a step, which another is doing now."""
    calls, journal = Calls(), MemoryJournal()

    class Failing(ThreadPoolExecutor):
        def submit(self, *_: Any, **__: Any) -> Future[Any]:
            journal.start("graph", take_over(journal), "work/0", "another", 3.0)
            future: Future[Any] = Future()
            future.set_exception(OSError("the worker is gone"))
            return future

    with pytest.raises(PlanTakenOver, match="lost its lease"):
        calls.plan([[]]).run(journal, executor=lambda: Failing(1), lapse=0.2)
    assert (journal.records("graph")[0].state, journal.records("graph")[0].worker) == ("started", "another")


def test_a_runner_is_heard_of_while_it_works(tmp_path: Path) -> None:
    """Its heart beats four times in the time after which it would count as dead."""
    calls, journal = Calls(), Journal(tmp_path / "plan.db")
    beats = threading.Event()

    def wait_for_a_beat() -> None:
        first = journal.lease("graph")
        while journal.lease("graph") == first:
            beats.wait(0.01)

    calls.behaviour[0] = wait_for_a_beat
    calls.plan([[]]).run(journal, lapse=0.2)
    assert journal.lease("graph").owner is None


def test_the_heart_ends_with_the_run() -> None:
    """No thread is left behind, however the run ended."""
    calls = Calls()
    calls.behaviour[0] = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        calls.plan([[]]).run(MemoryJournal())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("heartbeat")]


def test_a_step_that_somebody_is_still_doing_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """A runner died, and its worker lives: the step is not done twice at once, and the log says why it waits."""
    journal, calls = MemoryJournal(), Calls()
    calls.behaviour[0] = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        calls.plan([[]]).run(journal)
    number = journal.acquire("graph", str(me()), 1.0).number
    with acting() as worker:
        journal.start("graph", number, "work/0", worker, 2.0)

        def finish(record: logging.LogRecord) -> bool:
            if "is still being done" in record.getMessage():
                journal.finish("graph", "work/0", 0, '"by the worker"', 3.0)
            return True

        caplog.handler.addFilter(finish)  # the worker is done as soon as somebody says that it is waited for
        try:
            assert calls.plan([[]]).run(journal) == "by the worker"
        finally:
            caplog.handler.removeFilter(finish)
    assert calls.made == [0]
    assert f"is still being done by process {os.getpid()}" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_a_step_forks_takes_nothing_from_its_parent(tmp_path: Path) -> None:
    """Neither its lease nor its result: whether the child leaves the step by an exception or comes back from it."""
    journal, calls, parent = Journal(tmp_path / "plan.db"), Calls(), os.getpid()
    children: list[int] = []

    def fork(*, leave: bool) -> None:
        child = os.fork()
        if child:
            children.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        elif leave:
            raise SystemExit

    calls.behaviour = {0: lambda: fork(leave=True), 1: lambda: fork(leave=False)}
    try:
        result = calls.plan([[], [], [0, 1]]).run(journal)
    except SystemExit:
        os._exit(3)
    except PlanTakenOver:
        os._exit(4)
    finally:
        if os.getpid() != parent:
            os._exit(5)
    assert result == {"number": 2, "sum": 3}
    assert children == [3, 4]
    assert journal.lease("graph").owner is None


@pytest.mark.parametrize("done_anew", [False, True])
def test_a_result_from_before_a_reset_does_not_count(*, done_anew: bool) -> None:
    """Whoever was taken for dead, and brings it after all, is told; also where the step is done anew already."""
    calls, journal = Calls(), MemoryJournal()

    def reset() -> None:
        number = journal.acquire("graph", "another", 2.0, instead_of=journal.lease("graph").number).number
        journal.reset("graph", number, ["work/0"])
        if done_anew:
            journal.start("graph", number, "work/0", "another", 3.0)
            journal.finish("graph", "work/0", 1, '"anew"', 4.0)

    calls.behaviour[0] = reset
    with pytest.raises(PlanTakenOver, match="was reset while it was being done: its result counts no more"):
        calls.plan([[]]).run(journal)
    assert journal.records("graph")[0].result == ('"anew"' if done_anew else None)


def test_a_step_that_fails_here_and_was_finished_elsewhere_is_finished() -> None:
    """As where an engine runs a task again that it lost sight of: there is a result."""
    calls, journal = Calls(), MemoryJournal()

    def fail() -> None:
        journal.finish("graph", "work/0", 0, '"elsewhere"', 2.0)
        raise LookupError("here")

    calls.behaviour[0] = fail
    assert calls.plan([[]]).run(journal) == "elsewhere"


def test_an_owner_elsewhere_that_is_heard_of_keeps_its_lease() -> None:
    """However long ago it took it."""
    journal, calls, clock = MemoryJournal(), Calls(), Clock()
    number = journal.acquire("graph", str(me(host="elsewhere")), clock.now).number
    clock.now += 3600
    journal.beat("graph", number, clock.now)
    clock.now += 30
    with pytest.raises(PlanBusy, match="last heard of 30 seconds ago"):
        calls.plan([[]], clock=clock).run(journal)
