"""Modes of delivery: deferred and in the background, and in which process a listener hears."""

from __future__ import annotations

import gc
import logging
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchsystem.errors import (
    DeliveryTimeout,
    InvalidOption,
    QueueFull,
    UnknownListener,
    WaitsForItself,
)
from torchsystem.services import (
    Consumer,
    HandlerFailed,
    Producer,
    Publisher,
    Registered,
    Subscriber,
    background,
    deferred,
    event,
)
from torchsystem.services.modes import is_here

SECONDS = 200.0  # never waited for, however busy the machine is


@event
class Ticked:
    """Something happened."""

    number: int = 0


@event
class Tocked:
    """Something else happened."""

    number: int = 0


class Gate:
    """A consumer that notes what it hears, but not before it is let through, one event at a time."""

    def __init__(self, *, open: bool = False) -> None:  # noqa: A002 - gates open
        self.heard: list[Any] = []
        self.threads: set[threading.Thread] = set()
        self.errors: dict[int, BaseException] = {}
        self.entered = threading.Semaphore(0)
        self._passes = threading.Semaphore(1000 if open else 0)
        self.consumer = Consumer("gate")
        self.consumer.handler(self.on_ticked)

    def on_ticked(self, event: Ticked) -> None:
        self.entered.release()
        assert self._passes.acquire(timeout=SECONDS)
        self.threads.add(threading.current_thread())
        self.heard.append(event.number)
        if event.number in self.errors:
            raise self.errors[event.number]

    def let(self, count: int = 1) -> None:
        """Let so many events through."""
        self._passes.release(count)

    def await_entry(self) -> None:
        """Wait until an event stands in the gate."""
        assert self.entered.acquire(timeout=SECONDS)


def until(condition: Callable[[], bool]) -> None:
    """Let other threads run until something is so."""
    give_up = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < give_up


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Return a closed gate; in the end it is opened, so that no thread stays in it."""
    gate = Gate()
    yield gate
    gate.let(1000)


def noting(heard: list[Any], mark: object = None) -> Consumer:
    """Return a consumer that notes what it hears."""
    consumer = Consumer(f"noting {mark}")

    @consumer.handler
    def on_event(event: Ticked | Tocked) -> None:
        heard.append((mark, event.number) if mark is not None else event.number)

    return consumer


# deferred


def test_deferred_events_wait_for_flush() -> None:
    """Nothing is heard before `flush`, then everything, in order, each event once."""
    producer, heard, inline = Producer(), [], []
    producer.register(noting(heard), delivery=deferred)
    producer.register(noting(inline))
    for number in range(3):
        producer.dispatch(Ticked(number))
    assert (heard, inline) == ([], [0, 1, 2])
    producer.flush()
    producer.flush()
    assert heard == [0, 1, 2]


def test_deferred_events_come_in_the_order_of_dispatch() -> None:
    """Event by event, and for each event by `order` over all deferred listeners."""
    producer, heard = Producer(), []
    first, second = Consumer(), Consumer()
    for consumer, order in [(first, 2), (second, 1), (first, 0)]:

        @consumer.handler(order=order)
        def on_ticked(event: Ticked, order: int = order) -> None:
            heard.append((event.number, order))

    producer.register(first, second, delivery=deferred())
    producer.dispatch(Ticked(1))
    producer.dispatch(Ticked(2))
    producer.flush()
    assert heard == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]


def test_what_is_deferred_during_a_flush_is_flushed() -> None:
    """A handler may dispatch: `flush` returns when nothing is left."""
    producer, consumer, heard = Producer(), Consumer(), []

    @consumer.handler
    def on_ticked(event: Ticked) -> None:
        heard.append(event.number)
        if event.number < 3:
            producer.dispatch(Ticked(event.number + 1))

    producer.register(consumer, delivery=deferred)
    producer.dispatch(Ticked(0))
    producer.flush()
    assert heard == [0, 1, 2, 3]


def test_a_failure_ends_a_flush_and_the_next_goes_on() -> None:
    """By `"stop"` the event that failed is spent, and the rest stays."""
    producer, consumer, heard = Producer(), Consumer(), []

    @consumer.handler
    def on_ticked(event: Ticked) -> None:
        heard.append(event.number)
        if event.number == 1:
            raise ValueError

    producer.register(consumer, delivery=deferred)
    for number in range(3):
        producer.dispatch(Ticked(number))
    with pytest.raises(ValueError):  # noqa: PT011 - there is no other
        producer.flush()
    assert heard == [0, 1]
    producer.flush()
    assert heard == [0, 1, 2]


def test_finish_flushes_everything_then_raises_one_group() -> None:
    """By `"finish"` all events are delivered, and all failures raised together."""
    producer, consumer, heard = Producer(failures="finish"), Consumer(), []

    @consumer.handler
    def on_ticked(event: Ticked) -> None:
        heard.append(event.number)
        raise ValueError(event.number)

    producer.register(consumer, delivery=deferred)
    for number in range(3):
        producer.dispatch(Ticked(number))
    with pytest.raises(ExceptionGroup) as caught:
        producer.flush()
    assert [error.args for error in caught.value.exceptions] == [(0,), (1,), (2,)]


def test_closing_delivers_what_is_deferred_whoever_fails() -> None:
    """`close` and the end of `with producer:` leave nothing behind; what failed is raised then."""
    producer, consumer, heard = Producer(), Consumer(), []

    @consumer.handler
    def on_ticked(event: Ticked) -> None:
        heard.append(event.number)
        if event.number != 1:
            raise ValueError(event.number)

    producer.register(consumer, delivery=deferred)
    with pytest.raises(ExceptionGroup), producer:
        for number in range(3):
            producer.dispatch(Ticked(number))
    assert heard == [0, 1, 2]
    producer.dispatch(Ticked(1))
    producer.close()
    assert heard == [0, 1, 2, 1]


# in the background


def test_the_background_is_another_thread_one_per_listener() -> None:
    """Each listener hears all events in order, in one thread that is neither ours nor another listener's."""
    first, second = Gate(), Gate()
    with Producer() as producer:
        producer.register(first.consumer, second.consumer, delivery=background())
        for number in range(100):
            producer.dispatch(Ticked(number))
        first.let(100)  # not before: a thread that is idle for long ends, and the next event starts another
        second.let(100)
    assert first.heard == second.heard == list(range(100))
    assert len(first.threads) == len(second.threads) == 1
    assert len(first.threads | second.threads | {threading.current_thread()}) == 3


