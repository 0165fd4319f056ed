"""Plans: what may be a step, what it is given, what it returns, and what is told of it."""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
from collections import OrderedDict, namedtuple
from copy import copy, deepcopy
from dataclasses import asdict, dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.plans.fakes import Calls, expected, heard
from torchsystem.errors import (
    AmbiguousAction,
    ForeignReference,
    InvalidPlan,
    NotPlain,
    OutsideStep,
    ScopeMismatch,
    UnknownAction,
    UnusableHandler,
)
from torchsystem.plans import (
    Journal,
    MemoryJournal,
    Plan,
    PlanFinished,
    PlanStarted,
    StepFinished,
    StepStarted,
    step_key,
    step_seed,
)
from torchsystem.services import Consumer, Depends, Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def echo_plan(name: str = "echo") -> tuple[Plan, list[Any]]:
    """Return a plan whose `echo` returns what it is given, and the list of what that was."""
    service, seen = Service(), list[Any]()

    @service.handler
    def echo(value: object = None, extra: object = None) -> object:
        seen.append((value, extra))
        return value

    return Plan(name, [service]), seen


def test_steps_are_done_in_order_and_the_last_result_is_returned() -> None:
    """Without an executor they are done as they were added."""
    calls = Calls()
    graph = [[], [], [0], [], [1, 2]]
    assert calls.plan(graph).run(MemoryJournal()) == expected(graph)[-1]
    assert calls.made == [0, 1, 2, 3, 4]


def test_a_chosen_result_is_returned() -> None:
    """All steps are done nevertheless."""
    plan, seen = echo_plan()
    first = plan.add("echo", value="first")
    plan.add("echo", value="second")
    assert plan.run(MemoryJournal(), result=first) == "first"
    assert [value for value, _ in seen] == ["first", "second"]


def test_finished_steps_are_not_done_again(tmp_path: Path) -> None:
    """The same line with the same journal reads their results."""
    calls, graph = Calls(), [[], [0], [0, 1]]
    first = calls.plan(graph).run(Journal(tmp_path / "plan.db"))
    again = Calls()
    assert again.plan(graph).run(Journal(tmp_path / "plan.db")) == first
    assert again.made == []


def test_a_longer_plan_goes_on_after_its_steps() -> None:
    """Steps that are added at the end are new; nothing that was known is different."""
    journal, calls = MemoryJournal(), Calls()
    calls.plan([[], [0]]).run(journal)
    assert calls.plan([[], [0], [1]]).run(journal) == expected([[], [0], [1]])[-1]
    assert calls.made == [0, 1, 2]


def test_plans_of_one_journal_do_not_meet() -> None:
    """They are told by their names."""
    journal = MemoryJournal()
    for name in ("one", "two"):
        plan, seen = echo_plan(name)
        plan.add("echo", value=name)
        assert plan.run(journal) == name
        assert len(seen) == 1


def test_references_are_found_anywhere_in_the_arguments() -> None:
    """Nested in lists and dicts, and more than once."""
    plan, seen = echo_plan()
    one = plan.add("echo", value=[1])
    two = plan.add("echo", value={"a": [one, {"b": one}], "c": (one,)}, extra=one)
    plan.add("echo", value=[two])
    plan.run(MemoryJournal())
    assert seen[1] == ({"a": [[1], {"b": [1]}], "c": [[1]]}, [1])
    assert seen[2][0] == [seen[1][0]]


@given(JSON)
def test_a_result_is_the_same_at_first_and_later(value: Any) -> None:
    """What the run returns, what a step is given, and what the journal gives back are the same plain JSON."""
    journal = MemoryJournal()
    plan, seen = echo_plan()
    one = plan.add("echo", value=value)
    plan.add("echo", value=one)
    first = plan.run(journal)
    assert (first, plan.run(journal), seen[0][0], seen[1][0]) == (value, value, value, value)


def test_a_reference_stands_for_the_same_in_a_copy() -> None:
    """As in the dict of a dataclass, or in a copy of what others are given."""

    @dataclass
    class Config:
        data: object
        epochs: int = 2

    plan, _ = echo_plan()
    config = Config([plan.add("echo", value="data")])
    plan.add("echo", value=[asdict(config), copy(config.data), deepcopy(config.data)])
    assert plan.run(MemoryJournal()) == [{"data": ["data"], "epochs": 2}, ["data"], ["data"]]


