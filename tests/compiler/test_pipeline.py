"""What `Compiler` promises, one rule per test."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from torch import nn

from torchsystem.compiler import Compiler, Depends
from torchsystem.depends import Provider
from torchsystem.domain import Aggregate
from torchsystem.errors import (
    EmptyPipeline,
    InvalidStep,
    TorchSystemError,
    UnboundInterface,
    UnknownStep,
    WrappedAggregate,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


class Model(Aggregate):
    """A small aggregate."""

    def __init__(self) -> None:
        super().__init__()
        self.nn = nn.Linear(2, 2)


class Pair(NamedTuple):
    """A tuple that means something as a whole."""

    first: int
    second: int


def device() -> str:  # noqa: D103 - an interface is an empty body
    ...


def named(name: str) -> Any:
    """Make a step that adds its name to a list."""

    def step(names: list[str]) -> list[str]:
        return [*names, name]

    step.__name__ = name
    return step


def pipeline(*names: str) -> Compiler[list[str]]:
    """Make a compiler of named steps."""
    compiler = Compiler[list[str]]()
    for name in names:
        compiler.step(named(name))
    return compiler


def test_steps_run_in_order_each_with_the_result_of_the_one_before() -> None:
    """The first step gets the arguments, the others what the step before returned, and the last result is returned."""
    compiler = Compiler[str]()

    @compiler.step
    def add(first: int, second: int, *, scale: int) -> int:
        return (first + second) * scale

    @compiler.step
    def write(number: int) -> str:
        return str(number)

    assert compiler.compile(1, 2, scale=10) == "30"
    assert compiler.compile(2, 3, scale=1) == "5"


@pytest.mark.parametrize(
    "result", [None, 0, False, "", [], {}, set(), Pair(1, 2), [1, 2], torch.zeros(2), torch.zeros(0)]
)
def test_a_result_is_handed_on_as_it_is(result: object) -> None:
    """None, falsy and empty results, tensors, lists and named tuples are handed on, as one argument."""
    compiler = Compiler[object]()
    seen: list[object] = []

    @compiler.step
    def make() -> object:
        return result

    @compiler.step
    def take(*given: object) -> object:
        seen.extend(given)
        return result

    assert compiler.compile() is result
    assert len(seen) == 1
    assert seen[0] is result


@pytest.mark.parametrize("result", [(), (1,), (1, None), ((1, 2),)])
def test_an_exact_tuple_is_spread(result: tuple[object, ...]) -> None:
    """A tuple is spread over the parameters of the next step, once; the last result is returned as it is."""
    compiler = Compiler[object]()

    @compiler.step
    def make() -> tuple[object, ...]:
        return result

    @compiler.step
    def take(*given: object) -> object:
        return given

    assert compiler.compile() == result


def test_steps_are_injected() -> None:
    """A step declares what it needs; overrides count from the next run on."""
    compiler = Compiler[str]()

    @compiler.step
    def build(name: str, device: str = Depends(device)) -> str:
        return f"{name} on {device}"

    with pytest.raises(UnboundInterface):
        compiler.compile("mlp")
    compiler.dependency_overrides[device] = lambda: "cpu"
    assert compiler.compile("mlp") == "mlp on cpu"
    with compiler.override(device, lambda: "cuda"):
        assert compiler.compile("mlp") == "mlp on cuda"
        assert build("cnn") == "cnn on cuda"
    assert build("cnn") == "cnn on cpu"


def test_a_provider_may_be_shared() -> None:
    """The provider given is the one used."""
    provider = Provider()
    provider.dependency_overrides[device] = lambda: "cpu"
    compiler = Compiler[str](provider=provider)
    compiler.step(lambda device=Depends(device): device)
    assert compiler.provider is provider
    assert compiler.compile() == "cpu"


def test_a_dependency_is_made_once_in_a_run_and_open_until_its_end() -> None:
    """All steps of a run share a dependency, and a generator is closed after the last of them."""
    compiler = Compiler[str]()
    log: list[str] = []

    def folder() -> Iterator[str]:
        log.append("open")
        yield "folder"
        log.append("close")

    @compiler.step
    def first(folder: str = Depends(folder)) -> str:
        log.append("first")
        return folder

    @compiler.step
    def second(name: str, folder: str = Depends(folder)) -> str:
        log.append("second")
        return name + folder

    assert compiler.compile() == "folderfolder"
    assert log == ["open", "first", "second", "close"]
    compiler.compile()
    assert log == ["open", "first", "second", "close"] * 2


def test_a_generator_dependency_sees_what_ended_the_run() -> None:
    """When a step fails, an open generator sees the exception and does not go on as if nothing had happened."""
    compiler = Compiler[None]()
    log: list[str] = []

    def folder() -> Iterator[str]:
        try:
            yield "folder"
            log.append("committed")
        except ValueError:
            log.append("rolled back")
            raise

    @compiler.step
    def first(folder: str = Depends(folder)) -> None: ...

    @compiler.step
    def second(_: None) -> None:
        raise ValueError("in the second")

    with pytest.raises(ValueError, match="in the second"):
        compiler.compile()
    assert log == ["rolled back"]


@pytest.mark.parametrize("error", [ValueError, StopIteration, KeyboardInterrupt])
def test_a_failing_step_is_named(error: type[BaseException]) -> None:
    """A note on the exception says which step it was, where it is written, and how far the pipeline had come."""
    compiler = Compiler[None]()

    @compiler.step
    def build() -> None: ...

    @compiler.step
    def move(_: None) -> None:
        raise error("lost")

    with pytest.raises(error, match="lost") as caught:
        compiler.compile()
    (note,) = caught.value.__notes__
    assert note.startswith("in step 2 of 2 of the compiler: move (test_pipeline.py:")


def test_a_result_that_does_not_fit_names_the_step_it_does_not_fit() -> None:
    """A step that cannot take what it is given is the one that is named."""
    compiler = Compiler[None]()

    @compiler.step
    def build() -> tuple[int, int]:
        return 1, 2

    @compiler.step
    def take(one: int) -> None: ...

    with pytest.raises(TypeError) as caught:
        compiler.compile()
    assert "2 of 2 of the compiler: take" in caught.value.__notes__[0]


def test_each_step_is_timed_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A line per step says which it was and how many seconds it took."""
    compiler = Compiler[list[str]](clock=iter((1.0, 1.5, 2.0, 5.25)).__next__)
    compiler.step(named("build"))
    compiler.step(named("move"))
    with caplog.at_level(logging.INFO, logger="torchsystem.compiler"):
        compiler.compile([])
    assert [record.getMessage() for record in caplog.records] == [
        "step 1 of 2, build, took 0.500 s",
        "step 2 of 2, move, took 3.250 s",
    ]


