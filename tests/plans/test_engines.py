"""Engines: steps in threads and in other processes, which may die."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from tests.plans import programs
from tests.plans.fakes import Calls, expected, heard
from torchsystem.errors import EngineBroken, InvalidPlan, StepFailure, TorchSystemError, UnreachableHandler
from torchsystem.plans import Journal, MemoryJournal, Plan, Retry, StepFailed, StepFinished
from torchsystem.plans.handlers import ByName, ByRoot
from torchsystem.services import Consumer, Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def processes() -> ProcessPoolExecutor:
    """Make a pool of processes that are started anew, as on all systems."""
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


def test_independent_steps_are_done_at_the_same_time() -> None:
    """As many as the engine takes: here all three must meet."""
    calls = Calls()
    meeting = threading.Barrier(3, timeout=200)
    calls.behaviour = dict.fromkeys(range(3), meeting.wait)
    graph = [[], [], [], [0, 1, 2]]
    assert calls.plan(graph).run(MemoryJournal(), executor=lambda: ThreadPoolExecutor(3)) == expected(graph)[-1]


def test_a_failure_lets_what_is_under_way_come_to_its_end() -> None:
    """Its result is kept; what waits is not begun."""
    calls, journal = Calls(), MemoryJournal()
    begun, told = threading.Event(), threading.Event()
    listener = Consumer()

    @listener.handler
    def tell(event: StepFailed) -> None:
        told.set()

    def fail() -> None:
        begun.wait(200)
        raise LookupError("a step")

    def go_on() -> None:
        begun.set()
        told.wait(200)

    calls.behaviour = {0: fail, **dict.fromkeys(range(1, 5), go_on)}
    plan = calls.plan([[], [], [], [], []])
    with plan.producer.connected(listener), pytest.raises(LookupError, match="a step"):
        plan.run(journal, executor=lambda: ThreadPoolExecutor(2))
    states = [record.state for record in journal.records("graph")]
    assert states[:2] == ["failed", "finished"]
    assert states[3:] == ["left", "left"]


def test_after_a_failure_nothing_begins_that_waited_for_what_is_under_way() -> None:
    """Though its references are there now, and others are still under way."""
    calls, all_three = Calls(), threading.Barrier(3, timeout=200)
    failed, finished, listener = threading.Event(), threading.Event(), Consumer()

    @listener.handler
    def tell(event: StepFailed | StepFinished) -> None:
        (failed if isinstance(event, StepFailed) else finished).set()

    def fail() -> None:
        all_three.wait()
        raise LookupError("a step")

    def end_after(event: threading.Event) -> None:
        all_three.wait()
        event.wait(200)

    calls.behaviour = {0: fail, 1: lambda: end_after(failed), 2: lambda: end_after(finished)}
    plan = calls.plan([[], [], [], [1]])
    with plan.producer.connected(listener), pytest.raises(LookupError, match="a step"):
        plan.run(MemoryJournal(), executor=lambda: ThreadPoolExecutor(3))
    assert sorted(calls.made) == [0, 1, 2]


def test_steps_run_in_other_processes_and_write_the_journal_there(tmp_path: Path) -> None:
    """Their results are read when the plan goes on."""
    journal = Journal(tmp_path / "plan.db")
    plan = Plan("processes", [programs.service])
    first = plan.add("process")
    plan.add("add", numbers=[first])
    result = plan.run(journal, executor=processes)
    assert result - 1 != os.getpid()
    assert plan.run(journal) == result


def test_an_exception_comes_back_from_another_process(tmp_path: Path) -> None:
    """As itself, with where it was raised; or in words, where it cannot be sent."""
    plan = Plan("failing", [programs.service])
    plan.add("fail", odd=False)
    with pytest.raises(LookupError, match="as itself") as caught:
        plan.run(Journal(tmp_path / "one.db"), executor=processes)
    assert any("programs.py" in note for note in caught.value.__notes__)
    plan = Plan("odd", [programs.service])
    plan.add("fail", odd=True)
    with pytest.raises(StepFailure, match="Odd: 1 and 2"):
        plan.run(Journal(tmp_path / "two.db"), executor=processes)


@pytest.mark.parametrize("on", [programs.Odd, (OSError, LookupError)], ids=["itself", "what it inherits"])
def test_an_exception_that_cannot_be_sent_is_worth_trying_again_all_the_same(on: Any, tmp_path: Path) -> None:
    """`on=` means the exception that was raised, not what could be told of it; others stop the plan."""
    plan = Plan("odd", [programs.service])
    plan.add("fail-oddly-once", flag=str(tmp_path / "flag"))
    with pytest.raises(StepFailure, match="Odd: 1 and 2"):
        plan.run(Journal(tmp_path / "one.db"), executor=processes, failures=Retry(1, wait=0, on=OSError))
    (tmp_path / "flag").unlink()
    journal = Journal(tmp_path / "two.db")
    assert plan.run(journal, executor=processes, failures=Retry(1, wait=0, on=on)) == "mended"


def family(kind: type[TorchSystemError]) -> Iterator[type[TorchSystemError]]:
    """Yield all errors of ours."""
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == kind.__module__:
            yield from family(child)


@pytest.mark.parametrize("kind", dict.fromkeys(family(TorchSystemError)))
def test_errors_of_ours_can_be_sent(kind: type[TorchSystemError]) -> None:
    """With all that they tell: as in a step that restores what does not fit, in another process."""
    more = [name for name in signature(kind.__init__).parameters if name not in {"self", "message", "args", "kwargs"}]
    error = kind("what is wrong", **{name: {"weight": "its shape"} for name in more})
    error.add_note("where")
    sent = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(sent), str(sent), sent.args) == (kind, "what is wrong", ("what is wrong",))
    assert [getattr(sent, name) for name in more] == [{"weight": "its shape"}] * len(more)
    assert sent.__notes__ == ["where"]


def test_a_pool_that_breaks_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A worker died, and with it the pool: a new one does what is left."""
    plan = Plan("dying", [programs.service])
    plan.add("die-once", flag=str(tmp_path / "flag"))
    assert plan.run(Journal(tmp_path / "plan.db"), executor=processes) == "alive"
    assert "the executor broke down" in caplog.text


