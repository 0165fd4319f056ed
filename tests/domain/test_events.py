"""What `Events` promises, one rule per test."""

import functools
import pickle
from collections import deque
from copy import copy, deepcopy
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

import pytest
import torch

from torchsystem import Depends, Provider, inject
from torchsystem.domain import Event, Events
from torchsystem.errors import InvalidEventHandler, InvalidEventType, TorchSystemError


@dataclass
class Improved(Event):
    """Something that happened."""

    loss: float = 0.0


class Worsened(Event):
    """Something else that happened."""


def test_events_are_handled_first_in_first_out() -> None:
    """Handle events in the order in which they were enqueued."""
    events, seen = Events(), []
    events.handlers[int] = seen.append
    for event in (3, 1, 2):
        events.enqueue(event)
    events.commit()
    assert seen == [3, 1, 2]
    assert not events.queue


def test_dequeue_takes_the_first_and_gives_none_when_empty() -> None:
    """Dequeue returns the first event without handling it, and None from an empty queue."""
    events = Events()
    events.enqueue(Improved)
    events.enqueue(Worsened)
    assert events.dequeue() is Improved
    assert list(events.queue) == [Worsened]
    assert events.dequeue() is Worsened
    assert events.dequeue() is None


@pytest.mark.parametrize("event", [0, "", 0.0, False, [], (), None, deque(), torch.tensor(0)])
def test_a_falsy_event_is_an_event(event: object) -> None:
    """An event is handled whatever its truth value, and so are those behind it."""
    events, seen = Events(), []
    events.handlers[object] = seen.append
    events.enqueue(event)
    events.enqueue("behind")
    events.commit()
    assert len(seen) == 2
    assert seen[0] is event


def test_an_event_without_truth_value_is_an_event() -> None:
    """Nothing asks an event for its truth: a tensor of two elements has none."""
    events, seen = Events(), []
    events.handlers[torch.Tensor] = seen.append
    events.enqueue(torch.zeros(2))
    events.commit()
    assert len(seen) == 1


@pytest.mark.parametrize("event", [Improved, Improved(0.5)])
def test_events_are_classes_or_instances(event: object) -> None:
    """A class and its instances reach the same handler, which gets what was enqueued."""
    events, seen = Events(), []
    events.handlers[Improved] = seen.append
    events.enqueue(event)
    events.commit()
    assert seen[0] is event


def test_a_handler_of_a_base_class_gets_its_subclasses() -> None:
    """`handlers[ValueError]` is found for a subclass of it, class or instance."""
    events, seen = Events(), []
    events.handlers[ValueError] = seen.append
    events.enqueue(UnicodeError)
    events.enqueue(UnicodeError("of text"))
    events.commit()
    assert len(seen) == 2


def test_the_nearest_class_in_the_mro_that_has_a_handler_gets_the_event() -> None:
    """Only the nearest class's handlers are called, whatever the order of assignment."""

    class Left: ...

    class Right: ...

    class Both(Left, Right): ...

    events, seen = Events(), []
    events.handlers[object] = lambda: seen.append("object")
    events.handlers[Right] = lambda: seen.append("right")
    events.enqueue(Both())
    events.commit()
    events.handlers[Left] = lambda: seen.append("left")
    events.enqueue(Both())
    events.commit()
    events.handlers[Both] = lambda: seen.append("both")
    events.enqueue(Both())
    events.commit()
    del events.handlers[Both], events.handlers[Left]
    events.enqueue(Both())
    events.commit()
    assert seen == ["right", "left", "both", "right"]


