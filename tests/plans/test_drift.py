"""Drift: a plan that is no longer the one that its journal knows is refused, or accepted by a word."""

from __future__ import annotations

import importlib.util
import os
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plans.fakes import Calls, Crash
from torchsystem.errors import InvalidPlan, PlanDrift, UnknownJournalStep
from torchsystem.plans import MemoryJournal, Plan, step_key
from torchsystem.services import Service

if TYPE_CHECKING:
    from pathlib import Path

Steps = list[tuple[str, dict[str, Any]]]


class World:
    """A journal, and plans of changing steps over it; `ran` says what was done since it was last asked."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()
        self.done: list[str] = []
        self.failing: set[str] = set()

    @property
    def ran(self) -> list[str]:
        """What was done, and empty it."""
        done, self.done = self.done, []
        return done

    def plan(self, *steps: tuple[str, Any], versions: dict[str, str] | None = None) -> Plan:
        """Plan steps: pairs of an action, `a` to `c`, and an argument; a number below 0 refers back by so many."""
        service = Service()

        def do(action: str, value: object) -> str:
            self.done.append(f"{action}{value}")
            if f"{action}{value}" in self.failing:
                raise LookupError(action)
            return f"{action}{value}"

        @service.handler
        def a(value: object) -> str:
            return do("a", value)

        @service.handler
        def b(value: object) -> str:
            return do("b", value)

        @service.handler
        def c(value: object) -> str:
            return do("c", value)

        plan = Plan("drifting", [service], versions=versions)
        references: list[Any] = []
        for action, value in steps:
            back = isinstance(value, int) and value < 0
            references.append(plan.add(action, value=references[value] if back else value))
        return plan

    def run(self, *steps: tuple[str, Any], versions: dict[str, str] | None = None, **options: Any) -> Any:
        """Run such a plan."""
        return self.plan(*steps, versions=versions).run(self.journal, **options)


def test_changed_arguments_are_refused_by_name_or_accepted() -> None:
    """The step is named, with what its arguments were and are; accepted once, it is as it is."""
    world = World()
    world.run(("a", 1), ("b", -1))
    with pytest.raises(PlanDrift, match=r'a/0: its arguments were \{"value":1\}, and are \{"value":2\}') as caught:
        world.run(("a", 2), ("b", -1))
    assert list(caught.value.changes) == ["a/0"]
    assert world.ran == ["a1", "ba1"]
    assert world.run(("a", 2), ("b", -1), accept="arguments") == "ba1"
    assert world.run(("a", 2), ("b", -1)) == "ba1"
    assert world.ran == []
    assert 'its arguments were {"value":1}' in world.plan(("a", 2), ("b", -1)).show(world.journal)


def test_the_order_of_keys_is_no_change() -> None:
    """In a dict, at any depth."""
    world = World()
    world.run(("a", {"x": 1, "y": [{"u": 2, "v": 3}]}))
    assert world.run(("a", {"y": [{"v": 3, "u": 2}], "x": 1})) == "a{'x': 1, 'y': [{'u': 2, 'v': 3}]}"


def test_a_changed_version_is_refused_by_name_or_accepted() -> None:
    """Here one that is given; that of the code is the next test."""
    world = World()
    world.run(("a", 1), ("b", 1), versions={"a": "one"})
    with pytest.raises(PlanDrift, match="a/0: its code was of version one, and is of two"):
        world.run(("a", 1), ("b", 1), versions={"a": "two"})
    assert world.run(("a", 1), ("b", 1), versions={"a": "two"}, accept=["code"]) == "b1"
    assert world.run(("a", 1), ("b", 1), versions={"a": "two"}) == "b1"
    assert world.ran == ["a1", "b1"]


def written(text: str) -> Service:
    """Return a service whose `train` is this text."""
    service = Service()
    scope: dict[str, Any] = {}
    exec(text, scope)  # noqa: S102 - our own text
    service.handler(scope["train"])
    return service


def test_changed_code_is_noticed() -> None:
    """Of a function without a file by its byte code: constants, names and operations."""
    journal = MemoryJournal()

    def run(text: str) -> Any:
        plan = Plan("code", [written(text)])
        plan.add("train", lr=2)
        return plan.run(journal)

    assert run("def train(lr): return lr * 2") == 4
    assert run("def train(lr):\n    # twice\n    return lr * 2") == 4
    for changed in ("return lr * 3", "return lr + 2", "return abs(lr) * 2", "return (lambda x: x * 2)(lr)"):
        with pytest.raises(PlanDrift, match="train/0: its code was of version"):
            run(f"def train(lr): {changed}")


@pytest.mark.parametrize("change", [("by=2", "by=3"), ("by=2", "*, by=2"), ("*, by=2", "*, by=3"), ("by=(1,)", "by=2")])
def test_changed_defaults_of_a_function_without_a_file_are_noticed(change: tuple[str, str]) -> None:
    """They are no part of its byte code."""
    from torchsystem.plans.versions import version_of  # noqa: PLC0415

    versions = [version_of(written(f"def train(lr, {by}): return lr").handlers["train"]) for by in change]
    assert versions[0] != versions[1]
    assert versions[0] == version_of(written(f"def train(lr, {change[0]}): return lr").handlers["train"])


def test_changed_code_is_noticed_through_injection() -> None:
    """The version is that of what was written, not of what is generated around it."""
    from torchsystem.plans.versions import version_of  # noqa: PLC0415
    from torchsystem.services import Depends  # noqa: PLC0415

    def device() -> str:
        return "cpu"

    def one(device: str = Depends(device)) -> str:
        return device

    def two(device: str = Depends(device)) -> str:
        return device + "!"

    service = Service()
    assert version_of(service.handler(one)) == version_of(one) != version_of(service.handler(two)) == version_of(two)


def test_comments_layout_and_docstring_are_no_change() -> None:
    """What a function does is told by its text, written in one way."""
    from torchsystem.plans.versions import version_of  # noqa: PLC0415

    def make_one() -> Any:
        def train(lr: float) -> float:
            return max(lr, 1.0)

        return train

    def make_two() -> Any:
        def train(lr: float) -> float:
            """Train."""
            # as before
            return max(
                lr,
                1.0,
            )

        return train

    def make_three() -> Any:
        def train(lr: float = 0.1) -> float:
            return max(lr, 1.0)

        return train

    assert version_of(make_one()) == version_of(make_two())
    assert version_of(make_one()) != version_of(make_three())


def imported(path: Path) -> Any:
    """Return the function `train` of a module, imported anew."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.train