def test_what_a_step_does_to_its_arguments_stays_with_it() -> None:
    """Each gets a copy: of what was passed to `add`, and of the results of others."""
    service = Service()

    @service.handler
    def grow(items: list[int]) -> list[int]:
        items.append(len(items))
        return items

    plan, mine = Plan("growth", [service]), [7]
    one = plan.add("grow", items=mine)
    mine.append(8)
    plan.add("grow", items=one)
    last = plan.add("grow", items=one)
    assert plan.run(MemoryJournal(), result=last) == [7, 1, 2]
    assert mine == [7, 8]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({1}, r"value is a set"),
        ([0, {"a": object()}], r"value\[1\]\['a'\] is an object"),
        ({1: 2}, r"value has the key 1, which is no str"),
        (float("nan"), "value is nan"),
        ([float("inf")], r"value\[0\] is inf"),
        (np.int64(3), "value is a numpy.int64"),
        (np.zeros(2), "value is a numpy.ndarray"),
        (torch.zeros(2), "value is a torch.Tensor"),
        (b"x", "value is a bytes"),
        pytest.param(10**5000, "value is an int of 16610 bits", id="huge"),
    ],
)
def test_an_argument_that_is_no_json_is_refused_by_its_name(value: object, told: str) -> None:
    """When it is added; and a result that is none, by the name of its step."""
    plan, _ = echo_plan()
    with pytest.raises(NotPlain, match=rf"echo\(value=\.\.\.\): {told}"):
        plan.add("echo", value=value)

    service = Service()

    @service.handler
    def give() -> object:
        return value

    giving = Plan("giving", [service])
    giving.add("give")
    with pytest.raises(NotPlain, match=r"giving/give/0: the result"):
        giving.run(MemoryJournal())


def test_what_would_be_taken_for_a_reference_is_refused() -> None:
    """Or the result of a step that was given the words would stand for one that is given the result."""
    plan, _ = echo_plan()
    with pytest.raises(NotPlain, match=r"value\[0\] is \{'\$step': 'echo/0'\}, as which a journal keeps a reference"):
        plan.add("echo", value=[{"$step": "echo/0"}])
    plan.add("echo", value={"$step": 1, "others": 2})
    assert plan.run(MemoryJournal()) == {"$step": 1, "others": 2}


def test_what_contains_itself_is_refused() -> None:
    """And not walked through for ever."""
    plan, _ = echo_plan()
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(NotPlain, match="contains itself"):
        plan.add("echo", value=endless)


def test_floats_of_numpy_are_floats_and_tuples_are_lists() -> None:
    """So that a mean of scores can be returned as it is; and so can dicts of other classes, as metrics are."""
    plan, _ = echo_plan()
    plan.add("echo", value=(np.float64(0.5), OrderedDict(a=1)))
    assert plan.run(MemoryJournal()) == [0.5, {"a": 1}]


def test_a_tuple_with_names_is_refused() -> None:
    """They would be lost."""
    plan, _ = echo_plan()
    with pytest.raises(NotPlain, match="Point, which is no JSON"):
        plan.add("echo", value=namedtuple("Point", "x y")(1, 2))  # noqa: PYI024


def test_an_unknown_action_is_refused_with_what_is_near() -> None:
    """When it is added."""
    plan, _ = echo_plan()
    with pytest.raises(UnknownAction, match=r"answers to 'ecko'. Did you mean 'echo'"):
        plan.add("ecko")


@pytest.mark.parametrize("action", [None, print, 3, "\ud800"], ids=repr)
def test_an_action_that_is_no_name_is_refused(action: Any) -> None:
    """When it is added, with what to write."""
    plan, _ = echo_plan()
    with pytest.raises(InvalidPlan, match="write the name of an action"):
        plan.add(action)


def test_an_action_is_spelled_in_python_or_as_generated() -> None:
    """As it is for services."""
    service = Service()

    @service.handler
    def train_fold(fold: int) -> int:
        return fold

    plan = Plan("names", [service])
    plan.add("train_fold", fold=1)
    plan.add("train-fold", fold=2)
    assert "train-fold/1" in plan.show()
    assert plan.run(MemoryJournal()) == 2


@pytest.mark.parametrize("arguments", [{"wrong": 1}, {"value": 1, "more": 2}])
def test_arguments_that_the_handler_does_not_take_are_refused(arguments: dict[str, int]) -> None:
    """When they are added, with the signature."""
    plan, _ = echo_plan()
    with pytest.raises(UnusableHandler, match=r"'echo' cannot be called so: .*takes \(value"):
        plan.add("echo", **arguments)