class Breaking(Executor):
    """An executor that has broken down before it does anything."""

    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        raise BrokenExecutor("it never worked")


def test_a_step_that_ends_its_process_each_time_ends_the_plan(tmp_path: Path) -> None:
    """It is not tried for ever, and the message says which steps it may have been."""
    calls = Calls()
    with pytest.raises(EngineBroken, match=r"broke down 4 times before any step was done: .*: work/0"):
        calls.plan([[]]).run(MemoryJournal(), executor=Breaking)
    plan = Plan("dying", [programs.service])
    plan.add("die")
    with pytest.raises(EngineBroken, match="die/0"):
        plan.run(Journal(tmp_path / "plan.db"), executor=processes)


class Losing(ThreadPoolExecutor):
    """An executor that loses what comes of its first tasks, as engines do that give up on a worker."""

    lost = 2

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        if Losing.lost:
            Losing.lost -= 1
            future: Future[Any] = Future()
            future.set_exception(OSError("the worker is gone"))
            return future
        return super().submit(*args, **kwargs)


class Doubling(ThreadPoolExecutor):
    """An executor that runs each task twice, as Dask does after a worker that it lost sight of."""

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        super().submit(*args, **kwargs).result()
        return super().submit(*args, **kwargs)


def test_an_engine_that_runs_a_task_again_finds_it_done() -> None:
    """The journal is asked where the step is done."""
    calls = Calls()
    graph = [[], [0], [0, 1]]
    assert calls.plan(graph).run(MemoryJournal(), executor=lambda: Doubling(2)) == expected(graph)[-1]
    assert calls.made == [0, 1, 2]


def test_what_the_engine_fails_to_do_is_a_failure_of_the_step() -> None:
    """It is written down, and tried again where that was asked for."""
    calls = Calls()
    plan = calls.plan([[]])
    assert plan.run(MemoryJournal(), executor=lambda: Losing(1), failures=Retry(2, wait=0)) == expected([[]])[0]


def test_what_is_bound_must_be_bound_in_other_processes_too(tmp_path: Path) -> None:
    """A default in the place of what was bound would be used without a word; a root binds it everywhere."""
    plan = Plan("bound", [programs.bound])
    plan.add("where")
    with (
        programs.bound.override(programs.place, lambda: "bound here"),
        pytest.raises(UnreachableHandler, match=r"bound differently .*programs\.place"),
    ):
        plan.run(Journal(tmp_path / "one.db"), executor=processes)
    plan = Plan("root", programs.together)
    plan.add("where")
    assert plan.run(Journal(tmp_path / "two.db"), executor=processes) == "bound by the root"
    assert plan.run(MemoryJournal()) == "bound by the root"


