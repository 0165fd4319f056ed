"""Failures: what becomes of an exception that a handler raises, by each policy."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchsystem.errors import InvalidOption
from torchsystem.services import Consumer, HandlerFailed, Producer, Publisher, Subscriber, event


@event
class Trained:
    """A model was trained."""

    epoch: int = 0


def failing(heard: list[Any], *outcomes: Any) -> Consumer:
    """Return a consumer with a handler for each outcome: it notes its number, and raises if that is an exception."""
    consumer = Consumer()
    for number, outcome in enumerate(outcomes):

        def on_trained(_event: Trained, number: int = number, outcome: Any = outcome) -> None:
            heard.append(number)
            if isinstance(outcome, BaseException):
                raise outcome

        consumer.handler(on_trained)
    return consumer


def test_stop_is_the_default_and_stops_at_once() -> None:
    """The exception itself reaches the caller; those after it hear nothing."""
    error, heard = ValueError(), []
    producer = Producer()
    producer.register(failing(heard, None, error, None))
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - it is that very one
        producer.dispatch(Trained())
    assert caught.value is error
    assert heard == [0, 1]


def test_finish_serves_everyone_then_raises_one_group() -> None:
    """All hear the event, in order; then all failures are raised together, also a single one."""
    first, second, heard = ValueError("first"), KeyError("second"), []
    producer = Producer(failures="finish")
    consumer = failing(heard, None, first, None, second, None)
    producer.register(consumer)
    with pytest.raises(ExceptionGroup) as caught:
        producer.dispatch(Trained())
    assert caught.value.exceptions == (first, second)
    assert heard == [0, 1, 2, 3, 4]
    with producer.connected(failing(heard, first)):
        producer.unregister(consumer)
        with pytest.raises(ExceptionGroup) as caught:
            producer.dispatch(Trained())
    assert caught.value.exceptions == (first,)


def test_finish_without_failures_raises_nothing() -> None:
    """When nobody fails nothing is raised."""
    heard: list[int] = []
    producer = Producer(failures="finish")
    producer.dispatch(Trained())
    producer.register(failing(heard, None, None))
    producer.dispatch(Trained())
    assert heard == [0, 1]


@pytest.mark.parametrize("policy", ["finish", "isolate"])
def test_a_request_to_stop_is_no_failure(policy: Any) -> None:
    """`StopIteration` is raised as itself when everyone is served, and is told to nobody as a failure."""
    request, heard, told = StopIteration("enough"), [], []
    producer = Producer(
        failures=policy, on_failure=(lambda *failure: told.append(failure)) if policy == "isolate" else None
    )
    producer.register(failing(heard, request, None, StopIteration("later"), None))
    with pytest.raises(StopIteration) as caught:
        producer.dispatch(Trained())
    assert caught.value is request
    assert heard == [0, 1, 2, 3]
    assert told == []


def test_a_request_to_stop_does_not_hide_failures() -> None:
    """What failed beside a request to stop is the cause of it."""
    error, heard = ValueError(), []
    producer = Producer(failures="finish")
    producer.register(failing(heard, error, StopIteration(), None))
    with pytest.raises(StopIteration) as caught:
        producer.dispatch(Trained())
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert caught.value.__cause__.exceptions == (error,)


def test_isolate_tells_each_failure_to_a_function() -> None:
    """Nobody else is disturbed; the function gets the error, the event, and the handler as it was decorated."""
    error, told, heard = ValueError(), [], []
    producer = Producer(failures="isolate", on_failure=lambda *failure: told.append(failure))
    consumer = Consumer()

    @consumer.handler(every=1, order=-1)
    def on_trained(event: Trained) -> None:
        raise error

    producer.register(consumer, failing(heard, None))
    producer.dispatch(Trained(3))
    assert told == [(error, Trained(3), on_trained)]
    assert heard == [0]


def test_what_the_function_raises_reaches_the_caller() -> None:
    """An `on_failure` that fails is not isolated in turn: the last resort is the caller."""

    def on_failure(error: Exception, event: object, handler: object) -> None:
        raise RuntimeError from error

    heard: list[object] = []
    producer = Producer(failures="isolate", on_failure=on_failure)
    producer.register(failing(heard, ValueError(), None))
    with pytest.raises(RuntimeError):
        producer.dispatch(Trained())
    assert heard == [0, 1]  # everyone was served first


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("policy", ["stop", "finish", "isolate"])
def test_an_interrupt_propagates_at_once(policy: Any, interrupt: type[BaseException]) -> None:
    """Whatever the policy nobody is served after it; what failed before is its cause."""
    heard, raised = [], interrupt()
    producer = Producer(failures=policy, on_failure=(lambda *_: None) if policy == "isolate" else None)
    producer.register(failing(heard, None if policy == "stop" else ValueError(), raised, None))
    with pytest.raises(interrupt) as caught:
        producer.dispatch(Trained())
    assert caught.value is raised
    assert heard == [0, 1]
    assert (caught.value.__cause__ is not None) == (policy == "finish")


@pytest.mark.parametrize("policy", ["finish", "isolate"])
def test_each_failure_is_an_event(policy: Any) -> None:
    """Others can listen to `HandlerFailed`, with error, event and handler, right after it happened."""
    error, heard, told = ValueError(), [], []
    producer = Producer(failures=policy, on_failure=(lambda *f: told.append(f)) if policy == "isolate" else None)
    consumer, other = failing(heard, error, None), Consumer()

    @other.handler
    def on_failed(event: HandlerFailed) -> None:
        heard.append((event.error, event.event, event.handler))

    producer.register(consumer, other)
    if policy == "finish":
        with pytest.raises(ExceptionGroup):
            producer.dispatch(Trained(3))
    else:
        producer.dispatch(Trained(3))
    failed = next(iter(consumer.handlers)).function
    assert heard == [0, (error, Trained(3), failed), 1]
    assert told == ([(error, Trained(3), failed)] if policy == "isolate" else [])


def test_stop_announces_no_failure() -> None:
    """By the default policy the caller gets the exception, and nobody else."""
    heard: list[object] = []
    producer, consumer = Producer(), failing([], ValueError())
    consumer.handler(lambda_for(HandlerFailed, heard))
    producer.register(consumer)
    with pytest.raises(ValueError):  # noqa: PT011 - there is no other
        producer.dispatch(Trained())
    assert heard == []


def lambda_for(kind: type, heard: list[object], error: Exception | None = None) -> Any:
    """Return a handler of a type that notes what it hears, and may fail."""

    def on_event(event: object) -> None:
        heard.append(event)
        if error is not None:
            raise error

    on_event.__annotations__["event"] = kind
    return on_event


def test_failures_of_those_who_hear_of_failures_come_to_an_end() -> None:
    """A handler does not hear of its own failure, and how others fail to hear of it is raised, but not announced."""
    first, second, third, heard = ValueError("first"), KeyError("second"), TypeError("third"), []
    producer, consumer = Producer(failures="finish"), Consumer()
    consumer.handler(lambda_for(object, heard, first))
    consumer.handler(lambda_for(HandlerFailed, heard, second))
    consumer.handler(lambda_for(HandlerFailed, heard, third))
    producer.register(consumer)
    with pytest.raises(ExceptionGroup) as caught:
        producer.dispatch(Trained())
    assert caught.value.exceptions == (first, second, third)
    assert len(heard) == 3
    with pytest.raises(ExceptionGroup) as caught:
        producer.dispatch(HandlerFailed(first, None, print))
    assert len(heard) < 20


def test_a_consumer_that_consumes_in_its_own_way_does_not_hear_of_its_own_failure() -> None:
    """Overriding `consume` is being one handler, which is not told of itself."""
    heard, error = [], ValueError()

    class Failing(Consumer):
        def consume(self, event: object, /) -> None:
            heard.append(event)
            raise error

    producer = Producer(failures="finish")
    producer.register(Failing())
    with pytest.raises(ExceptionGroup) as caught:
        producer.dispatch(Trained())
    assert caught.value.exceptions == (error,)
    assert heard == [Trained()]


def test_someone_who_hears_of_failures_can_ask_to_stop() -> None:
    """A guard may end a training when a handler fails."""
    producer, consumer = Producer(failures="finish"), failing([], ValueError())
    consumer.handler(lambda_for(HandlerFailed, [], StopIteration()))
    producer.register(consumer)
    with pytest.raises(StopIteration):
        producer.dispatch(Trained())


def test_consuming_by_hand_propagates_at_once() -> None:
    """A policy is the producer's: `consume` and `receive` know none."""
    heard, error = [], ValueError()
    consumer = failing(heard, None, error, None)
    Producer(failures="finish").register(consumer)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - it is that very one
        consumer.consume(Trained())
    assert caught.value is error
    assert heard == [0, 1]