def test_dispatching_does_not_wait_for_the_background(gate: Gate) -> None:
    """A slow listener in the background holds up nobody: the others hear at once."""
    producer, heard = Producer(), []
    producer.register(gate.consumer, delivery=background)
    producer.register(noting(heard))
    for number in range(3):
        producer.dispatch(Ticked(number))
    assert heard == [0, 1, 2]
    assert gate.heard == []
    gate.let(3)
    producer.flush(SECONDS)
    assert gate.heard == [0, 1, 2]


def test_handlers_of_one_listener_are_called_in_order_in_the_background() -> None:
    """An event is handled by all handlers of a listener, by `order`, before the next event is."""
    producer, consumer, heard = Producer(), Consumer(), []
    for order in (2, 1):

        @consumer.handler(order=order)
        def on_ticked(event: Ticked, order: int = order) -> None:
            heard.append((event.number, order))

    with producer:
        producer.register(consumer, delivery=background())
        producer.dispatch(Ticked(1))
        producer.dispatch(Ticked(2))
    assert heard == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_context_variables_are_carried_along() -> None:
    """What was set where an event was dispatched is seen where it is handled; what is set there stays there."""
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    producer, consumer, heard = Producer(), Consumer(), []

    @consumer.handler
    def on_ticked(event: Ticked) -> None:
        heard.append((event.number, variable.get()))
        variable.set("set in the background")

    with producer:
        producer.register(consumer, delivery=background())
        producer.dispatch(Ticked(0))
        variable.set("first")
        producer.dispatch(Ticked(1))
        variable.set("second")
        producer.dispatch(Ticked(2))
    assert heard == [(0, "unset"), (1, "first"), (2, "second")]
    assert variable.get() == "second"


def test_a_full_queue_makes_the_producer_wait(gate: Gate) -> None:
    """By `overflow="wait"` nothing is lost: whoever dispatches one too many waits until there is room."""
    producer = Producer()
    producer.register(gate.consumer, delivery=background(capacity=2))
    producer.dispatch(Ticked(0))
    gate.await_entry()
    producer.dispatch(Ticked(1))
    producer.dispatch(Ticked(2))
    thread = threading.Thread(target=producer.dispatch, args=[Ticked(3)])
    thread.start()
    line = producer._backlog.lines[0]  # noqa: SLF001 - nobody else knows who waits
    until(lambda: line.blocked == 1)
    gate.let()
    thread.join(SECONDS)
    assert line.blocked == 0
    gate.let(3)
    producer.close(SECONDS)
    assert gate.heard == [0, 1, 2, 3]