def test_a_step_is_returned_as_it_can_be_called() -> None:
    """The decorator gives a function that works by hand and keeps its name and documentation."""
    compiler = Compiler[int]()

    @compiler.step
    def build(size: int) -> int:
        """Build."""
        return size

    @compiler.step
    def move(size: int, device: str = Depends(device)) -> str:
        """Move."""
        return f"{size} on {device}"

    assert build(3) == 3
    assert move(3, "cuda") == "3 on cuda"
    assert (move.__name__, move.__doc__) == ("move", "Move.")
    assert compiler.steps == (build, move)


def test_a_step_may_be_put_before_another() -> None:
    """`before` takes a step's name, or the step itself."""
    compiler = pipeline("build", "compile")
    compiler.step(before="compile")(named("move"))
    compiler.step(before=compiler.steps[0])(named("seed"))
    assert compiler.compile([]) == ["seed", "build", "move", "compile"]


def test_a_step_may_take_the_place_of_another() -> None:
    """`replace` is there as a method and for the decorator; the others stay where they are."""
    compiler = pipeline("build", "move", "compile")
    replacement = compiler.replace("move", named("stay"))
    compiler.step(replace=compiler.steps[0])(named("load"))
    assert replacement is compiler.steps[1]
    assert compiler.compile([]) == ["load", "stay", "compile"]


def test_a_replacement_is_injected() -> None:
    """A step put in another's place may declare what it needs, too."""
    compiler = Compiler[str]()
    compiler.dependency_overrides[device] = lambda: "cpu"

    @compiler.step
    def where() -> str:
        return "nowhere"

    compiler.replace(where, lambda device=Depends(device): device)
    assert compiler.compile() == "cpu"