def test_a_file_that_changed_since_is_not_the_text_of_what_runs(tmp_path: Path) -> None:
    """As in a notebook, or in a worker that has imported it before: the old function is not taken for the new one."""
    from torchsystem.plans.versions import BEGUN, version_of  # noqa: PLC0415

    path, times = tmp_path / "module_that_changes.py", count(3600)

    def write(text: str) -> None:
        path.write_text(f"number = 0\n\n\n{text}")
        os.utime(path, (BEGUN + next(times),) * 2)

    write("def train(lr):\n    return [lr * 2 for _ in range(3)]\n")
    first, seen = imported(path), version_of(imported(path))
    write("# as before\ndef train(lr):\n    return [lr * 2 for _ in range(3)]\n")
    assert version_of(first) == version_of(imported(path)) == seen
    old = imported(path)
    write("def train(lr):\n    return [lr * 3 for _ in range(3)]\n")
    assert len({seen, version_of(old), version_of(imported(path))}) == 3
    write("def train(lr, times=3):\n    return lr * times\n")
    other = imported(path)
    write("def train(lr, times=4):\n    return lr * times\n")
    assert version_of(other) != version_of(imported(path))
    write("def train(lr):\n    return lr\n")
    moved = imported(path)
    write("def other(lr):\n    return lr\n\n\ndef train(lr):\n    return lr\n")
    assert version_of(moved) == version_of(imported(path))
    half = imported(path)
    write("def train(lr):\n    return [")
    assert version_of(half) not in {seen, version_of(old)}