def test_a_full_queue_drops_the_oldest(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    """By `overflow="drop_oldest"` the newest are heard; what was dropped is counted, and said at once and at close."""
    producer = Producer()
    producer.register(gate.consumer, delivery=background(capacity=2, overflow="drop_oldest"))
    producer.dispatch(Ticked(0))
    gate.await_entry()
    for number in range(1, 7):
        producer.dispatch(Ticked(number))
    assert producer.dropped(gate.consumer) == 4
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "Consumer('gate') does not keep up: 1 messages" in caplog.text
    gate.let(3)
    producer.close(SECONDS)
    assert gate.heard == [0, 5, 6]
    assert "4 messages" in caplog.records[1].getMessage()
    producer.close()
    assert len(caplog.records) == 2


def test_a_full_queue_refuses(gate: Gate) -> None:
    """By `overflow="raise"` whoever dispatches is told; what was queued is delivered."""
    producer = Producer()
    producer.register(gate.consumer, delivery=background(capacity=1, overflow="raise"))
    producer.dispatch(Ticked(0))
    gate.await_entry()
    producer.dispatch(Ticked(1))
    with pytest.raises(QueueFull, match=r"Consumer\('gate'\).*1 messages waiting"):
        producer.dispatch(Ticked(2))
    gate.let(2)
    producer.close(SECONDS)
    assert gate.heard == [0, 1]


def test_a_worker_never_waits_for_itself(gate: Gate) -> None:
    """A handler in the background that dispatches more than fits into its own queue goes over the capacity."""
    producer, consumer, heard = Producer(), Consumer(), []

    @consumer.handler
    def on_ticked(event: Ticked) -> None:
        heard.append(event.number)
        if event.number == 0:
            for number in range(1, 10):
                producer.dispatch(Ticked(number))

    producer.register(consumer, delivery=background(capacity=1))
    producer.dispatch(Ticked(0))
    producer.close(SECONDS)
    assert heard == list(range(10))


def test_workers_never_wait_for_one_another() -> None:
    """Two listeners in the background that flood each other's queues come to an end all the same."""
    producer, first, second, heard = Producer(), Consumer("first"), Consumer("second"), []

    @first.handler
    def on_ticked(event: Ticked) -> None:
        heard.append(event)
        for _ in range(3 if event.number < 4 else 0):
            producer.dispatch(Tocked(event.number + 1))

    @second.handler
    def on_tocked(event: Tocked) -> None:
        heard.append(event)
        for _ in range(3 if event.number < 4 else 0):
            producer.dispatch(Ticked(event.number + 1))

    producer.register(first, second, delivery=background(capacity=1))
    producer.dispatch(Ticked(0))
    producer.close(SECONDS)
    assert len(heard) == sum(3**depth for depth in range(5))


def test_a_failure_surfaces_at_the_next_dispatch() -> None:
    """As itself, once, after everyone has heard that event, whatever event it is; the thread goes on."""
    gate, error, heard = Gate(open=True), ValueError(), []
    gate.errors[0] = error
    producer = Producer()
    producer.register(gate.consumer, delivery=background())
    producer.register(noting(heard))
    producer.dispatch(Ticked(0))
    wait_for_background(producer)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - it is that very one
        producer.dispatch("nobody hears this")
    assert caught.value is error
    producer.dispatch(Ticked(1))
    producer.close()
    assert gate.heard == heard == [0, 1]


def wait_for_background(producer: Producer) -> None:
    """Wait until the background is idle, and leave its failures where they are."""
    for line in producer._backlog.lines:  # noqa: SLF001 - `flush` would let failures surface
        assert line.wait(line.accepted)


@pytest.mark.parametrize("policy", ["stop", "finish", "isolate"])
def test_a_failure_never_surfaces_where_its_own_event_is_dispatched(policy: Any) -> None:
    """Also where the background is through before the dispatch is: it would be a matter of luck who is told."""
    told: list[Exception] = []
    gate, patient = Gate(open=True), Consumer()
    gate.errors[0] = ValueError()
    producer = Producer(failures=policy, on_failure=(lambda *f: told.append(f[0])) if policy == "isolate" else None)

    @patient.handler
    def wait(event: Ticked) -> None:
        wait_for_background(producer)

    producer.register(gate.consumer, delivery=background())
    producer.register(patient)
    producer.dispatch(Ticked(0))
    assert told == []
    try:
        producer.dispatch(Ticked(1))
    except (ValueError, ExceptionGroup) as error:
        told.append(error.exceptions[0] if isinstance(error, ExceptionGroup) else error)
    assert told == [gate.errors[0]]
    producer.close()


def test_a_failure_surfaces_at_the_next_dispatch_by_every_policy() -> None:
    """By `"finish"` it is in a group, by `"isolate"` it is told; also when nobody hears the next event."""
    told: list[Exception] = []
    for options in ({"failures": "finish"}, {"failures": "isolate", "on_failure": lambda e, *_: told.append(e)}):
        gate, error = Gate(open=True), ValueError()
        gate.errors[0] = error
        producer = Producer(**options)
        producer.register(gate.consumer, delivery=background())
        producer.dispatch(Ticked(0))
        wait_for_background(producer)
        assert not producer.wants(str)
        if options["failures"] == "finish":
            with pytest.raises(ExceptionGroup) as caught:
                producer.dispatch("nobody hears this")
            assert caught.value.exceptions == (error,)
        else:
            producer.dispatch("nobody hears this")
            assert told == [error]
        producer.close()


@pytest.mark.parametrize("end", ["flush", "close"])
def test_a_failure_surfaces_at_the_end(end: str) -> None:
    """What failed after the last dispatch is raised by `flush` and by `close`; several failures as a group."""
    gate = Gate(open=True)
    gate.errors = {0: ValueError(), 1: KeyError()}
    producer = Producer()
    producer.register(gate.consumer, delivery=background())
    producer.dispatch(Ticked(0))
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - it is that very one
        getattr(producer, end)()
    assert caught.value is gate.errors[0]
    line = producer._backlog.lines[0]  # noqa: SLF001 - past the dispatch, which would let the first failure surface
    hearers = producer._served(heard for heard, _ in producer._find(Ticked, Ticked()))  # noqa: SLF001
    for number in (0, 1):
        hearers[0].call(Ticked(number))
    assert line.wait(line.accepted)
    with pytest.raises(ExceptionGroup) as group:
        getattr(producer, end)()
    assert group.value.exceptions == (gate.errors[0], gate.errors[1])
    getattr(producer, end)()


def test_a_request_to_stop_surfaces_as_itself() -> None:
    """Early stopping works from the background too, one event late."""
    gate, request = Gate(open=True), StopIteration()
    gate.errors[0] = request
    producer = Producer(failures="finish")
    producer.register(gate.consumer, delivery=background())
    producer.dispatch(Ticked(0))
    wait_for_background(producer)
    with pytest.raises(StopIteration) as caught:
        producer.dispatch(Ticked(1))
    assert caught.value is request
    producer.close()


def test_an_interrupt_surfaces_as_itself() -> None:
    """`SystemExit` in the background ends the program where events come from, not just a thread."""
    gate, heard = Gate(open=True), []
    gate.errors = {0: ValueError(), 1: StopIteration(), 2: SystemExit(3)}

    @gate.consumer.handler
    def also(event: Ticked) -> None:
        heard.append(event.number)

    producer = Producer(failures="finish")
    producer.register(gate.consumer, delivery=background())
    hearers = producer._served(heard for heard, _ in producer._find(Ticked, Ticked()))  # noqa: SLF001 - past `dispatch`
    for number in range(3):
        hearers[0].call(Ticked(number))
    with pytest.raises(SystemExit) as caught:
        producer.close()
    assert caught.value is gate.errors[2]
    assert caught.value.__cause__.exceptions == (gate.errors[0],)
    assert heard == [0, 1]


@pytest.mark.parametrize("policy", ["stop", "finish", "isolate"])
def test_policies_hold_in_the_background(policy: Any) -> None:
    """`stop` spares that listener's other handlers, the others serve them; failures are told where events come from."""
    producer_thread, told, announced, heard = threading.current_thread(), [], [], []
    error = ValueError()

    def on_failure(*failure: object) -> None:
        told.append((failure, threading.current_thread()))

    producer = Producer(failures=policy, on_failure=on_failure if policy == "isolate" else None)
    consumer, witness = Consumer(), Consumer()

    @consumer.handler
    def fail(event: Ticked) -> None:
        heard.append("fails")
        raise error

    @consumer.handler
    def on_ticked(event: Ticked) -> None:
        heard.append("heard")

    @witness.handler
    def on_failed(event: HandlerFailed) -> None:
        announced.append((event.error, event.event, event.handler))

    producer.register(consumer, delivery=background())
    producer.register(witness)
    producer.dispatch(Ticked(7))
    if policy == "isolate":
        producer.close()
    else:
        with pytest.raises(ValueError if policy == "stop" else ExceptionGroup):
            producer.close()
    assert heard == (["fails"] if policy == "stop" else ["fails", "heard"])
    assert told == ([((error, Ticked(7), fail), producer_thread)] if policy == "isolate" else [])
    assert announced == ([] if policy == "stop" else [(error, Ticked(7), fail)])


def test_flush_says_who_is_late(gate: Gate) -> None:
    """A timeout names the listener and what is left; the background goes on."""
    producer = Producer()
    producer.register(gate.consumer, delivery=background())
    for number in range(3):
        producer.dispatch(Ticked(number))
    gate.await_entry()
    for end in (producer.flush, producer.close):
        with pytest.raises(DeliveryTimeout, match=r"Consumer\('gate'\).*3 messages") as caught:
            end(timeout=0)
        assert isinstance(caught.value, TimeoutError)
    gate.let(3)
    producer.flush(SECONDS)
    assert gate.heard == [0, 1, 2]


def test_threads_end_at_close_and_begin_again() -> None:
    """After `close` no thread is left; the producer can be used again."""
    gate = Gate(open=True)
    producer = Producer()
    producer.register(gate.consumer, delivery=background())
    for number in range(3):
        producer.dispatch(Ticked(number))
        producer.close()
        assert not any(thread.is_alive() for thread in gate.threads)
    assert gate.heard == [0, 1, 2]
    assert len(gate.threads) == 3


def test_waiting_in_the_background_for_the_background_is_refused() -> None:
    """A handler that flushes what it is itself part of would wait for ever: it is told so, and the failure surfaces."""
    for wait in (
        lambda producer: producer.flush(),
        lambda producer: producer.close(),
        lambda producer: producer.dispatch_and_wait(Tocked()),
    ):
        producer, consumer = Producer(), Consumer("waiter")

        @consumer.handler
        def on_ticked(_event: Ticked, wait: Any = wait, producer: Producer = producer) -> None:
            wait(producer)

        producer.register(consumer, delivery=background())
        producer.dispatch(Ticked())
        with pytest.raises(WaitsForItself, match="waiter"):
            producer.close(SECONDS)


def test_who_is_taken_out_still_gets_what_was_queued(gate: Gate) -> None:
    """Unregistering loses nothing that was dispatched before, nor its failures."""
    error = ValueError()
    gate.errors[1] = error
    producer, heard = Producer(), []
    late = noting(heard)
    producer.register(gate.consumer, delivery=background())
    producer.register(late, delivery=deferred)
    producer.dispatch(Ticked(0))
    producer.dispatch(Ticked(1))
    producer.unregister(gate.consumer, late)
    producer.dispatch(Ticked(2))
    gate.let(2)
    with pytest.raises(ValueError):  # noqa: PT011 - it is that very one
        producer.close(SECONDS)
    assert gate.heard == heard == [0, 1]


def test_connected_delivers_before_it_takes_out() -> None:
    """The end of the block is the end for its listeners: all that was dispatched within is delivered."""
    gate, producer, heard = Gate(open=True), Producer(), []
    late = noting(heard)
    with producer.connected(gate.consumer, delivery=background()), producer.connected(late, delivery=deferred):
        producer.dispatch(Ticked(0))
    assert gate.heard == heard == [0]
    assert producer.listeners() == []
    gate.errors[1] = ValueError()
    with pytest.raises(ValueError), producer.connected(gate.consumer, delivery=background()):  # noqa: PT011
        producer.dispatch(Ticked(1))
    assert producer.listeners() == []


def test_coming_back_keeps_the_order(gate: Gate) -> None:
    """A listener that is taken out and plugged in again, its queue not empty, hears everything in order."""
    producer = Producer()
    for number in range(3):
        producer.register(gate.consumer, delivery=background())
        producer.dispatch(Ticked(number))
        producer.unregister(gate.consumer)
    gate.let(3)
    producer.close(SECONDS)
    assert gate.heard == [0, 1, 2]
    assert len(gate.threads) == 1


def test_an_interrupted_block_is_not_hidden_by_what_fails_at_its_end() -> None:
    """`with producer:` raises failures at its end, the error of the block as context; an interrupt stays itself."""
    for ended_by in (None, KeyError(), KeyboardInterrupt()):
        gate, error = Gate(open=True), ValueError("in the background")
        gate.errors[0] = error
        caught: BaseException | None = None
        try:
            with Producer() as producer:
                producer.register(gate.consumer, delivery=background())
                producer.dispatch(Ticked(0))
                wait_for_background(producer)
                if ended_by is not None:
                    raise ended_by  # noqa: TRY301 - the block is what is tested
        except BaseException as raised:  # noqa: BLE001 - whatever it is
            caught = raised
        if isinstance(ended_by, KeyboardInterrupt):
            assert caught is ended_by
            assert "in the background" in caught.__notes__[0]
        else:
            assert caught is error
            assert caught.__context__ is ended_by


def test_a_log_of_what_is_dropped_may_dispatch(gate: Gate) -> None:
    """Whoever turns log records into events does not wait for the queue that is being talked about."""
    producer, heard = Producer(), []

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())
            producer.dispatch(Ticked(100))

    teller = Teller()
    logging.getLogger("torchsystem.services").addHandler(teller)
    try:
        producer.register(gate.consumer, delivery=background(capacity=1, overflow="drop_oldest"))
        producer.dispatch(Ticked(0))
        gate.await_entry()
        producer.dispatch(Ticked(1))
        producer.dispatch(Ticked(2))
        gate.let(10)
        producer.close(SECONDS)
    finally:
        logging.getLogger("torchsystem.services").removeHandler(teller)
    producer.flush(SECONDS)
    assert len(heard) == 2
    assert gate.heard == [0, 100, 100]  # the last of them, of what was said at the close