@pytest.mark.parametrize("policy", ["stop", "finish", "isolate"])
def test_publishers_have_the_same_policies(policy: Any) -> None:
    """For messages as for events; there is nobody to announce a failure to."""
    error, heard, told = ValueError(), [], []
    publisher = Publisher(failures=policy, on_failure=(lambda *f: told.append(f)) if policy == "isolate" else None)
    subscriber = Subscriber()

    @subscriber.subscribe("loss")
    def fail(value: float, topic: str) -> None:
        heard.append((value, topic))
        raise error

    subscriber.subscribe("loss")(heard.append)
    publisher.register(subscriber)
    if policy == "isolate":
        publisher.publish(0.5, "loss")
        assert told == [(error, 0.5, fail)]
    else:
        with pytest.raises(ValueError if policy == "stop" else ExceptionGroup):
            publisher.publish(0.5, "loss")
    assert heard == [(0.5, "loss"), *([] if policy == "stop" else [0.5])]
    with pytest.raises(ValueError):  # noqa: PT011 - there is no other
        subscriber.receive(0.5, "loss")


MEANINGLESS: list[dict[str, Any]] = [
    {"failures": "ignore"},
    {"failures": None},
    {"failures": "isolate"},
    {"failures": "isolate", "on_failure": 3},
    {"failures": "isolate", "on_failure": lambda error: error},  # told three things, it would fail
    {"failures": "finish", "on_failure": print},
    {"on_failure": print},
]


