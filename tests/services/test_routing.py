"""Routing by type: every way to say which events a handler hears, and what is refused.

Annotations are strings in this file; where it matters, they are tried evaluated as well.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sized  # noqa: F401 - as below
from inspect import signature
from pathlib import Path
from typing import (  # noqa: F401 - some are only named in strings
    Annotated,
    Any,
    Generic,
    Literal,
    NewType,
    Optional,
    Protocol,
    TypedDict,
    TypeVar,
    Union,
    runtime_checkable,
)

import pytest
from typing_extensions import TypeAliasType

from torchsystem.errors import InvalidHandler, UnresolvedAnnotation, UnroutableAnnotation
from torchsystem.services import Consumer, Depends, Producer, event

T = TypeVar("T")


@event
class Trained(Generic[T]):
    """A model was trained."""

    epoch: T = 0


@event
class Validated:
    """A model was validated."""

    loss: float = 0.0


@event
class Evaluated(Validated):
    """A model was evaluated: a kind of validation."""


class Measured(ABC):
    """A base without events of its own."""

    @abstractmethod
    def value(self) -> float:
        """Return what was measured."""


class Timed(Measured):
    """An event that is no dataclass."""

    def value(self) -> float:
        """Return the time."""
        return 1.0


@runtime_checkable
class HasValue(Protocol):
    """Anything with this method."""

    def value(self) -> float:
        """Return something."""


@runtime_checkable
class HasLoss(Protocol):
    """Anything with this attribute."""

    loss: float


class NotCheckable(Protocol):
    """A protocol that only type checkers know."""

    loss: float


class Options(TypedDict):
    """A dictionary by another name."""

    loss: float


Bounded = TypeVar("Bounded", bound=Validated)
Constrained = TypeVar("Constrained", Trained, Timed)
Loss = NewType("Loss", float)
BoundLater = TypeVar("BoundLater", bound="Trained | Timed")
Alias = TypeAliasType("Alias", Trained | Timed)
AliasLater = TypeAliasType("AliasLater", "Trained | Timed")
Maybe = TypeAliasType("Maybe", T | None, type_params=(T,))
Unknown = TypeAliasType("Unknown", "NotImported")  # noqa: F821 - that is the point

EVENTS = [Trained(), Validated(), Evaluated(), Timed(), None, 3, True, "text"]
ALL = [type(event) for event in EVENTS]


# What may be written for an event, and the types of those `EVENTS` that are heard by it.
MEANT = {
    "Trained": [Trained],
    "Validated": [Validated, Evaluated],
    "Trained | Evaluated": [Trained, Evaluated],
    "Union[Trained, Evaluated]": [Trained, Evaluated],
    'Union["Trained", "Evaluated"]': [Trained, Evaluated],
    '"Trained | Evaluated"': [Trained, Evaluated],
    "Optional[Trained]": [Trained, type(None)],
    "None": [type(None)],
    "Trained[int]": [Trained],
    'Union[Trained[int], Optional["Timed"]]': [Trained, Timed, type(None)],
    'Annotated[Trained, "an aside"]': [Trained],
    "Measured": [Timed],
    "HasValue": [Timed],
    "HasLoss": [Validated, Evaluated],
    "HasLoss | Trained": [Trained, Validated, Evaluated],
    "Sized": [str],
    "int": [int, bool],
    "Any": ALL,
    "object": ALL,
    "T": ALL,
    "Bounded": [Validated, Evaluated],
    "Constrained": [Trained, Timed],
    "BoundLater": [Trained, Timed],
    "Alias": [Trained, Timed],
    "AliasLater": [Trained, Timed],
    "Maybe[Trained]": [Trained, type(None)],
}


def annotate(function: Callable[..., object], annotation: object) -> Callable[..., object]:
    """Annotate the first parameter of a function, as if it had been written so."""
    function.__annotations__[next(iter(signature(function).parameters))] = annotation
    return function


def spell(annotation: str, *, evaluated: bool) -> object:
    """Return an annotation as it is with or without `from __future__ import annotations`."""
    return eval(annotation) if evaluated else annotation  # noqa: S307


@pytest.mark.parametrize("evaluated", [True, False], ids=["evaluated", "string"])
@pytest.mark.parametrize(("annotation", "expected"), MEANT.items(), ids=MEANT)
def test_an_annotation_says_which_events_are_heard(annotation: str, expected: list[type], *, evaluated: bool) -> None:
    """Each event that is meant is heard once, and no other; dispatched by a producer or consumed by hand."""
    heard: list[type] = []

    def on_event(event) -> None:  # noqa: ANN001
        heard.append(type(event))

    consumer, producer = Consumer(), Producer()
    consumer.handler(annotate(on_event, spell(annotation, evaluated=evaluated)))
    producer.register(consumer)
    for each in EVENTS:
        producer.dispatch(each)
    assert heard == [kind for kind in ALL if kind in expected]
    for each in EVENTS:
        consumer.consume(each)
    assert heard == 2 * [kind for kind in ALL if kind in expected]


def test_the_guide_lists_every_annotation_that_is_tested() -> None:
    """The table in `docs/messages.md` has a row for each of these cases, and no other."""
    page = Path(__file__).parents[2].joinpath("docs", "messages.md").read_text(encoding="utf-8")
    table = page.partition("| Annotation | Hears |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(.+?)` \| ", table, re.MULTILINE)
    assert [row.replace("\\|", "|") for row in rows] == list(MEANT)


@pytest.mark.parametrize(("annotation", "expected"), MEANT.items(), ids=MEANT)
def test_wants_agrees_with_what_is_heard(annotation: str, expected: list[type]) -> None:
    """After each type was met once, `wants` says exactly what is heard; before, it never denies what is."""
    consumer, producer = Consumer(), Producer()
    consumer.handler(annotate(lambda _event: None, annotation))
    producer.register(consumer)
    beforehand = {kind for kind in ALL if producer.wants(kind)}
    for each in EVENTS:
        producer.dispatch(each)
    assert {kind for kind in ALL if producer.wants(kind)} == set(expected) <= beforehand


REFUSED = {
    "Loss": "NewType",
    "Options": "isinstance",
    "NotCheckable": "@runtime_checkable",
    "type[Trained]": "events are instances",
    "Literal[3]": "union of classes",
    "Trained | Loss": "NewType",
}


@pytest.mark.parametrize("evaluated", [True, False], ids=["evaluated", "string"])
@pytest.mark.parametrize(("annotation", "remedy"), REFUSED.items(), ids=REFUSED)
def test_what_cannot_tell_events_apart_is_refused(annotation: str, remedy: str, *, evaluated: bool) -> None:
    """An annotation by which nothing could ever be heard, or too much, is refused with handler, place and remedy."""

    def on_event(_event) -> None:  # noqa: ANN001
        """Do nothing."""

    with pytest.raises(UnroutableAnnotation, match=rf"on_event \(.*test_routing.py:\d+\).*{remedy}"):
        Consumer().handler(annotate(on_event, spell(annotation, evaluated=evaluated)))


def test_a_handler_without_an_annotation_is_refused() -> None:
    """A handler that does not say which events it hears would hear none, or all."""

    def on_event(_event) -> None:  # noqa: ANN001
        """Do nothing."""

    with pytest.raises(UnroutableAnnotation, match=r"on_event \(.*test_routing.py:\d+\).*`event: Trained`"):
        Consumer().handler(on_event)


def test_an_annotation_that_cannot_be_resolved_is_refused() -> None:
    """A name that exists only for type checkers cannot route; the message says what to do."""

    def on_event(_event: NotImported) -> None:  # noqa: F821
        """Do nothing."""

    with pytest.raises(UnresolvedAnnotation, match=r"on_event .*'NotImported'.*TYPE_CHECKING"):
        Consumer().handler(on_event)


def test_only_the_first_parameter_has_to_be_resolved() -> None:
    """Other annotations decide nothing, and may be names under `TYPE_CHECKING`."""
    consumer = Consumer()

    @consumer.handler
    def on_event(_event: Trained, writer: SummaryWriter = Depends(lambda: "writer")) -> ScalarMap:  # noqa: F821
        return writer

    assert on_event(Trained()) == "writer"


def test_any_spelling_of_a_first_parameter_will_do() -> None:
    """It may be positional-only, variadic, or followed by parameters that have defaults."""
    consumer, heard = Consumer(), []

    @consumer.handler
    def positional_only(event: Trained, /) -> None:
        heard.append(event)

    @consumer.handler
    def variadic(*events: Trained) -> None:
        heard.extend(events)

    @consumer.handler
    def with_defaults(event: Trained, times: int = 2, *more: object, sign: int = 1, **options: object) -> None:
        heard.append((event, times, more, sign, options))

    consumer.consume(Trained())
    assert heard == [Trained(), Trained(), (Trained(), 2, (), 1, {})]


def refused_handlers() -> dict[str, Callable[..., object]]:
    """Return functions that an event cannot be handed to, or that would do nothing with it."""

    def generator(_event: Trained) -> Iterator[None]:
        yield

    async def coroutine(_event: Trained) -> None:
        """Do nothing."""

    return {
        "no parameter": lambda: None,
        "keyword-only": lambda *, _event: None,
        "only keywords": lambda **_events: None,
        "needs more": lambda _event, _writer: None,
        "is a dependency": lambda _event=Depends(Trained): None,
        "generator": generator,
        "coroutine": coroutine,
        "class": Trained,
    }


@pytest.mark.parametrize("function", refused_handlers().values(), ids=refused_handlers())
def test_a_function_that_cannot_take_an_event_is_refused(function: Callable[..., object]) -> None:
    """What would fail at the first event, or silently do nothing, is refused when it is registered."""
    with pytest.raises(InvalidHandler):
        Consumer().handler(function)


def test_local_types_are_found() -> None:
    """Events defined next to the handler, in a function, are resolved although annotations are strings here."""
    consumer, heard = Consumer(), []

    @event
    class Local:
        pass

    @consumer.handler
    def on_event(event: Local | Trained) -> None:
        heard.append(event)

    consumer.consume(Local())
    assert heard == [Local()]


def test_types_of_one_name_never_meet() -> None:
    """Identity is the object: `Trained` of one module is a stranger to `Trained` of another, in both spellings."""

    def trained() -> type:
        @event
        class Trained:
            pass

        return Trained

    first, second = trained(), trained()
    heard: list[object] = []

    def handlers(kind: type, consumer: Consumer) -> None:
        @consumer.handler
        def on_event(event: kind) -> None:
            heard.append((kind, event))

    consumer, producer = Consumer(), Producer()
    handlers(first, consumer)
    handlers(second, consumer)
    producer.register(consumer)
    producer.dispatch(first())
    producer.dispatch(second())
    assert heard == [(first, first()), (second, second())]


def test_a_protocol_with_data_is_decided_by_the_first_instance() -> None:
    """Attributes that come into being in `__init__` count; until an instance was seen, `wants` says True."""

    class WithLoss:
        def __init__(self) -> None:
            self.loss = 0.5

    class Without:
        pass

    consumer, producer, heard = Consumer(), Producer(), []

    @consumer.handler
    def on_event(event: HasLoss) -> None:
        heard.append(type(event))

    producer.register(consumer)
    assert producer.wants(WithLoss)
    assert producer.wants(Without)
    producer.dispatch(WithLoss())
    producer.dispatch(Without())
    assert heard == [WithLoss]
    assert producer.wants(WithLoss)
    assert not producer.wants(Without)
    producer.register(Consumer())
    assert not producer.wants(Without)


def test_asking_a_protocol_elsewhere_changes_nothing() -> None:
    """`isinstance` remembers refusals; what others asked before must not pass a protocol with data off as plain."""

    @runtime_checkable
    class HasEpoch(Protocol):
        epoch: int

    assert not isinstance(object(), HasEpoch)
    consumer, heard = Consumer(), []

    @consumer.handler
    def on_event(event: HasEpoch) -> None:
        heard.append(event)

    consumer.consume(Trained())
    assert heard == [Trained()]


def test_an_alias_that_cannot_be_resolved_is_refused() -> None:
    """A string in what an alias stands for is looked up where the alias is defined."""
    with pytest.raises(UnroutableAnnotation, match="Unknown stands for 'NotImported'"):
        Consumer().handler(annotate(lambda _event: None, Unknown))