@pytest.mark.parametrize(
    "handler",
    [ByName("tests.plans.programs", "service", "add", "older", []), ByRoot(programs.together, "where", "older")],
    ids=["by name", "by root"],
)
def test_a_handler_that_is_written_differently_elsewhere_is_refused(handler: ByName | ByRoot) -> None:
    """As in a worker that has read an older file: what it would do is not what was planned."""
    with pytest.raises(UnreachableHandler, match="is written differently in this process"):
        handler.find()


def test_a_service_that_other_processes_cannot_find_is_refused(tmp_path: Path) -> None:
    """With what to write instead."""
    hidden = Service()

    @hidden.handler
    def work() -> int:
        return 1

    plan = Plan("hidden", [hidden])
    plan.add("work")
    with pytest.raises(UnreachableHandler, match="has no name in module"):
        plan.run(Journal(tmp_path / "plan.db"), executor=processes)


def test_a_journal_in_memory_is_refused_for_processes() -> None:
    """What they write would be lost."""
    plan = Plan("memory", [programs.service])
    plan.add("process")
    with pytest.raises(UnreachableHandler, match=r"Write Journal\(path\)"):
        plan.run(MemoryJournal(), executor=processes)


def test_what_makes_no_executor_is_refused() -> None:
    """And so is an executor, which could not be replaced."""
    calls = Calls()
    with ThreadPoolExecutor(1) as pool, pytest.raises(InvalidPlan, match="write what makes one"):
        calls.plan([[]]).run(MemoryJournal(), executor=pool)  # type: ignore[arg-type]
    with pytest.raises(InvalidPlan, match="which is no executor"):
        calls.plan([[]]).run(MemoryJournal(), executor=lambda: 4)  # type: ignore[arg-type, return-value]


class Remembering(ThreadPoolExecutor):
    """An executor that takes a call with the same arguments for the same call, as Dask does."""

    def __init__(self) -> None:
        super().__init__(1)
        self.known: dict[object, Future[Any]] = {}

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        task, *rest = args
        call = (task.plan, task.lease, task.key, task.generation, task.arguments, *rest)
        if call not in self.known:
            self.known[call] = super().submit(function, *args, **kwargs)
        return self.known[call]


def test_a_step_that_is_tried_again_is_done_again() -> None:
    """Whatever the engine remembers of the first time."""
    calls, left = Calls(), [LookupError("first"), LookupError("second")]

    def fail() -> None:
        if left:
            raise left.pop(0)

    calls.behaviour[0] = fail
    plan = calls.plan([[]])
    assert plan.run(MemoryJournal(), executor=Remembering, failures=Retry(2, wait=0)) == expected([[]])[0]
    assert calls.made == [0, 0, 0]


class Careless(ThreadPoolExecutor):
    """An executor that does its tasks, or does not, and drops what they return."""

    def __init__(self, *, does: bool) -> None:
        super().__init__(1)
        self.does = does

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.does:
            function(*args, **kwargs)
        return super().submit(int)


def test_what_an_executor_says_is_not_taken_for_a_result() -> None:
    """A step that it has not done fails, and says so; of one that it has, the journal knows the result."""
    calls, graph = Calls(), [[], [0]]
    with pytest.raises(EngineBroken, match=r"says of step work/0 that 0 came of it: return what"):
        calls.plan(graph).run(MemoryJournal(), executor=lambda: Careless(does=False))
    assert calls.plan(graph).run(MemoryJournal(), executor=lambda: Careless(does=True)) == expected(graph)[-1]
    assert calls.made == [0, 1]


class Deaf(ThreadPoolExecutor):
    """An executor that gives no future."""

    def submit(self, *_: Any, **__: Any) -> Any:
        return 3


def test_an_executor_that_gives_no_future_is_refused() -> None:
    """By name."""
    with pytest.raises(InvalidPlan, match=r"submit\(\.\.\.\) returned 3, which is no Future"):
        Calls().plan([[]]).run(MemoryJournal(), executor=lambda: Deaf(1))