def test_a_missing_argument_is_refused() -> None:
    """When the step is added; what is injected need not be given."""
    service = Service()

    @service.handler
    def train(fold: int, device: str = Depends(lambda: "cpu")) -> str:
        return f"{fold} on {device}"

    plan = Plan("missing", [service])
    with pytest.raises(UnusableHandler, match="missing a required argument: 'fold'"):
        plan.add("train")
    plan.add("train", fold=1)
    assert plan.run(MemoryJournal()) == "1 on cpu"


def test_what_calling_would_not_run_is_no_step() -> None:
    """Neither a coroutine function nor a generator."""
    service = Service()

    @service.handler
    async def later() -> int:
        await asyncio.sleep(0)
        return 1

    @service.handler
    def many() -> Iterator[int]:
        yield 1

    plan = Plan("kinds", [service])
    for action in ("later", "many"):
        with pytest.raises(UnusableHandler, match="calling it would run nothing"):
            plan.add(action)


def test_a_wrapper_is_what_is_called() -> None:
    """Neither is a function refused that runs an async one to its end, nor one taken that does not run a plain one."""

    async def later(value: int) -> int:
        await asyncio.sleep(0)
        return value

    def now(value: int) -> int:
        return value

    @wraps(later)
    def run_later(value: int) -> int:
        return asyncio.run(later(value))

    @wraps(now)
    async def wait_for_now(value: int) -> int:
        return now(value)

    service = Service()
    service.handler(run_later)
    service.handler(wait_for_now)
    plan = Plan("wrapped", [service])
    with pytest.raises(UnusableHandler, match="is an async function: calling it would run nothing"):
        plan.add("now", value=1)
    plan.add("later", value=1)
    assert plan.run(MemoryJournal()) == 1


def test_a_coroutine_is_no_result() -> None:
    """Of a function that only seems plain; it is closed, so that Python does not complain of it elsewhere."""
    service = Service()

    async def later() -> int:
        return 1

    @service.handler
    def begin() -> object:
        return later()

    plan = Plan("coroutine", [service])
    plan.add("begin")
    with pytest.raises(NotPlain, match="the result is a coroutine"):
        plan.run(MemoryJournal())
    gc.collect()


def test_an_object_that_is_called_as_a_function_can_be_a_step() -> None:
    """Also one that cannot be a key; what nobody can tell the arguments of is refused."""

    class Trainer:
        __name__ = "train"
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, fold: int) -> int:
            return fold

    service = Service()
    service.handler(Trainer())
    service.handler(max)
    plan = Plan("objects", [service])
    plan.add("train", fold=1)
    assert plan.run(MemoryJournal()) == 1
    with pytest.raises(UnusableHandler, match="nobody can tell what max takes"):
        plan.add("max")


def test_two_services_that_answer_to_one_action_are_refused() -> None:
    """Whether they did so when the plan was made, or began it later."""
    first, second = Calls(), Calls()
    with pytest.raises(AmbiguousAction, match="two services answer to 'work'"):
        Plan("two", [first.service, second.service])
    assert Plan("one", [first.service, first.service])
    late = Service()
    plan = Plan("late", [first.service, late])

    @late.handler
    def work() -> None:
        pass

    with pytest.raises(AmbiguousAction, match="two services answer to 'work'"):
        plan.add("work")


def test_a_reference_to_another_plan_is_refused() -> None:
    """As an argument, as the result to return, and as what to reset."""
    plan, other = echo_plan()[0], echo_plan()[0]
    foreign = other.add("echo")
    with pytest.raises(ForeignReference, match="of another plan"):
        plan.add("echo", value=[foreign])
    plan.add("echo")
    with pytest.raises(ForeignReference):
        plan.run(MemoryJournal(), result=foreign)


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"name": "half a letter: \ud800"},
        {"services": [object()]},
        {"services": Service()},
        {"services": None},
        {"services": lambda: None},
        {"producer": 3},
        {"seed": 3},
        {"clock": 3},
        {"sleep": 0.1},
        {"versions": {"ecko": "1"}},
        {"versions": {"echo": 1}},
        {"versions": {"echo": "\ud800"}},
        {"versions": "1"},
    ],
    ids=str,
)
def test_a_plan_that_has_no_meaning_is_refused(options: dict[str, Any]) -> None:
    """By name, at the latest before anything is done."""
    service = Service()

    @service.handler
    def echo() -> None:
        pass

    def run(**options: Any) -> None:
        plan = Plan(**{"name": "x", "services": [service], **options})
        plan.add("echo")
        plan.run(MemoryJournal())

    run()
    with pytest.raises(InvalidPlan):
        run(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"executor": 4},
        {"accept": "everything"},
        {"accept": True},
        {"failures": "ignore"},
        {"failures": {"ecko": "skip"}},
        {"lapse": 0},
        {"journal": "plan.db"},
    ],
    ids=str,
)
def test_a_run_that_has_no_meaning_is_refused(options: dict[str, Any]) -> None:
    """By name, before anything is done, told or written down."""
    (plan, seen), journal = echo_plan(), MemoryJournal()
    events = heard(plan)
    plan.add("echo")
    with pytest.raises(InvalidPlan):
        plan.run(**{"journal": journal, **options})
    assert (seen, events, journal.records("echo"), journal.lease("echo").number) == ([], [], [], 0)