def test_another_queue_for_a_listener_that_comes_back_keeps_the_order(gate: Gate) -> None:
    """Taken out and plugged in again with another capacity, a listener has one queue all the same."""
    producer = Producer()
    for number, capacity in enumerate([5, 7]):
        producer.register(gate.consumer, delivery=background(capacity))
        producer.dispatch(Ticked(number))
        producer.unregister(gate.consumer)
    gate.let(2)
    producer.close(SECONDS)
    assert gate.heard == [0, 1]
    assert len(gate.threads) == 1


def test_listeners_that_come_and_go_leave_nothing_behind() -> None:
    """A listener in the background for each epoch does not make the producer grow."""
    producer = Producer()
    for number in range(20):
        guest = Gate(open=True)
        with producer.connected(guest.consumer, delivery=background()):
            producer.dispatch(Ticked(number))
        assert guest.heard == [number]
    assert len(producer._backlog.lines) <= 2  # noqa: SLF001 - what might grow
    producer.close()


def test_what_was_never_seen_is_said_when_a_producer_is_let_go_of() -> None:
    """A producer that is not closed warns of failures and deferred events that are lost with it."""
    gate = Gate(open=True)
    gate.errors[0] = ValueError()
    producer = Producer()
    producer.register(gate.consumer, delivery=background())
    producer.register(noting([]), delivery=deferred)
    producer.dispatch(Ticked(0))
    wait_for_background(producer)
    producer._backlog.lines[0].retire()  # noqa: SLF001 - else its thread lingers for a second
    gate.threads.clear()
    gate.errors.clear()  # an exception holds what it went through
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        del producer
        gc.collect()
    assert sorted(str(each.message) for each in warned) == [
        "1 deferred messages were lost: nobody called flush()",
        "1 failures of Consumer('gate') were never seen: its producer was not closed",
    ]


