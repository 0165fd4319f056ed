"""Processes: what becomes of undelivered messages and of locks when a process forks or ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from textwrap import dedent

import pytest

from torchsystem.services.processes import ForkSafeLock

PRELUDE = """
import os, sys, threading
from torchsystem.services import *

@event
class Ticked:
    number: int

producer, consumer = Producer(), Consumer("slow")

@consumer.handler(every=1)
def on_ticked(event: Ticked) -> None:
    handle(event.number)

def say(word) -> None:
    os.write(1, f"{word} ".encode())

handle = say
"""


def run(program: str, **environment: str) -> tuple[int, list[str], str]:
    """Run a program in a process of its own; return its exit code, the words it said, and its standard error."""
    done = subprocess.run(  # noqa: S603 - the program is ours
        [sys.executable, "-c", PRELUDE + dedent(program)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
    )
    return done.returncode, done.stdout.split(), done.stderr


def test_at_exit_the_background_is_drained() -> None:
    """A program that just ends loses nothing: what is queued is delivered first, and no thread stays behind."""
    code, words, errors = run(
        """
        producer.register(consumer, delivery=background(capacity=2000, deadline=200))
        for number in range(1000):
            producer.dispatch(Ticked(number))
        """
    )
    assert words == [str(number) for number in range(1000)]
    assert (code, errors) == (0, "")


def test_at_exit_a_listener_that_hangs_is_given_up() -> None:
    """The interpreter does not hang: after the deadline it says what is lost, and ends."""
    code, words, errors = run(
        """
        entered = threading.Event()
        def handle(number):
            say(number)
            entered.set()
            threading.Event().wait()
        producer.register(consumer, delivery=background(deadline=0.1))
        for number in range(3):
            producer.dispatch(Ticked(number))
        entered.wait()
        """
    )
    assert words == ["0"]
    assert errors == "3 messages to Consumer('slow') were lost at exit: it was too slow\n"
    assert code == 0


def test_at_exit_failures_that_nobody_saw_are_shown() -> None:
    """What failed after the last dispatch is printed, with its traceback."""
    code, _, errors = run(
        """
        def handle(number):
            raise ValueError(f"number {number}")
        producer.register(consumer, delivery=background(deadline=200))
        producer.dispatch(Ticked(7))
        """
    )
    assert "in on_ticked" in errors
    assert errors.endswith("ValueError: number 7\n")
    assert code == 0


def test_at_exit_isolated_failures_are_told() -> None:
    """Whoever isolates failures is told of the last ones too."""
    code, words, errors = run(
        """
        def handle(number):
            raise ValueError(number)
        producer = Producer(failures="isolate", on_failure=lambda error, event, handler: say(event.number))
        producer.register(consumer, delivery=background(deadline=200))
        producer.dispatch(Ticked(7))
        """
    )
    assert (code, words, errors) == (0, ["7"], "")


def test_at_exit_deferred_messages_are_said_to_be_lost() -> None:
    """Deferring is asking to flush: who forgets it is told."""
    code, words, errors = run(
        """
        producer.register(consumer, delivery=deferred)
        producer.dispatch(Ticked(1))
        producer.dispatch(Ticked(2))
        """
    )
    assert words == []
    assert errors == "2 deferred messages were lost at exit: nobody called flush()\n"
    assert code == 0


def test_at_exit_dropped_messages_are_counted() -> None:
    """What was dropped is said in the end, if nobody closed the producer."""
    _, words, errors = run(
        """
        through, entered = threading.Event(), threading.Event()
        def handle(number):
            entered.set()
            through.wait()
            say(number)
        producer.register(consumer, delivery=background(capacity=1, overflow="drop_oldest", deadline=200))
        producer.dispatch(Ticked(0))
        entered.wait()
        for number in range(1, 5):
            producer.dispatch(Ticked(number))
        through.set()
        """
    )
    assert words == ["0", "4"]
    assert errors.splitlines()[1] == "Consumer('slow') does not keep up: 3 messages to it were dropped so far"


def test_an_uncaught_exception_loses_nothing() -> None:
    """A program that fails still delivers what it dispatched."""
    code, words, _ = run(
        """
        producer.register(consumer, delivery=background(deadline=200))
        for number in range(100):
            producer.dispatch(Ticked(number))
        1 / 0
        """
    )
    assert len(words) == 100
    assert code == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_begins_with_nothing_and_works() -> None:
    """What waits at a fork is delivered by the parent alone; the child has a thread of its own when it needs one."""
    code, words, errors = run(
        """
        through, entered, origin = threading.Event(), threading.Event(), os.getpid()
        def handle(number):
            if os.getpid() == origin:
                entered.set()
                through.wait()
            say(number)
        late = Consumer()
        late.handler(on_ticked)
        producer.register(consumer, delivery=background(deadline=200))
        producer.register(late, delivery=deferred)
        producer.dispatch(Ticked(1))
        producer.dispatch(Ticked(2))
        entered.wait()
        child = os.fork()
        if child == 0:
            producer.flush(0)
            producer.dispatch(Ticked(100))
            producer.close(200)
            say("child")
            os._exit(0)
        os.waitpid(child, 0)
        through.set()
        producer.close(200)
        """
    )
    assert words[:3] == ["100", "100", "child"]
    assert sorted(words[3:]) == ["1", "1", "2", "2"]
    assert (code, errors) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_worker_processes_may_come_and_go() -> None:
    """Processes forked by `multiprocessing`, as data loaders do, neither hang nor repeat anything."""
    code, words, errors = run(
        """
        import multiprocessing
        def work():
            producer.dispatch(Ticked(100))
            producer.close(200)
        producer.register(consumer, delivery=background(deadline=200))
        for number in range(5):
            producer.dispatch(Ticked(number))
            process = multiprocessing.get_context("fork").Process(target=work)
            process.start()
            process.join(200)
            assert process.exitcode == 0
        """
    )
    assert sorted(words, key=int) == ["0", "1", "2", "3", "4", *5 * ["100"]]
    assert (code, errors) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_lock_is_free_in_a_child_whoever_holds_it() -> None:
    """A thread that holds a lock at a fork does not exist in the child, and cannot release it there."""
    guard, held, through = ForkSafeLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with guard.lock:
            held.set()
            through.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        with guard.lock:
            os._exit(7)
    _, status = os.waitpid(child, 0)
    through.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 7


def test_the_rank_is_read_from_the_environment() -> None:
    """What is registered for the leader hears in rank 0 only, without a word of distribution in the code."""
    program = """
        producer.register(consumer, where="leader")
        producer.dispatch(Ticked(1))
        """
    assert run(program, RANK="0") == (0, ["1"], "")
    assert run(program, RANK="1") == (0, [], "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_process_of_multiprocessing_ends_as_any_other() -> None:
    """What is queued is delivered, and what is deferred is said to be lost, also where no `atexit` is heard."""
    code, words, errors = run(
        """
        import multiprocessing

        producer.register(consumer, delivery=background(deadline=200))
        producer.register(later := Consumer("later"), delivery=deferred)

        @later.handler
        def on_later(event: str) -> None: ...

        def work():
            for number in range(5):
                producer.dispatch(Ticked(number))
            producer.dispatch("deferred")

        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join()
        """
    )
    assert words == ["0", "1", "2", "3", "4"]
    assert "1 deferred messages were lost at exit" in errors
    assert code == 0


def test_at_exit_who_hears_of_failures_hears_of_the_last() -> None:
    """A failure that comes up only at exit still reaches a listener in the background."""
    code, words, _ = run(
        """
        producer = Producer(failures="isolate", on_failure=lambda *_: None)
        witness = Consumer("witness")

        @witness.handler
        def on_failed(event: HandlerFailed) -> None:
            say("heard")

        def handle(number):
            raise ValueError

        producer.register(consumer, witness, delivery=background(deadline=200))
        producer.dispatch(Ticked(1))
        """
    )
    assert (code, words) == (0, ["heard"])