def test_a_handler_takes_the_event_or_nothing() -> None:
    """A handler is given the event if it has a parameter for it, however that is spelled."""
    events, seen = Events(), []

    class Listener:
        def takes(self, event: object) -> None:
            seen.append(event)

        def takes_nothing(self) -> None:
            seen.append("nothing")

        def __call__(self, event: object) -> None:
            seen.append(event)

    events.handlers[int] = [
        lambda event: seen.extend([event]),
        lambda: seen.append("nothing"),
        lambda *events: seen.extend(events),
        lambda **options: seen.append(options),
        lambda event=None: seen.append(event),
        lambda *, option=None: seen.append(option),
        Listener().takes,
        Listener().takes_nothing,
        Listener(),
        functools.partial(lambda first, event: seen.append((first, event)), "first"),
        seen.append,
    ]
    events.handle(7)
    assert seen == [7, "nothing", 7, {}, 7, None, 7, "nothing", 7, ("first", 7), 7]


def test_an_injected_handler_takes_the_event_where_it_has_a_parameter_for_it() -> None:
    """A dependency is not for the event, whether it is marked in the default or in the annotation."""
    events, seen = Events(), []
    provider = Provider()

    def device() -> str:
        return "cpu"

    @events.on(int)
    @inject(provider)
    def in_default(device: str = Depends(device)) -> None:
        seen.append(device)

    @events.on(int)
    @inject(provider)
    def in_annotation(device: Annotated[str, Depends(device)]) -> None:
        seen.append(device)

    @events.on(int)
    @inject(provider)
    def beside(event: int, device: Annotated[str, Depends(device)]) -> None:
        seen.append((event, device))

    events.handle(7)
    assert seen == ["cpu", "cpu", (7, "cpu")]


def test_a_handler_whose_dependencies_nobody_makes_is_refused() -> None:
    """Events have no provider: a function with dependencies has to be injected before."""

    def device() -> str:
        return "cpu"

    def handler(event: int, device: str = Depends(device)) -> None: ...

    with pytest.raises(InvalidEventHandler, match="inject"):
        Events().handlers[int] = handler


def test_an_annotation_under_type_checking_does_not_matter() -> None:
    """The annotation of an event's parameter may be a name that exists for type checkers only."""

    def handler(event: "Missing") -> None:  # noqa: F821
        seen.append(event)

    events, seen = Events(), []
    events.handlers[int] = handler
    events.handle(7)
    assert seen == [7]


def test_a_builtin_without_signature_gets_the_event() -> None:
    """What cannot be inspected is called with the event."""
    events, seen = Events(), {}
    events.handlers[dict] = seen.update
    events.handle({"loss": 0.5})
    assert seen == {"loss": 0.5}


def test_a_sequence_of_handlers_is_called_in_order() -> None:
    """Several functions handle an event one after the other, from a list or a tuple."""
    events, seen = Events(), []
    first, second = (lambda: seen.append(1)), (lambda: seen.append(2))
    events.handlers[int] = [first, second]
    events.handlers[str] = (second, first)
    events.enqueue(0)
    events.enqueue("")
    events.commit()
    assert seen == [1, 2, 2, 1]
    assert events.handlers[int] == (first, second)


def test_a_callable_that_is_iterable_is_a_callable() -> None:
    """A callable object is called, also if it could be taken for a sequence of handlers."""

    class Steps(list[object]):
        def __call__(self, event: object) -> None:
            seen.append(event)

    class Pair(tuple[object, ...]):
        __slots__ = ()

        def __call__(self, event: object) -> None:
            seen.append(event)

    events, seen = Events(), []
    for handler in (Steps(), Steps([print]), Pair(), torch.nn.Sequential(torch.nn.Identity())):
        events.handlers[torch.Tensor] = handler
        assert events.handlers[torch.Tensor] is handler
        events.handle(torch.zeros(1))
        deepcopy(events).handle(torch.zeros(1))
    assert len(seen) == 6


def test_on_adds_a_handler_and_returns_the_function() -> None:
    """`on` is a decorator: it leaves the function as it is and adds it after the handlers already there."""
    events, seen = Events(), []

    @events.on(Improved)
    def first() -> None:
        seen.append("first")

    assert events.handlers[Improved] is first

    @events.on(Improved)
    def second(event: Improved) -> None:
        seen.append(event.loss)

    assert events.handlers[Improved] == (first, second)
    events.handle(Improved(0.25))
    first()
    assert seen == ["first", 0.25, "first"]