def test_a_producer_is_not_kept_alive_by_its_background() -> None:
    """Closed and let go of, nothing stays behind; events are let go of as soon as they are handled."""

    class Thing:
        pass

    gate = Gate(open=True)
    producer = Producer()
    producer.register(gate.consumer, delivery=background())
    thing = Thing()
    seen = weakref.ref(thing)
    producer.dispatch(Ticked(thing))
    del thing
    producer.flush()
    gate.heard.clear()
    gate.threads.clear()
    gc.collect()
    assert seen() is None
    producer.close()
    reference = weakref.ref(producer)
    del producer
    gc.collect()
    assert reference() is None


# waiting for an event


def test_dispatch_and_wait_returns_when_everyone_is_done() -> None:
    """Inline, deferred and in the background: all have handled the event, and what failed of it is in the reply."""
    gate, heard = Gate(open=True), []
    gate.errors[1] = ValueError()
    producer = Producer()
    producer.register(gate.consumer, delivery=background())
    producer.register(noting(heard, "deferred"), delivery=deferred)
    producer.register(noting(heard, "inline"))
    reply = producer.dispatch_and_wait(Ticked(0), timeout=SECONDS)
    assert (reply.event, reply.failures) == (Ticked(0), ())
    assert gate.heard == [0]
    assert heard == [("inline", 0), ("deferred", 0)]
    reply = producer.dispatch_and_wait(Ticked(1))
    assert [(failed.error, failed.event) for failed in reply.failures] == [(gate.errors[1], Ticked(1))]
    producer.close()


def test_dispatch_and_wait_leaves_other_failures_alone() -> None:
    """What failed before surfaces as ever; it is no failure of this event."""
    gate = Gate(open=True)
    gate.errors = {0: ValueError(), 1: KeyError()}
    producer = Producer()
    producer.register(gate.consumer, delivery=background())
    producer.dispatch(Ticked(0))
    wait_for_background(producer)
    with pytest.raises(ValueError):  # noqa: PT011 - it is that very one
        producer.dispatch_and_wait(Ticked(1))
    with pytest.raises(KeyError):
        producer.close()


@pytest.mark.parametrize("policy", ["finish", "isolate"])
def test_dispatch_and_wait_announces_failures(policy: Any) -> None:
    """By these policies each failure is an event; isolated ones are told, too."""
    gate, error, announced, told = Gate(open=True), ValueError(), [], []
    gate.errors[0] = error
    producer = Producer(failures=policy, on_failure=(lambda *f: told.append(f[0])) if policy == "isolate" else None)
    witness = Consumer()

    @witness.handler
    def on_failed(event: HandlerFailed) -> None:
        announced.append(event.error)
        raise KeyError

    producer.register(gate.consumer, delivery=background())
    producer.register(witness)
    reply = producer.dispatch_and_wait(Ticked(0))
    assert announced == [error]
    kinds = [type(failed.error) for failed in reply.failures]
    assert kinds == ([ValueError, KeyError] if policy == "finish" else [ValueError])
    assert [type(error) for error in told] == ([] if policy == "finish" else [ValueError, KeyError])
    producer.close()