def test_a_plan_without_steps_is_refused() -> None:
    """There would be no result."""
    with pytest.raises(InvalidPlan, match="has nothing to do"):
        echo_plan()[0].run(MemoryJournal())


def test_a_plan_tells_what_happens() -> None:
    """Each start and end, in order; of steps that were finished before, nothing."""
    journal, calls = MemoryJournal(), Calls()
    calls.plan([[]]).run(journal)
    plan = calls.plan([[], [0]])
    events = heard(plan)
    result = plan.run(journal)
    finished = events[2]
    assert isinstance(finished, StepFinished)
    assert finished.seconds >= 0
    assert events == [
        PlanStarted("graph", 2, 1),
        StepStarted("graph", "work/1", "work", 1),
        StepFinished("graph", "work/1", "work", result, finished.seconds),
        PlanFinished("graph", result, 2, (), ()),
    ]


def test_a_listener_that_fails_loses_no_result() -> None:
    """Its exception ends the run as itself; what was told is in the journal already."""
    journal, calls = MemoryJournal(), Calls()
    plan = calls.plan([[], [0]])
    consumer = Consumer()

    @consumer.handler
    def break_down(event: StepFinished) -> None:
        raise LookupError("a listener")

    with plan.producer.connected(consumer), pytest.raises(LookupError):
        plan.run(journal)
    assert plan.run(journal) == expected([[], [0]])[-1]
    assert calls.made == [0, 1]


def test_a_step_is_given_its_key() -> None:
    """It is another for each step and plan, and the same when the plan goes on."""
    service, seen = Service(), list[str]()

    @service.handler
    def send(fail: bool, key: str = Depends(step_key)) -> str:  # noqa: FBT001
        seen.append(key)
        if fail and len(seen) == 2:
            raise OSError("the line is dead")
        return key

    journal = MemoryJournal()
    plan = Plan("mails", [service])
    plan.add("send", fail=False)
    plan.add("send", fail=True)
    with pytest.raises(OSError, match="the line is dead"):
        plan.run(journal)
    assert plan.run(journal) == "mails/send/1"
    assert seen == ["mails/send/0", "mails/send/1", "mails/send/1"]


@pytest.mark.parametrize("ask", [step_key, step_seed])
def test_a_key_is_not_kept_for_the_next_step(ask: Any) -> None:
    """What a provider keeps is made once: it would have the key of the first step for ever."""

    def folder(key: object = Depends(ask)) -> str:
        return f"runs/{key}"

    def kept(folder: str = Depends(folder, scope="provider")) -> str:
        return folder

    def made(folder: str = Depends(folder)) -> str:
        return folder

    service = Service()
    with pytest.raises(ScopeMismatch, match=ask.__name__):
        service.handler(kept)
    service.handler(made)
    plan = Plan("keys", [service])
    first, second = plan.add("made"), plan.add("made")
    journal = MemoryJournal()
    assert plan.run(journal, result=first) != plan.run(journal, result=second)


def test_outside_of_a_step_there_is_no_key() -> None:
    """It is said what to write instead."""
    for ask in (step_key, step_seed):
        with pytest.raises(OutsideStep, match="only inside a step"):
            ask()


def test_a_plan_inside_a_step_has_its_own_key() -> None:
    """And the step has its own again afterwards."""
    service = Service()

    @service.handler
    def inner(key: str = Depends(step_key)) -> str:
        return key

    @service.handler
    def outer() -> list[str]:
        nested = Plan("nested", [service])
        nested.add("inner")
        return [step_key(), nested.run(MemoryJournal()), step_key()]

    plan = Plan("outer", [service])
    plan.add("outer")
    assert plan.run(MemoryJournal()) == ["outer/outer/0", "nested/inner/0", "outer/outer/0"]