def test_assigning_replaces() -> None:
    """A handler assigned to a class takes the place of the former ones, also after events have come."""
    events, seen = Events(), []
    events.handlers[int] = lambda: seen.append("old")
    events.handle(1)
    events.handlers[int] = lambda: seen.append("new")
    events.handle(1)
    assert seen == ["old", "new"]


def test_handlers_can_be_assigned_as_a_whole() -> None:
    """A dictionary takes the place of all handlers, and is checked like single assignments."""
    events, seen = Events(), []
    events.handlers[str] = lambda: seen.append("gone")
    events.handlers = {int: seen.append}
    events.handle(1)
    events.handle("")
    assert seen == [1]
    with pytest.raises(InvalidEventType):
        events.handlers = {"int": seen.append}


def test_an_unhandled_event_is_gone() -> None:
    """An event that is no exception and that nobody handles is spent by the commit."""
    events = Events()
    events.enqueue(Improved())
    events.enqueue(Worsened)
    events.commit()
    assert not events.queue


@pytest.mark.parametrize("error", [StopIteration, KeyboardInterrupt, SystemExit, GeneratorExit, ValueError])
@pytest.mark.parametrize("as_instance", [False, True])
def test_an_unhandled_exception_is_raised_at_commit(error: type[BaseException], *, as_instance: bool) -> None:
    """Exceptions are events, `BaseException` included: not raised when enqueued, and raised by commit unhandled."""
    events = Events()
    event = error("why") if as_instance else error
    events.enqueue(event)
    with pytest.raises(error) as caught:
        events.commit()
    assert not as_instance or caught.value is event
    assert not events.queue


@pytest.mark.parametrize("error", [StopIteration, KeyboardInterrupt, SystemExit, ValueError])
def test_a_handled_exception_is_not_raised(error: type[BaseException]) -> None:
    """An exception that has a handler is an event like any other."""
    events, seen = Events(), []
    events.handlers[error] = seen.append
    events.enqueue(error)
    events.commit()
    assert seen == [error]


def test_equal_requests_are_dropped_when_one_is_raised() -> None:
    """Training and validation may both ask to stop: one stop is raised, and none waits for the next run."""
    events = Events()
    for event in (StopIteration, StopIteration(), Improved(), StopIteration(), StopIteration):
        events.enqueue(event)
    with pytest.raises(StopIteration):
        events.commit()
    assert list(events.queue) == [Improved()]
    events.commit()


def test_different_requests_stay_queued() -> None:
    """Only equal requests are dropped: another class, another reason or other attributes ask for something else."""

    class Stop(Exception):
        def __init__(self, *, reason: str) -> None:
            self.reason = reason

    plateau, limit = Stop(reason="plateau"), Stop(reason="limit")
    others = [limit, ValueError("plateau"), StopIteration("plateau"), Stop, Improved]
    events = Events()
    events.enqueue(plateau)
    for event in (*others, Stop(reason="plateau")):
        events.enqueue(event)
    with pytest.raises(Stop):
        events.commit()
    assert list(events.queue) == others


def test_requests_that_cannot_be_compared_stay_queued() -> None:
    """An exception that carries tensors is raised as itself: comparing it with others never fails."""
    events = Events()
    first, second = ValueError(torch.zeros(2)), ValueError(torch.zeros(2))
    events.enqueue(first)
    events.enqueue(second)
    with pytest.raises(ValueError, match="tensor") as caught:
        events.commit()
    assert caught.value is first
    assert list(events.queue) == [second]


def test_handling_by_hand_leaves_the_queue_alone() -> None:
    """`handle` is for one event, queued or not: it raises an unhandled exception and drops nothing."""
    events = Events()
    events.enqueue(StopIteration)
    with pytest.raises(StopIteration):
        events.handle(StopIteration)
    assert list(events.queue) == [StopIteration]