def test_another_order_is_refused_by_name_or_accepted() -> None:
    """Every result is found where its step stands now."""
    world = World()
    world.run(("a", 1), ("a", 2), ("b", 1))
    with pytest.raises(PlanDrift, match="it was step 0, and is step 1"):
        world.run(("a", 2), ("a", 1), ("b", 1))
    assert world.run(("b", 1), ("a", 2), ("a", 1), accept="order") == "a1"
    assert world.run(("b", 1), ("a", 2), ("a", 1)) == "a1"
    assert world.ran == ["a1", "a2", "b1"]


def test_a_step_that_came_in_between_is_refused_or_done() -> None:
    """No result of another is taken for its own: steps are found by what they do."""
    world = World()
    world.run(("a", 0), ("a", 1), ("b", -1))
    with pytest.raises(PlanDrift, match="a/2: it is new, and stands before b/0"):
        world.run(("a", 9), ("a", 0), ("a", 1), ("b", -1))
    assert world.run(("a", 9), ("a", 0), ("a", 1), ("b", -1), accept="order") == "ba1"
    assert world.ran == ["a0", "a1", "ba1", "a9"]


def test_a_step_that_is_gone_is_refused_or_forgotten_until_it_comes_back() -> None:
    """Its result is kept: it may have been expensive."""
    world = World()
    world.run(("a", 1), ("b", 2), ("c", 3))
    with pytest.raises(PlanDrift, match="b/0: the plan no longer has it"):
        world.run(("a", 1), ("c", 3))
    assert world.run(("a", 1), ("c", 3), accept="order") == "c3"
    assert world.run(("a", 1), ("c", 3)) == "c3"
    assert world.run(("a", 1), ("c", 3), ("b", 2)) == "b2"
    assert world.ran == ["a1", "b2", "c3"]


def test_what_is_left_or_failed_is_done_as_it_is_now() -> None:
    """Nothing was done with the old arguments or code that could be wrong: a mistake is mended and run again."""
    world = World()
    world.failing.add("b1")
    with pytest.raises(LookupError):
        world.run(("a", 1), ("b", 1), ("c", 1))
    assert world.run(("a", 1), ("b", 2), ("c", 2), versions={"b": "mended"}) == "c2"
    assert world.ran == ["a1", "b1", "b2", "c2"]


def test_a_failed_step_that_is_given_something_else_has_another_key() -> None:
    """It does not go on from what it left behind when it was given something else; as it was, or mended, it does."""
    service, keys, journal = Service(), list[str](), MemoryJournal()

    @service.handler
    def train(lr: int) -> None:
        keys.append(f"{lr} {step_key()}")
        raise ArithmeticError("the loss is nan")

    for lr, version in ((2, "1"), (2, "1"), (2, "mended"), (1, "mended"), (1, "mended")):
        plan = Plan("keys", [service], versions={"train": version})
        plan.add("train", lr=lr)
        with pytest.raises(ArithmeticError):
            plan.run(journal)
    assert keys == [*["2 keys/train/0"] * 3, *["1 keys/train/0~1"] * 2]


def test_what_was_interrupted_counts_as_done() -> None:
    """It may go on from a checkpoint of its own, which the change would be mixed with."""
    world = World()
    number = world.journal.acquire("drifting", "[]", 1.0).number
    plan = world.plan(("a", 1))
    world.journal.release("drifting", number)
    plan.run(world.journal)
    records = world.journal.records("drifting")
    number = world.journal.acquire("drifting", "[]", 1.0).number
    world.journal.reset("drifting", number, ["a/0"])
    world.journal.start("drifting", number, "a/0", '["elsewhere", "", 1, "", ""]', 2.0)
    world.journal.release("drifting", number)
    assert records[0].state == "finished"
    with pytest.raises(PlanDrift, match="a/0: its arguments were"):
        world.run(("a", 2))
    assert world.run(("a", 1)) == "a1"