def test_dispatch_and_wait_raises_requests_and_what_fails_inline() -> None:
    """A request to stop is control flow wherever it comes from; inline failures reach the caller by the policy."""
    gate, heard, request = Gate(open=True), [], StopIteration()
    gate.errors[0] = request
    producer = Producer()
    producer.register(gate.consumer, delivery=background())
    with pytest.raises(StopIteration) as caught:
        producer.dispatch_and_wait(Ticked(0))
    assert caught.value is request
    consumer = Consumer()

    @consumer.handler(order=-1)
    def fail(event: Ticked) -> None:
        raise ValueError

    producer.register(consumer)
    with pytest.raises(ValueError):  # noqa: PT011 - there is no other
        producer.dispatch_and_wait(Ticked(1))
    assert heard == []
    producer.close()


def test_dispatch_and_wait_says_who_is_late(gate: Gate) -> None:
    """A timeout names the listener; what failed until then, and fails later, surfaces as ever."""
    producer, other = Producer(), Gate(open=True)
    gate.errors[0], other.errors[0] = KeyError(), ValueError()
    producer.register(other.consumer, gate.consumer, delivery=background())
    with pytest.raises(DeliveryTimeout, match="gate"):
        producer.dispatch_and_wait(Ticked(0), timeout=0.01)
    gate.let()
    with pytest.raises(ExceptionGroup) as caught:
        producer.close(SECONDS)
    assert caught.value.exceptions == (other.errors[0], gate.errors[0])


def test_dispatch_and_wait_waits_only_for_those_who_hear(gate: Gate) -> None:
    """A listener that is busy with something else holds up nobody."""
    producer, heard = Producer(), []
    producer.register(gate.consumer, noting(heard), delivery=background())
    producer.dispatch(Ticked(0))
    gate.await_entry()
    assert producer.dispatch_and_wait(Tocked(1), timeout=SECONDS).failures == ()
    assert heard == [0, 1]
    gate.let()
    producer.close(SECONDS)


def test_waiting_for_what_is_dropped_says_so(gate: Gate) -> None:
    """An event that was dropped was not handled: the reply names who missed it."""
    producer, replies, told = Producer(), [], []
    producer.register(gate.consumer, delivery=background(capacity=1, overflow="drop_oldest"))
    producer.register(noting(told))
    producer.dispatch(Ticked(0))
    gate.await_entry()
    thread = threading.Thread(target=lambda: replies.append(producer.dispatch_and_wait(Ticked(1))))
    thread.start()
    until(lambda: told == [0, 1])
    producer.dispatch(Ticked(2))
    gate.let(3)
    thread.join(SECONDS)
    producer.close(SECONDS)
    assert gate.heard == [0, 2]
    (failure,) = replies[0].failures
    assert isinstance(failure.error, QueueFull)
    assert (failure.event, failure.handler) == (Ticked(1), gate.on_ticked)


class Interleaved:
    """A lock beside which another thread does something, each time before it is taken."""

    def __init__(self, line: Any, meanwhile: Callable[[], None]) -> None:
        self.lock, self.meanwhile = line._lock, meanwhile  # noqa: SLF001 - no thread can be made to switch just there

    def __enter__(self) -> None:
        self.meanwhile()
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


@pytest.mark.parametrize("ended_by", [None, KeyboardInterrupt])
def test_no_failure_falls_between_who_waits_and_who_comes_next(ended_by: type[BaseException] | None) -> None:
    """An event that is sent again may fail at any moment while waiting for it ends: somebody sees each failure."""
    producer, gate = Producer(), Gate(open=True)
    producer.register(gate.consumer, delivery=background())
    line = producer._backlog.lines[0]  # noqa: SLF001 - as above
    made: list[HandlerFailed] = []
    lock = line._lock  # noqa: SLF001 - as above

    def fail() -> None:
        made.append(HandlerFailed(ValueError(len(made)), "event", fail))
        line._lock = lock  # noqa: SLF001 - as above
        line._note(made[-1])  # noqa: SLF001 - as above
        line._lock = interleaved  # noqa: SLF001 - as above

    interleaved = Interleaved(line, fail)
    with suppress(KeyboardInterrupt), producer._backlog.barrier("event", None) as failures:  # noqa: SLF001 - as above
        line._lock = interleaved  # noqa: SLF001 - as above
        if ended_by is not None:
            raise ended_by
    line._lock = lock  # noqa: SLF001 - as above
    seen = [*failures, *line.take()] if ended_by is None else line.take()
    assert made
    assert seen == made
    producer.close()


def test_two_may_wait_for_the_same_event() -> None:
    """Whoever waits for an event gets its failures, also when it is dispatched twice at once."""
    gate, replies, event = Gate(), [], Ticked(0)
    gate.errors[0] = ValueError()
    producer = Producer()
    producer.register(gate.consumer, delivery=background())
    threads = [threading.Thread(target=lambda: replies.append(producer.dispatch_and_wait(event))) for _ in range(2)]
    for thread in threads:
        thread.start()
    line = producer._backlog.lines[0]  # noqa: SLF001 - nobody else knows who waits
    until(lambda: line.awaited == 2)
    gate.let(2)
    for thread in threads:
        thread.join(SECONDS)
    assert {failed.error for reply in replies for failed in reply.failures} == {gate.errors[0]}
    assert all(reply.failures for reply in replies)
    producer.close()


# publishers