def test_a_handler_may_enqueue() -> None:
    """What a handler enqueues is handled by the same commit, after what was queued before."""
    events, seen = Events(), []

    def handle(number: int) -> None:
        seen.append(number)
        if number < 10:
            events.enqueue(number * 10)

    events.handlers[int] = handle
    events.enqueue(1)
    events.enqueue(2)
    events.commit()
    assert seen == [1, 2, 10, 20]


def test_a_handler_may_commit() -> None:
    """A commit within a commit handles the rest, once and in order."""
    events, seen = Events(), []

    def handle(number: int) -> None:
        seen.append(number)
        events.commit()

    events.handlers[int] = handle
    for number in range(4):
        events.enqueue(number)
    events.commit()
    assert seen == [0, 1, 2, 3]


def test_a_failing_handler_spends_its_event() -> None:
    """When a handler raises, its event is gone, the rest stays queued, and the next commit goes on."""
    events, seen = Events(), []

    def handle(number: int) -> None:
        seen.append(number)
        if number == 1:
            message = "at one"
            raise ValueError(message)

    events.handlers[int] = handle
    for number in range(3):
        events.enqueue(number)
    with pytest.raises(ValueError, match="at one"):
        events.commit()
    assert list(events.queue) == [2]
    events.commit()
    assert seen == [0, 1, 2]


def test_a_failing_handler_of_an_exception_drops_nothing() -> None:
    """A handled exception is no raised request, also if its handler raises the very same."""
    events = Events()

    @events.on(StopIteration)
    def again(event: StopIteration) -> None:
        raise event

    events.enqueue(StopIteration())
    events.enqueue(StopIteration())
    with pytest.raises(StopIteration):
        events.commit()
    assert len(events.queue) == 1


def test_a_failing_handler_ends_the_handlers_of_its_event() -> None:
    """Handlers after the one that raised are not called."""
    events, seen = Events(), []

    def fail() -> None:
        raise KeyboardInterrupt

    events.handlers[int] = [fail, seen.append]
    events.enqueue(1)
    with pytest.raises(KeyboardInterrupt):
        events.commit()
    events.commit()
    assert seen == []


def test_an_event_class_with_a_metaclass_is_told_from_its_metaclass() -> None:
    """A metaclass enqueued as an event does not become the route of all classes."""
    events, seen = Events(), []
    events.handlers[type] = lambda: seen.append("type")
    events.handlers[int] = lambda: seen.append("int")
    events.enqueue(type)
    events.enqueue(int)
    events.enqueue(3)
    events.enqueue(Improved)
    events.commit()
    assert seen == ["type", "int", "int"]


def test_a_subclass_that_handles_otherwise_is_used_by_commit() -> None:
    """Commit goes through `handle`, so that overriding it is enough."""
    seen: list[object] = []

    class Logged(Events):
        def handle(self, event: object) -> None:
            seen.append(event)
            super().handle(event)

    events = Logged()
    events.enqueue(1)
    events.commit()
    assert seen == [1]


def test_many_classes_of_events_do_not_pile_up() -> None:
    """What is remembered about classes of events is bounded, and still right when it was forgotten."""
    events, seen = Events(), []
    events.handlers[Event] = lambda: seen.append(1)
    classes = [type(f"Made{number}", (Event,), {}) for number in range(3000)]
    for made in (*classes, *classes[:3]):
        events.handle(made())
    assert len(seen) == 3003
    assert len(events.handlers.routes) <= 1024


class Color(Enum):
    """An event by value."""

    RED = 1


@pytest.mark.parametrize("key", ["Improved", 3, None, Improved(), Color.RED, int | str, list[int]])
def test_a_key_that_is_no_class_is_refused(key: object) -> None:
    """Handlers are assigned to classes; anything else would never be found."""
    events = Events()
    with pytest.raises(InvalidEventType, match="class") as caught:
        events.handlers[key] = print
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, TorchSystemError)


@pytest.mark.parametrize("handlers", [None, 3, "name", [], (), {print}, [print, None], iter([print])])
def test_what_is_no_function_is_refused(handlers: object) -> None:
    """Neither a function nor a sequence of one or more of them is refused where it is assigned."""
    events = Events()
    with pytest.raises(InvalidEventHandler, match="int"):
        events.handlers[int] = handlers
    assert int not in events.handlers