@pytest.mark.parametrize("options", MEANINGLESS, ids=repr)
@pytest.mark.parametrize("make", [Producer, Publisher])
def test_a_policy_that_would_swallow_failures_is_refused(make: Any, options: dict[str, Any]) -> None:
    """Isolating needs someone who is told; a function that would never be told is a mistake as well."""
    with pytest.raises(InvalidOption):
        make(**options)


def test_a_coroutine_is_nobody_to_tell_failures() -> None:
    """An async `on_failure` would be called and never run: every failure would be lost without a word."""

    async def on_failure(error: Exception, event: object, handler: object) -> None: ...

    with pytest.raises(InvalidOption, match="on_failure"):
        Producer(failures="isolate", on_failure=on_failure)


OUTCOMES = st.sampled_from(["ok", "error", "request", "interrupt"])


@given(st.sampled_from(["stop", "finish", "isolate"]), st.lists(OUTCOMES, max_size=8), st.booleans())
def test_no_outcome_is_lost(policy: Any, outcomes: list[str], listening: bool) -> None:  # noqa: FBT001 - hypothesis
    """Whatever handlers do, who is served and what comes out is what the policy says, and every error is somewhere."""
    kinds = {"error": ValueError, "request": StopIteration, "interrupt": KeyboardInterrupt}
    raised = [kinds[outcome]() if outcome in kinds else None for outcome in outcomes]
    told: list[Exception] = []
    announced: list[object] = []
    heard: list[int] = []
    producer = Producer(failures=policy, on_failure=(lambda e, *_: told.append(e)) if policy == "isolate" else None)
    producer.register(failing(heard, *raised))
    if listening:
        consumer = Consumer()
        consumer.handler(lambda_for(HandlerFailed, announced))
        producer.register(consumer)

    outcome: BaseException | None = None
    try:
        producer.dispatch(Trained())
    except BaseException as error:  # noqa: BLE001 - whatever it is
        outcome = error

    ending = ["error", "request", "interrupt"] if policy == "stop" else ["interrupt"]
    served = next((n + 1 for n, kind in enumerate(outcomes) if kind in ending), len(outcomes))
    assert heard == list(range(served))
    errors = [error for error in raised[:served] if isinstance(error, ValueError)]
    requests = [error for error in raised[:served] if isinstance(error, StopIteration)]
    interrupts = [error for error in raised[:served] if isinstance(error, KeyboardInterrupt)]
    if policy == "stop":
        assert outcome is (raised[served - 1] if served else None)
        return
    assert told == (errors if policy == "isolate" else [])
    assert [failed.error for failed in announced] == (errors if listening else [])
    first = next(iter(interrupts or requests), None)
    group = outcome if first is None else outcome.__cause__
    assert first is None or outcome is first
    assert list(group.exceptions if group is not None else []) == (errors if policy == "finish" else [])