def test_a_step_draws_the_same_random_numbers_whenever_it_is_run() -> None:
    """Python's, NumPy's and torch's; others in each step; however often it was interrupted before."""
    service, failing = Service(), [True]

    @service.handler
    def draw() -> list[float]:
        numbers = [random.random(), float(np.random.rand()), torch.rand(()).item()]  # noqa: NPY002, S311
        if failing:
            failing.pop()
            raise LookupError
        return numbers

    def run(journal: MemoryJournal) -> list[float]:
        plan = Plan("numbers", [service])
        first, second = plan.add("draw"), plan.add("draw")
        return [*plan.run(journal, result=first), *plan.run(journal, result=second)]

    journal = MemoryJournal()
    with pytest.raises(LookupError):
        run(journal)
    interrupted = run(journal)
    assert interrupted == run(MemoryJournal())
    assert len(set(interrupted)) == 6


def test_random_numbers_that_could_not_be_seeded_are_said() -> None:
    """Those of a library that is imported only inside the step."""
    program = (
        "from torchsystem.plans import MemoryJournal, Plan\n"
        "from torchsystem.services import Service\n"
        "service = Service()\n"
        "@service.handler\n"
        "def draw():\n"
        "    import numpy\n"
        "plan = Plan('late', [service])\n"
        "plan.add('draw')\n"
        "plan.run(MemoryJournal())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    assert "late/draw/0 imported numpy, whose random numbers were not seeded before it" in done.stderr


def test_the_seed_may_go_elsewhere_or_nowhere() -> None:
    """`seed=` is called with it, `step_seed` returns it, and None leaves random numbers alone."""
    service, seeds = Service(), list[int]()

    @service.handler
    def seed(number: int = Depends(step_seed)) -> int:
        return number

    plan = Plan("seeds", [service], seed=seeds.append)
    plan.add("seed")
    assert [plan.run(MemoryJournal())] == seeds
    random.seed(1)
    before = random.getstate()
    plan = Plan("seeds", [service], seed=None)
    plan.add("seed")
    assert [plan.run(MemoryJournal())] == seeds
    assert random.getstate() == before


@pytest.mark.parametrize("value", ["runs/{}", ["a", {"b": "{}.pt"}]], ids=str)
def test_a_reference_that_was_put_into_text_is_refused(value: Any) -> None:
    """No result could take its place: the step would be given the words that describe it."""
    plan, _ = echo_plan()
    one = plan.add("echo", value=1)
    text = f"runs/{one}"
    given = text if isinstance(value, str) else [value[0], {"b": text}]
    with pytest.raises(NotPlain, match=r"<result of step 0, echo> is known only when that step is done"):
        plan.add("echo", value=given)
    with pytest.raises(NotPlain, match=r"<result of step 0, echo> is known only when that step is done"):
        plan.add("echo", value={text: 1})
    with pytest.raises(NotPlain, match="A reference can only be a value"):
        plan.add("echo", value={one: 1})
    plan.add("echo", value="<result of step> is what it says")
    assert len(plan) == 2


def test_steps_that_are_added_while_the_plan_is_run_are_refused() -> None:
    """By a step or by a listener: that run would leave them out without a word. Afterwards they are welcome."""
    calls, journal, late = Calls(), MemoryJournal(), Consumer()
    plan = calls.plan([[], []])

    def add() -> None:
        with pytest.raises(InvalidPlan, match="is being run, and would not do what is added now"):
            plan.add("work", number=2)

    @late.handler
    def hear(event: PlanStarted | StepFinished) -> None:
        add()

    calls.behaviour[0] = add
    with plan.producer.connected(late):
        plan.run(journal)
    plan.add("work", number=2)
    assert plan.run(journal) == {"number": 2, "sum": 2}
    assert calls.made == [0, 1, 2]


def test_a_handler_that_is_replaced_does_the_steps_that_are_added_from_then_on() -> None:
    """And not the one that the plan has met before."""
    service = Service()

    @service.handler
    def work() -> str:
        return "first"

    plan = Plan("replaced", [service])
    first = plan.add("work")

    def work_again() -> str:
        return "second"

    work_again.__name__ = "work"
    service.handler(replace=True)(work_again)
    second = plan.add("work")
    journal = MemoryJournal()
    assert plan.run(journal, result=first) == "first"
    assert plan.run(journal, result=second) == "second"


def test_plans_draw_different_random_numbers() -> None:
    """In steps that are otherwise the same."""
    service = Service()

    @service.handler
    def draw(seed: int = Depends(step_seed)) -> int:
        return seed

    seeds: set[int] = set()
    for name in ("one", "two"):
        plan = Plan(name, [service])
        plan.add("draw")
        seeds.add(plan.run(MemoryJournal()))
    assert len(seeds) == 2