def test_publishers_deliver_in_the_same_modes() -> None:
    """Deferred and in the background, with the topic where it is wanted."""
    publisher, first, second, heard = Publisher(), Subscriber(), Subscriber(), []

    @first.subscribe("train.*")
    def later(value: float, topic: str) -> None:
        heard.append((value, topic))

    second.subscribe("train.*")(heard.append)
    with publisher:
        publisher.register(first, delivery=background())
        publisher.register(second, delivery=deferred)
        publisher.publish(0.5, "train.loss")
        publisher.flush()
    assert sorted(heard, key=str) == [(0.5, "train.loss"), 0.5]


# where


@pytest.mark.parametrize(
    ("where", "environment", "here"),
    [
        ("everywhere", {}, True),
        ("everywhere", {"RANK": "3"}, True),
        ("leader", {}, True),
        ("leader", {"RANK": "0"}, True),
        ("leader", {"RANK": "1"}, False),
        (1, {"RANK": "1"}, True),
        (1, {"RANK": "0"}, False),
        (0, {}, True),
        (1, {}, False),
    ],
)
def test_a_place_is_told_by_the_rank_of_the_environment(where: Any, environment: dict[str, str], *, here: bool) -> None:
    """Without a rank this is the leader, rank 0."""
    assert is_here(where, environment) is here


def test_a_listener_of_another_place_hears_nothing() -> None:
    """It is listed, its events are known by name, and wanted by nobody; it is not welcomed either."""
    producer, heard = Producer(), []
    consumer = noting(heard)

    @consumer.handler
    def prepare(event: Registered) -> None:
        heard.append(event)

    producer.register(consumer, delivery=background(), where=12345)
    producer.dispatch(Ticked(1))
    producer.produce("ticked", 2)
    assert heard == []
    assert not producer.wants(Ticked)
    assert producer.listeners() == [consumer]
    producer.unregister(consumer)


@pytest.mark.parametrize("where", ["rank 0", -1, True, 1.5, None])
def test_nowhere_is_refused(where: Any) -> None:
    """What is no place is refused."""
    with pytest.raises(InvalidOption, match="where="):
        Producer().register(Consumer(), where=where)


def test_a_rank_that_is_no_number_is_refused() -> None:
    """A broken environment is noticed where it matters."""
    assert is_here("everywhere", {"RANK": "first"})
    with pytest.raises(InvalidOption, match="RANK='first'"):
        is_here("leader", {"RANK": "first"})


# mistakes


MEANINGLESS: list[Any] = ["background", "later", 3, print, object()]


@pytest.mark.parametrize("delivery", MEANINGLESS, ids=["name", "later", "number", "function", "object"])
def test_unknown_modes_are_refused(delivery: Any) -> None:
    """Only what the library gives out is a mode."""
    with pytest.raises(InvalidOption, match="delivery="):
        Producer().register(Consumer(), delivery=delivery)


@pytest.mark.parametrize(
    "options",
    [
        {"capacity": 0},
        {"capacity": -1},
        {"capacity": 1.5},
        {"capacity": True},
        {"overflow": "drop"},
        {"overflow": None},
        {"deadline": -1},
        {"deadline": float("inf")},
        {"deadline": "soon"},
    ],
    ids=repr,
)
def test_queues_without_a_meaning_are_refused(options: dict[str, Any]) -> None:
    """Capacities are positive, overflows known, deadlines finite."""
    with pytest.raises(InvalidOption, match=next(iter(options))):
        background(**options)


def test_registering_again_in_another_way_is_refused() -> None:
    """The same again is one listener; differently would silently stay as it was."""
    producer, consumer = Producer(), Consumer()
    producer.register(consumer, delivery=background(), where="leader")
    producer.register(consumer)
    producer.register(consumer, delivery=background, where="leader")
    for options in ({"delivery": "inline"}, {"delivery": deferred}, {"delivery": background(7)}, {"where": 1}):
        with pytest.raises(InvalidOption, match="Unregister it first"):
            producer.register(consumer, **options)
    producer.unregister(consumer)
    producer.register(consumer, delivery="inline")
    with pytest.raises(UnknownListener):
        producer.unregister(Consumer())


# against a model


STEPS = st.lists(st.tuples(st.sampled_from(["dispatch", "flush"]), st.integers(0, 3)), max_size=30)


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["inline", deferred, background(capacity=2)]), min_size=1, max_size=4), STEPS)
def test_every_mode_hears_everything_in_order(modes: list[Any], steps: list[tuple[str, int]]) -> None:
    """However listeners are plugged in, and whenever is flushed, each hears all events once, in order of dispatch."""
    producer, heard = Producer(), [[] for _ in modes]
    for mode, notes in zip(modes, heard, strict=True):
        producer.register(noting(notes), delivery=mode)
    sent: list[int] = []
    for number, (step, kind) in enumerate(steps):
        if step == "flush":
            producer.flush()
            assert all(notes == sent for notes in heard)
        else:
            producer.dispatch(Ticked(number) if kind % 2 else Tocked(number))
            sent.append(number)
    producer.close()
    assert all(notes == sent for notes in heard)


# nothing is lost on the way


@pytest.mark.parametrize(("policy", "end"), [("finish", "flush"), ("finish", "close"), ("stop", "close")])
def test_a_timeout_loses_no_failure(policy: Any, end: str, gate: Gate) -> None:
    """What failed of the deferred before the background was late is the cause of the timeout."""
    error, producer, fails = ValueError(), Producer(failures=policy), Gate(open=True)
    fails.errors[0] = error
    producer.register(fails.consumer, delivery=deferred)
    producer.register(gate.consumer, delivery=background())
    producer.dispatch(Ticked(0))
    with pytest.raises(DeliveryTimeout) as caught:
        getattr(producer, end)(0.01)
    cause = caught.value.__cause__
    assert (cause.exceptions[0] if isinstance(cause, ExceptionGroup) else cause) is error
    gate.let()
    producer.close(SECONDS)