@pytest.mark.parametrize("policy", ["finish", "isolate"])
@pytest.mark.parametrize("kind", [StopIteration, KeyboardInterrupt])
def test_what_ends_a_delivery_keeps_its_cause(policy: Any, kind: type[BaseException]) -> None:
    """A request or an interrupt has the cause it was raised with, and what failed beside it as well."""
    cause, beside = KeyError(), ValueError()

    def dispatch(*before: BaseException) -> BaseException:
        producer = Producer(failures=policy, on_failure=(lambda *_: None) if policy == "isolate" else None)
        consumer = failing([], *before)

        @consumer.handler
        def end(event: Trained) -> None:
            raise kind from cause

        producer.register(consumer)
        with pytest.raises(kind) as caught:
            producer.dispatch(Trained())
        return caught.value

    assert dispatch().__cause__ is cause
    own = dispatch(beside).__cause__
    if policy == "isolate":
        assert own is cause
    else:
        assert isinstance(own, ExceptionGroup)
        assert own.exceptions[0] is cause
        assert own.exceptions[1].exceptions == (beside,)


def test_a_second_request_is_noted_on_the_first() -> None:
    """Only one can be raised; what the other said is not lost."""
    producer = Producer(failures="finish")
    producer.register(failing([], StopIteration("first"), StopIteration("second")))
    with pytest.raises(StopIteration, match="first") as caught:
        producer.dispatch(Trained())
    assert caught.value.__notes__ == ["beside it was raised: StopIteration('second')"]


@pytest.mark.parametrize("policy", ["finish", "isolate"])
def test_hearing_of_failures_may_fail_in_any_way_and_comes_to_an_end(policy: Any) -> None:
    """What fails in a dispatch of those who hear of a failure is raised or told, but not announced to them again."""
    heard: list[object] = []
    producer = Producer(failures=policy, on_failure=(lambda *_: None) if policy == "isolate" else None)
    consumer = failing(heard, ValueError())
    for _ in range(2):

        @consumer.handler
        def try_again(event: HandlerFailed) -> None:
            producer.dispatch(Trained())

    producer.register(consumer)
    with suppress(ExceptionGroup):
        producer.dispatch(Trained())
    assert heard == [0, 0, 0]
    heard.clear()
    with suppress(ExceptionGroup):
        producer.dispatch(Trained())  # the next failure is announced as the first was
    assert heard == [0, 0, 0]