def test_a_step_may_be_removed() -> None:
    """`remove` takes a step's name, the step, or the function it was made of."""
    compiler = pipeline("build", "move", "compile")
    compiler.remove("move")
    compiler.remove(compiler.steps[0])
    assert compiler.compile([]) == ["compile"]

    def needy(names: list[str], device: str = Depends(device)) -> list[str]:
        return [*names, device]

    compiler.step(needy)
    compiler.remove(needy)
    assert compiler.compile([]) == ["compile"]


def test_changing_the_steps_in_a_run_changes_the_next_run() -> None:
    """The steps of a run are those there were when it began."""
    compiler = pipeline("build")

    @compiler.step
    def last(names: list[str]) -> list[str]:
        compiler.step(named("later"))
        return names

    assert compiler.compile([]) == ["build"]
    assert compiler.compile([]) == ["build", "later"]


def test_an_unknown_step_says_what_is_near() -> None:
    """A step that is not there is a KeyError that tells the steps there are."""
    compiler = pipeline("build", "compile_classifier")
    for wrong in (
        compiler.remove,
        compiler.step(before="compile_clasifier"),
        compiler.step(replace="compile_clasifier"),
    ):
        with pytest.raises(UnknownStep, match="Did you mean 'compile_classifier'") as caught:
            wrong("compile_clasifier") if wrong == compiler.remove else wrong(named("new"))
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, TorchSystemError)
    with pytest.raises(UnknownStep, match="build, compile_classifier"):
        compiler.remove(print)
    assert len(compiler.steps) == 2


def test_a_name_of_two_steps_is_no_name() -> None:
    """Steps may have the same name; asking for one of them by it is refused, and by the function is not."""
    compiler = pipeline("build", "move", "move")
    with pytest.raises(UnknownStep, match="2 steps"):
        compiler.remove("move")
    compiler.remove(compiler.steps[2])
    assert compiler.compile([]) == ["build", "move"]


def test_a_step_stands_in_one_place() -> None:
    """`before` and `replace` together are refused."""
    with pytest.raises(InvalidStep, match="one place"):
        pipeline("build").step(before="build", replace="build")


def test_what_would_not_run_is_no_step() -> None:
    """Async functions, generator functions and what cannot be called are refused when they are added."""
    compiler = Compiler[Any]()

    async def waits() -> None: ...

    def yields() -> Iterator[int]:
        yield 1

    for wrong in (waits, yields, 3, "build"):
        with pytest.raises(InvalidStep, match="Write a plain function"):
            compiler.step(wrong)
    assert compiler.steps == ()


def test_classes_and_methods_and_partials_are_steps() -> None:
    """Anything that can be called is a step."""
    compiler = Compiler[list[str]]()
    compiler.step(list)
    compiler.step(named("build"))
    compiler.step(pipeline("inner").compile)
    assert compiler.compile("ab") == ["a", "b", "build", "inner"]
    compiler.remove("list")


def test_a_compiler_without_steps_says_so() -> None:
    """There is nothing to return where there is nothing to run."""
    with pytest.raises(EmptyPipeline, match=r"compiler\.step"):
        Compiler[int]().compile()


@pytest.mark.parametrize("spread", [False, True])
def test_a_wrapped_aggregate_is_refused(*, spread: bool) -> None:
    """What torch.compile makes of an aggregate is refused in the step that returns it, with what to write instead."""
    compiler = Compiler[Any]()

    @compiler.step
    def wrap() -> Any:
        wrapper = torch.compile(Model(), backend="eager")
        return (1, wrapper) if spread else wrapper

    with pytest.raises(WrappedAggregate, match=r"torchsystem\.compiler") as caught:
        compiler.compile()
    assert "wrap" in caught.value.__notes__[0]


def test_a_wrapped_module_is_handed_on() -> None:
    """What torch.compile makes of any other module is the user's to have."""
    compiler = Compiler[Any]()
    compiler.step(lambda: torch.compile(nn.Linear(2, 2), backend="eager"))
    assert isinstance(compiler.compile(), nn.Module)