def test_only_what_is_accepted_is_accepted() -> None:
    """The message names the words that are missing, and a word that means nothing is refused."""
    world = World()
    world.run(("a", 1), ("b", 2))
    with pytest.raises(PlanDrift, match=r"accept=\['arguments', 'order'\]") as caught:
        world.run(("b", 2), ("a", 9), accept="arguments")
    assert caught.value.changes == {"a/0": ["it was step 0, and is step 1"]}
    with pytest.raises(InvalidPlan, match="'anything'"):
        world.run(("a", 1), ("b", 2), accept=["anything"])


def test_a_long_list_of_changes_is_cut_in_the_message_alone() -> None:
    """All of them are in `changes`."""
    world = World()
    world.run(*[("a", number) for number in range(30)])
    with pytest.raises(PlanDrift, match=r"and 20 more") as caught:
        world.run(*[("a", number + 100) for number in range(30)])
    assert len(caught.value.changes) == 30


def test_a_reset_step_is_done_again_and_all_that_refer_to_it() -> None:
    """At any depth; others are not."""
    world = World()
    steps = [("a", 1), ("b", -1), ("c", -1), ("a", 2)]
    world.run(*steps)
    plan = world.plan(*steps)
    assert plan.reset("b/0", world.journal) == ["b/0", "c/0"]
    assert plan.run(world.journal) == "a2"
    assert world.ran == ["a1", "ba1", "cba1", "a2", "ba1", "cba1"]


@pytest.mark.parametrize("now", [[("a", 2)], [("a", 2), ("b", 5)]], ids=["dropped", "changed"])
def test_a_reset_reaches_what_refers_to_the_step_in_the_journal_alone(now: Steps) -> None:
    """When it is back in the plan, its old result is not taken for one of the new."""
    world = World()
    world.run(("a", 1), ("b", -1), ("c", -1))
    plan = world.plan(*now)
    assert plan.reset("a/0", world.journal) == ["a/0", "b/0"][: len(now)]
    assert world.run(("a", 2), accept="order") == "a2"
    assert world.ran == ["a1", "ba1", "cba1", "a2"]
    assert world.run(("a", 2), ("b", -1), ("c", -1)) == "cba2"
    assert world.ran == ["ba2", "cba2"]


def test_a_reset_reaches_what_refers_to_the_step_in_the_plan_alone() -> None:
    """As the plan is now: what the journal does not know yet is no drift then."""
    world = World()
    world.run(("a", 1), ("b", 5))
    assert world.plan(("a", 1), ("b", -1)).reset("a/0", world.journal) == ["a/0", "b/0"]
    assert world.run(("a", 1), ("b", -1)) == "ba1"


def test_a_reset_leaves_alone_what_was_never_done() -> None:
    """It keeps its key, for no effect was left out because of it."""
    world = World()
    world.failing.add("ba1")
    steps = [("a", 1), ("b", -1), ("c", -1)]
    with pytest.raises(LookupError):
        world.run(*steps)
    assert world.plan(*steps).reset("a/0", world.journal) == ["a/0", "b/0", "c/0"]
    assert [record.generation for record in world.journal.records("drifting")] == [1, 1, 0]


def test_a_reset_mends_changed_arguments() -> None:
    """What is done anew is done as the plan is now."""
    world = World()
    world.run(("a", 1), ("b", -1))
    plan = world.plan(("a", 2), ("b", -1))
    plan.reset("a/0", world.journal)
    assert plan.run(world.journal) == "ba2"


def test_a_reset_step_has_another_key() -> None:
    """An effect that was left out because it was there already is wanted anew."""
    service = Service()

    @service.handler
    def key() -> str:
        return step_key()

    plan, journal = Plan("keys", [service]), MemoryJournal()
    step = plan.add("key")
    found = [plan.run(journal)]
    for _ in range(2):
        plan.reset(step)
        found.append(plan.run(journal))
    assert found == ["keys/key/0", "keys/key/0~1", "keys/key/0~2"]