def test_a_handler_that_needs_more_is_refused() -> None:
    """A handler that can be called neither with the event nor with nothing is refused, with its place."""
    events = Events()

    def needs_two(event: int, other: int) -> None: ...

    def needs_a_name(*, event: int) -> None: ...

    for handler in (needs_two, needs_a_name):
        with pytest.raises(InvalidEventHandler, match=r"needs_\w+ \(.*test_events.py:\d+\)"):
            events.handlers[int] = handler


def test_a_handler_that_would_not_run_is_refused() -> None:
    """Calling an async function, or a generator function, runs nothing of it."""
    events = Events()

    async def waits(event: int) -> None: ...

    def yields(event: int):  # noqa: ANN202
        yield event

    for handler in (waits, yields):
        with pytest.raises(InvalidEventHandler, match="plain function"):
            events.on(int)(handler)


def test_handlers_are_a_dictionary() -> None:
    """All that dictionaries do works, and takes effect at the next event."""
    events, seen = Events(), []
    events.handlers.update({int: lambda: seen.append("int")})
    events.handle(1)
    assert list(events.handlers) == [int]
    assert len(events.handlers) == 1
    assert "int" in repr(events.handlers)
    with pytest.raises(KeyError):
        events.handlers[bool]
    events.handlers.clear()
    events.handle(1)
    assert seen == ["int"]


class Owner:
    """An object with events, whose handlers are its own methods."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.events = Events()
        self.events.handlers[int] = self.handle
        self.events.handlers[str] = [self.handle, functools.partial(self.handle_both, "first")]
        self.events.handlers[bytes] = print

    def handle(self, event: object) -> None:
        """Remember an event."""
        self.seen.append(event)

    def handle_both(self, first: object, event: object) -> None:
        """Remember two things."""
        self.seen.append((first, event))


def test_deepcopy_keeps_handlers_and_methods_follow() -> None:
    """A deep copy handles with the copy's own methods, and with the very same functions from elsewhere."""
    outside = Owner()
    owner = Owner()
    owner.events.handlers[float] = outside.handle
    owner.events.enqueue([1])
    twin = deepcopy(owner)
    assert twin.events.queue == owner.events.queue
    assert twin.events.queue[0] is not owner.events.queue[0]
    assert twin.events.handlers[bytes] is print
    for event in (1, "text", 0.5):
        twin.events.handle(event)
    assert twin.seen == [1, "text", ("first", "text")]
    assert owner.seen == []
    assert outside.seen == [0.5]


def test_a_copy_is_independent() -> None:
    """Neither kind of copy shares its queue or its table of handlers with the original."""
    for duplicate in (copy, deepcopy):
        events, seen = Events(), []
        events.note = "kept"
        events.handlers[int] = seen.append
        events.enqueue(1)
        twin = duplicate(events)
        twin.enqueue(2)
        twin.handlers[str] = seen.append
        assert list(events.queue) == [1]
        assert str not in events.handlers
        twin.commit()
        assert seen == [1, 2]
        assert twin.note == "kept"


def test_deepcopy_survives_an_event_that_knows_its_events() -> None:
    """A cycle through the queue is copied as a cycle."""
    events = Events()
    events.enqueue([events])
    twin = deepcopy(events)
    assert twin.queue[0][0] is twin


def test_pickling_drops_handlers_and_keeps_the_queue() -> None:
    """Handlers are wiring: a pickle holds what happened, and not who listens, picklable or not."""
    events = Events()
    events.handlers[int] = lambda: None
    events.enqueue(StopIteration)
    events.enqueue(Improved(0.5))
    twin = pickle.loads(pickle.dumps(events))  # noqa: S301 - our own
    assert list(twin.queue) == [StopIteration, Improved(0.5)]
    assert len(twin.handlers) == 0
    with pytest.raises(StopIteration):
        twin.commit()