class Fading(ThreadPoolExecutor):
    """An executor that breaks down, the first time when it was given three steps, then two."""

    left: ClassVar = [3, 2]

    def __init__(self) -> None:
        super().__init__(2)
        self.takes = Fading.left.pop(0) if Fading.left else 100

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        if not self.takes:
            raise BrokenExecutor("it fades")
        self.takes -= 1
        return super().submit(*args, **kwargs)


def test_a_pool_may_break_while_it_is_given_the_steps_of_another() -> None:
    """Each step is handed over again, and once."""
    calls, graph = Calls(), [[], [], [], [], [], [0, 1, 2, 3, 4]]
    assert calls.plan(graph).run(MemoryJournal(), executor=Fading) == expected(graph)[-1]
    assert sorted(calls.made) == [0, 1, 2, 3, 4, 5]


def test_the_failure_of_a_step_is_raised_though_the_engine_breaks_after_it() -> None:
    """It is what there is to mend; the engine was about to be closed, and no other one is made for what is left."""
    calls = Calls()

    pending: list[Future[Any]] = []

    class Ending(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
            if not pending:
                pending.append(super().submit(*args, **kwargs))
                return pending[0]
            broken: Future[Any] = Future()
            broken.set_running_or_notify_cancel()
            pending[0].add_done_callback(lambda _: broken.set_exception(BrokenExecutor("a worker died")))
            return broken

    def fail() -> None:
        raise LookupError("a step")

    calls.behaviour[0] = fail
    pools: list[type[ThreadPoolExecutor]] = [Ending, ThreadPoolExecutor]
    with pytest.raises(LookupError, match="a step"):
        calls.plan([[], []]).run(MemoryJournal(), executor=lambda: pools.pop(0)(1))
    assert calls.made == [0]


def test_an_executor_that_was_shut_down_is_told_of() -> None:
    """Each run shuts its own down: who hands out the same one again is told to make another."""
    calls, pool = Calls(), ThreadPoolExecutor(1)
    plan = calls.plan([[]])
    plan.run(MemoryJournal(), executor=lambda: pool)
    with pytest.raises(RuntimeError) as caught:
        plan.run(MemoryJournal(), executor=lambda: pool)
    assert "make a new executor each time" in caught.value.__notes__[0]


def test_of_two_failures_the_first_is_raised() -> None:
    """The other is in the journal."""
    calls, journal, told = Calls(), MemoryJournal(), threading.Event()
    both = threading.Barrier(2, timeout=200)
    listener = Consumer()

    @listener.handler
    def tell(event: StepFailed) -> None:
        told.set()

    def fail() -> None:
        both.wait()
        raise LookupError("first")

    def fail_later() -> None:
        both.wait()
        told.wait(200)
        raise LookupError("second")

    calls.behaviour = {0: fail_later, 1: fail}
    plan = calls.plan([[], []])
    with plan.producer.connected(listener), pytest.raises(LookupError, match="first"):
        plan.run(journal, executor=lambda: ThreadPoolExecutor(2))
    assert [record.error for record in journal.records("graph")] == ["LookupError: second", "LookupError: first"]


class Mute(ThreadPoolExecutor):
    """An executor that does its tasks, and then fails to tell what came of them."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        def do() -> None:
            function(*args, **kwargs)
            raise OSError("the connection is gone")

        return super().submit(do)


def test_a_step_of_which_the_engine_cannot_tell_is_finished_all_the_same() -> None:
    """Its result is in the journal: it is neither a failure nor done again."""
    calls, graph = Calls(), [[], [0]]
    plan = calls.plan(graph)
    events = heard(plan)
    assert plan.run(MemoryJournal(), executor=lambda: Mute(1)) == expected(graph)[-1]
    assert calls.made == [0, 1]
    assert not [event for event in events if isinstance(event, StepFailed)]


class Short(ThreadPoolExecutor):
    """An executor that breaks down after each task."""

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._threads:
            raise BrokenExecutor("one was enough")
        return super().submit(*args, **kwargs)


def test_an_engine_may_break_as_often_as_it_likes_while_steps_get_done() -> None:
    """Only breaking without any progress is of no use."""
    calls, graph = Calls(), [[], [0], [1], [2], [3], [4], [5]]
    assert calls.plan(graph).run(MemoryJournal(), executor=lambda: Short(1)) == expected(graph)[-1]
    assert calls.made == [0, 1, 2, 3, 4, 5, 6]