def test_resetting_what_is_not_there_is_refused() -> None:
    """By name; and so is a reset that knows no journal."""
    world = World()
    plan = world.plan(("a", 1))
    with pytest.raises(InvalidPlan, match=r"plan.reset\(step, journal\)"):
        plan.reset("a/0")
    plan.run(world.journal)
    with pytest.raises(UnknownJournalStep, match=r"no step 'a/1'\. There are a/0"):
        plan.reset("a/1")


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(-1, 3)), min_size=1, max_size=6),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(-1, 3)), min_size=1, max_size=6),
)
def test_a_result_is_never_that_of_other_work(first: Steps, second: Steps) -> None:
    """Whatever a plan becomes: accepting the order alone, each result is what its step would give now."""
    first, second = ([(action, value) for action, value in steps if value >= 0] for steps in (first, second))  # type: ignore[operator]
    if not first or not second:
        return
    world = World()
    world.run(*first)
    try:
        result = world.run(*second, accept="order")
    except PlanDrift as drift:
        assert all("arguments" in text for texts in drift.changes.values() for text in texts)  # noqa: PT017
    else:
        assert result == "".join(map(str, second[-1]))
        assert world.run(*second) == result


def test_an_interrupted_step_whose_code_changed_is_refused_or_accepted() -> None:
    """Its checkpoint is of the code that it was."""
    calls, journal = Calls(), MemoryJournal()

    def crash() -> None:
        raise Crash

    calls.behaviour[0] = crash
    with pytest.raises(Crash):
        calls.plan([[]], versions={"work": "1"}).run(journal)
    calls.behaviour.clear()
    changed = calls.plan([[]], versions={"work": "2"})
    with pytest.raises(PlanDrift, match="its code was of version 1, and is of 2"):
        changed.run(journal)
    assert changed.run(journal, accept="code") == {"number": 0, "sum": 0}


class Histories:
    """A journal, and plans over it of which each result says how manyth it is, and what it was made from."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()
        self.done = 0
        self.failing: str | None = None

    def plan(self, steps: list[tuple[str, int]]) -> tuple[Plan, list[Any]]:
        """Plan steps, `a` or `b`, of a number; one below 0 refers back by so many, if there are."""
        service = Service()

        def do(action: str, value: object) -> list[Any]:
            if action == self.failing:
                raise LookupError(action)
            self.done += 1
            return [f"{action}, no. {self.done}", value]

        @service.handler
        def a(value: object) -> list[Any]:
            return do("a", value)

        @service.handler
        def b(value: object) -> list[Any]:
            return do("b", value)

        plan, references = Plan("history", [service]), list[Any]()
        for action, value in steps:
            references.append(plan.add(action, value=made_from(references, value)))
        return plan, references


def made_from(known: list[Any], value: int) -> Any:
    """Return a number, or what is so far back."""
    return known[value] if -len(known) <= value < 0 else value


STEPS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(-3, 2)), min_size=1, max_size=5)


@given(st.lists(st.tuples(STEPS, st.sampled_from(["run", "reset", "a", "b"]), st.integers(0, 4)), max_size=7))
def test_results_are_made_from_those_that_are_there(history: list[tuple[list[tuple[str, int]], str, int]]) -> None:
    """Whatever a plan has been before, with failing steps and resets in between: no result is of one that is gone."""
    world = Histories()
    for steps, what, number in history:
        plan, references = world.plan(steps)
        if what == "reset":
            plan.reset(references[number % len(steps)], world.journal)
        world.failing = what
        try:
            plan.run(world.journal, accept="order")
        except (PlanDrift, LookupError):
            continue
        done = world.done
        results = [plan.run(world.journal, result=reference) for reference in references]
        for place, (action, value) in enumerate(steps):
            assert results[place][0].startswith(f"{action}, ")
            assert results[place][1] == made_from(results[:place], value)
        assert world.done == done