def test_an_on_failure_that_fails_loses_no_other_failure() -> None:
    """All that failed in the background is told, whatever becomes of the first."""
    told: list[Exception] = []

    def on_failure(error: Exception, _event: object, _handler: object) -> None:
        told.append(error)
        if len(told) == 1:
            raise RuntimeError

    producer = Producer(failures="isolate", on_failure=on_failure)
    gates = [Gate() for _ in range(3)]
    for gate in gates:
        gate.errors[0] = ValueError()
    producer.register(*(gate.consumer for gate in gates), delivery=background())
    producer.dispatch(Ticked(0))
    for gate in gates:
        gate.let()
    with pytest.raises(RuntimeError):
        producer.close(SECONDS)
    assert told == [gate.errors[0] for gate in gates]


def test_an_interrupt_while_failures_are_told_has_the_rest_as_its_cause() -> None:
    """Whoever is told a failure may be interrupted; those that nobody was told are not lost with it."""

    def on_failure(*_failure: object) -> None:
        raise KeyboardInterrupt

    producer = Producer(failures="isolate", on_failure=on_failure)
    gates = [Gate() for _ in range(3)]
    for gate in gates:
        gate.errors[0] = ValueError()
    producer.register(*(gate.consumer for gate in gates), delivery=background())
    producer.dispatch(Ticked(0))
    for gate in gates:
        gate.let()
    with pytest.raises(KeyboardInterrupt) as caught:
        producer.close(SECONDS)
    assert caught.value.__cause__.exceptions == tuple(gate.errors[0] for gate in gates[1:])


def test_at_no_moment_it_seems_that_nothing_is_left() -> None:
    """While a message goes from the queue to its handler `flush` still waits for it, wherever threads switch."""
    producer, heard, seen = Producer(), [], []
    producer.register(noting(heard), delivery=background())

    def trace(frame: Any, _what: str, _argument: object) -> Any:
        if frame.f_code.co_name == "work":
            frame.f_trace_opcodes = True
            line = frame.f_locals["self"]
            if line.accepted == 1 and not heard:
                seen.append(line.left)
            return trace
        return None

    threading.settrace(trace)
    try:
        producer.dispatch(Ticked(7))
        producer.flush(SECONDS)
    finally:
        threading.settrace(None)  # type: ignore[arg-type]
    assert heard == [7]
    assert seen
    assert 0 not in seen


def test_several_threads_may_flush() -> None:
    """What another one has taken meanwhile is no concern: each deferred message is delivered once."""
    producer, heard = Producer(), []
    producer.register(noting(heard), delivery=deferred)

    class Vanishing(deque[Any]):
        def __bool__(self) -> bool:
            return len(self) > 0 or next(seems, False)

    seems = iter([True])  # once more it seems to hold something, which is gone when it is taken
    producer._backlog._deferred = Vanishing()  # noqa: SLF001 - no thread can be made to switch just there
    producer.dispatch(Ticked(1))
    producer.flush()
    assert heard == [1]


def test_deferred_events_carry_context_variables_along() -> None:
    """As in the background: a handler sees what was so where the event was dispatched."""
    variable: ContextVar[int] = ContextVar("variable")
    producer, consumer, seen = Producer(), Consumer(), []

    @consumer.handler
    def on_ticked(event: Ticked) -> None:
        seen.append(variable.get())

    producer.register(consumer, delivery=deferred)
    for number in range(3):
        variable.set(number)
        producer.dispatch(Ticked())
    variable.set(100)
    producer.flush()
    assert seen == [0, 1, 2]


def test_who_comes_back_in_another_thread_is_heard_of() -> None:
    """A handler that is added to a listener which one thread took out, and another plugged in, is heard."""
    producer, heard, threads = Producer(), [], []
    consumer = noting(heard, 1)
    producer.register(consumer)
    leave = consumer.handlers.leave

    def leave_late(table: Any) -> None:
        thread = threading.Thread(target=producer.register, args=(consumer,))
        threads.append(thread)
        thread.start()
        thread.join(0.05)  # it cannot come before we are done
        leave(table)

    consumer.handlers.leave = leave_late  # type: ignore[method-assign]
    producer.unregister(consumer)
    threads[0].join(SECONDS)
    producer.dispatch(Ticked(0))

    @consumer.handler
    def late(event: Ticked) -> None:
        heard.append("late")

    producer.dispatch(Ticked(1))
    assert heard == [(1, 0), (1, 1), "late"]


@pytest.mark.parametrize("delivery", [background(), deferred()], ids=["background", "deferred"])
@pytest.mark.parametrize("end", ["flush", "close"])
def test_who_hears_of_failures_later_has_heard_in_the_end(end: str, delivery: Any) -> None:
    """A failure that comes up while draining is drained to those who hear of it, and so is how they fail."""
    producer, fails, witness, heard = Producer(failures="finish"), Gate(), Consumer(), []
    fails.errors[0], error = ValueError(), KeyError()

    @witness.handler
    def on_failed(event: HandlerFailed) -> None:
        heard.append(event.error)
        raise error

    producer.register(fails.consumer, delivery=background())
    producer.register(witness, delivery=delivery)
    producer.dispatch(Ticked(0))
    fails.let()
    with pytest.raises(ExceptionGroup) as caught:
        getattr(producer, end)(SECONDS)
    assert heard == [fails.errors[0]]
    assert caught.value.exceptions == (fails.errors[0], error)
