"""The contract of dependencies with a clean-up, over random graphs, failure points and kinds of exceptions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.depends import graphs
from tests.depends.graphs import Graph, World
from torchsystem.depends import inject

any_graph = graphs.graphs() | graphs.graphs(is_async=True)


def check(graph: Graph, value: object, raised: BaseException | None, log: list[object]) -> None:
    """Compare what happened with the model."""
    expected_log, error, failures = graph.expected()
    assert log == expected_log
    assert [id(entry[-1]) for entry in log if entry[0] == "close"] == [  # type: ignore[index]
        id(entry[-1]) for entry in expected_log if entry[0] == "close"
    ]
    if not failures:
        assert raised is error
    elif len(failures) == 1:
        assert raised is failures[0]
    else:
        assert isinstance(raised, BaseExceptionGroup)
        assert isinstance(raised, ExceptionGroup) == all(isinstance(failure, Exception) for failure in failures)
        assert [id(failure) for failure in raised.exceptions] == [id(failure) for failure in failures]
    if failures and error is not None:
        assert raised is not None
        assert error in contexts(raised)
    if raised is None:
        assert isinstance(value, tuple)


def contexts(error: BaseException) -> list[BaseException]:
    """List what was on its way when ``error`` was raised."""
    found: list[BaseException] = []
    while error.__context__ is not None and error.__context__ not in found:
        error = error.__context__
        found.append(error)
    return found


@given(any_graph)
def test_what_was_opened_is_closed_in_reverse_whatever_fails(graph: Graph) -> None:
    """Clean-up is the exact reverse of set-up at every depth, each generator once, each seeing what ended the block.

    Failing clean-ups do not keep others from running: one is raised as itself, several as one group, with the
    exception that ended the block as their context; nobody swallows that one.
    """
    world = World(graph)
    value, raised = world.run()
    check(graph, value, raised, world.log)


@given(any_graph)
def test_a_second_call_is_like_the_first(graph: Graph) -> None:
    """Nothing is left behind by a call, however it ended: the next one does the same."""
    world = World(graph)
    world.run()
    world.log.clear()
    value, raised = world.run()
    check(graph, value, raised, world.log)


@given(graphs.graphs())
def test_the_generated_code_does_what_the_simple_solver_does(graph: Graph) -> None:
    """The generated function and the step-by-step solver behave alike: values, order, and what is raised."""
    generated, simple = World(graph), World(graph)
    value, raised = generated.run()
    simple_value, simple_raised = None, None
    try:
        with simple.provider.session() as call:
            simple_value = call(simple.plain_handler)
    except BaseException as error:  # noqa: BLE001 - that is the question
        simple_raised = error
    assert simple.log == generated.log
    if raised is None:
        assert simple_value == value
    if isinstance(raised, BaseExceptionGroup):
        assert isinstance(simple_raised, BaseExceptionGroup)
        assert simple_raised.exceptions == raised.exceptions
    else:
        assert simple_raised is raised


@given(graphs.graphs(failing=False), st.data())
def test_a_dependency_passed_by_hand_is_not_made(graph: Graph, data: st.DataObject) -> None:
    """An explicit argument wins; it is not made, nor is what only it would have needed."""
    world = World(graph)
    given_ = data.draw(st.sets(st.sampled_from(graph.wants)))
    value = world.handler(**{f"n{index}": f"given {index}" for index in given_})
    rest = Graph(graph.specs, tuple(want for want in graph.wants if want not in given_))
    assert world.log == rest.expected()[0]
    for index, got in zip(graph.wants, value, strict=True):
        assert got == f"given {index}" if index in given_ else got[0] == index


@given(graphs.graphs(), st.integers(0, 3))
def test_a_generator_handler_keeps_its_dependencies_open(graph: Graph, steps: int) -> None:
    """A handler that is a generator opens at its first `next`, and closes when it is exhausted, closed or fails."""
    if graph.handler_error is StopIteration:
        graph.handler_error = None  # a generator cannot raise it
    world = World(graph)

    def handler(*values: object) -> Iterator[int]:
        yield from range(3)
        world.plain_handler(*values)

    stream = inject(world.provider)(world.with_needs(handler, graph.wants, "handler"))()
    assert world.log == []
    raised: BaseException | None = None
    try:
        for _ in range(steps):
            next(stream)
        if steps == 3:
            next(stream, None)
        stream.close()
    except BaseException as error:  # noqa: BLE001 - that is the question
        raised = error
    closed = [entry[1] for entry in world.log if entry[0] == "close"]
    assert closed == opened(world)[::-1]
    if steps == 3:
        check(graph, (), raised, world.log)


def opened(world: World) -> list[int]:
    """List the generators that were opened, in order."""
    made = [entry[1] for entry in world.log if entry[0] == "make"]
    specs = world.graph.specs
    return [index for index in made if specs[index].cleans_up and specs[index].fails != "setup"]


@pytest.mark.parametrize("kind", ["plain", "generator"])
def test_the_first_is_closed_at_once_when_the_second_fails(kind: str) -> None:
    """What was opened is closed before the exception reaches the caller, not when its traceback dies."""
    graph = Graph([graphs.Spec((), "generator"), graphs.Spec((), kind, "setup")], (0, 1))
    world = World(graph)
    with pytest.raises(ValueError, match="at 1") as caught:
        world.handler()
    assert world.log[-1] == ("close", 0, caught.value)
