"""Generators as dependencies: open while they are used, told how it ended, never in the way of the exception."""

from __future__ import annotations

import contextlib
import gc
import traceback
from collections.abc import Iterator

import pytest

from torchsystem.depends import Depends, Provider, inject
from torchsystem.errors import NeverYielded, YieldedTwice


class Log(list[str]):
    """What happened, in order, with a generator dependency that writes to it."""

    def session(self) -> Iterator[str]:
        self.append("open")
        try:
            yield "session"
        except BaseException as error:
            self.append(f"rolled back {type(error).__name__}")
            raise
        else:
            self.append("committed")
        finally:
            self.append("closed")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, StopIteration, GeneratorExit, SystemExit])
def test_a_generator_sees_the_exception_and_does_not_commit(error: type[BaseException]) -> None:
    """What ended the block is thrown in at the `yield`; what follows it outside `finally` does not run."""
    log = Log()

    @inject(Provider())
    def handler(session: str = Depends(log.session)) -> None:
        raise error

    with pytest.raises(error):
        handler()
    assert log == ["open", f"rolled back {error.__name__}", "closed"]


def test_a_nested_generator_is_open_while_its_user_runs() -> None:
    """Everything built from it is done before a generator closes, the handler included."""
    log = Log()

    def store(session: str = Depends(log.session)) -> Iterator[str]:
        log.append("store open")
        yield f"store on {session}"
        log.append("store closed")

    @inject(Provider())
    def handler(store: str = Depends(store)) -> None:
        log.append(f"handler with {store}")

    handler()
    assert log == ["open", "store open", "handler with store on session", "store closed", "committed", "closed"]


def test_stop_iteration_passes_through_open_generators() -> None:
    """A handler may end a training by `StopIteration`, whatever is open: the very exception arrives."""
    stop = StopIteration("early stop")
    log = Log()

    @inject(Provider())
    def handler(session: str = Depends(log.session)) -> None:
        raise stop

    with pytest.raises(StopIteration) as caught:
        handler()
    assert caught.value is stop
    assert log[-1] == "closed"


def test_a_generator_cannot_swallow() -> None:
    """An exception that a dependency catches goes on all the same: the caller must know."""

    def swallowing() -> Iterator[None]:
        with contextlib.suppress(ValueError):
            yield

    @inject(Provider())
    def handler(x: None = Depends(swallowing)) -> None:
        raise ValueError("kept")

    with pytest.raises(ValueError, match="kept"):
        handler()


def test_a_translated_exception_takes_the_place_of_the_original() -> None:
    """A dependency may raise another exception instead; the original is its context."""
    original = ValueError("low level")

    def translating() -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise LookupError("high level") from error

    @inject(Provider())
    def handler(x: None = Depends(translating)) -> None:
        raise original

    with pytest.raises(LookupError, match="high level") as caught:
        handler()
    assert caught.value.__context__ is caught.value.__cause__ is original


def test_a_clean_up_that_fails_late_has_the_original_as_context() -> None:
    """Also where the generator was done with the exception before it failed."""
    original = ValueError("in the handler")

    def failing() -> Iterator[None]:
        with contextlib.suppress(ValueError):
            yield
        raise LookupError("in the clean-up")

    @inject(Provider())
    def handler(x: None = Depends(failing)) -> None:
        raise original

    with pytest.raises(LookupError) as caught:
        handler()
    assert caught.value.__context__ is original


def test_clean_ups_that_fail_come_as_one_group() -> None:
    """Two failures are one group in the order of closing, an ExceptionGroup only if nothing worse is in it."""

    def failing(error: BaseException) -> Iterator[None]:
        try:
            yield
        finally:
            raise error

    first, second = ValueError("first"), KeyboardInterrupt("second")

    def one() -> Iterator[None]:
        yield from failing(first)

    def two() -> Iterator[None]:
        yield from failing(second)

    original = LookupError("in the handler")

    @inject(Provider())
    def both(a: None = Depends(one), b: None = Depends(two)) -> None:
        raise original

    with pytest.raises(BaseExceptionGroup) as caught:
        both()
    assert list(caught.value.exceptions) == [second, first]
    assert not isinstance(caught.value, ExceptionGroup)
    assert caught.value.__context__ is original


def test_a_clean_up_that_fails_ends_the_block_of_those_around_it() -> None:
    """After a commit that failed, the transaction around it must not commit."""
    log = Log()

    def inner(session: str = Depends(log.session)) -> Iterator[None]:
        yield
        raise ValueError("commit failed")

    @inject(Provider())
    def handler(x: None = Depends(inner)) -> None: ...

    with pytest.raises(ValueError, match="commit failed"):
        handler()
    assert log == ["open", "rolled back ValueError", "closed"]


def test_a_generator_that_never_yields_is_named() -> None:
    """It is a mistake with a name and a tree, and what was open before is closed."""
    log = Log()

    def never() -> Iterator[None]:
        if log == ["no"]:
            yield

    @inject(Provider())
    def handler(session: str = Depends(log.session), x: None = Depends(never)) -> None: ...

    with pytest.raises(NeverYielded, match=r"never ended without a yield(.|\n)*✗ x ← .*never"):
        handler()
    assert log == ["open", "rolled back NeverYielded", "closed"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_generator_that_yields_twice_is_named_and_closed(fails: bool) -> None:  # noqa: FBT001
    """A second value would go nowhere: it is a mistake, after success and after an exception."""
    log: list[str] = []

    def twice() -> Iterator[int]:
        try:
            try:
                yield 1
            except ValueError:
                log.append("caught")
            yield 2
        finally:
            log.append("closed")

    @inject(Provider())
    def handler(x: int = Depends(twice)) -> None:
        if fails:
            raise ValueError

    with pytest.raises(YieldedTwice, match="twice yielded a second time") as caught:
        handler()
    assert log[-1] == "closed"
    assert isinstance(caught.value.__context__, ValueError) is fails


def test_a_generator_that_will_not_end_is_named_too() -> None:
    """Even one that yields on being closed cannot hang or hide."""

    def stubborn() -> Iterator[int]:
        for _ in range(3):
            with contextlib.suppress(GeneratorExit):
                yield 1

    @inject(Provider())
    def handler(x: int = Depends(stubborn)) -> None: ...

    with pytest.raises(YieldedTwice):
        handler()


def test_the_traceback_leads_to_the_handler() -> None:
    """The traceback of a failing handler shows the generated line, readable, and then the handler's own."""
    log = Log()

    @inject(Provider())
    def train(session: str = Depends(log.session)) -> None:
        raise ValueError("deep down")

    with pytest.raises(ValueError, match="deep down") as caught:
        train()
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert [frame.name for frame in frames][-2:] == ["injected_train", "train"]
    assert frames[-2].line == "_result = _handler(_session)"
    assert frames[-2].filename.startswith("<injected train")


def test_an_injected_handler_that_is_a_generator_returns_its_value() -> None:
    """Values sent in, thrown in and returned pass through as with `yield from`."""
    log = Log()

    @inject(Provider())
    def handler(n: int, session: str = Depends(log.session)) -> Iterator[object]:
        received = yield session
        try:
            yield received
        except ValueError:
            yield "caught"
        return "returned"

    stream = handler(1)
    assert log == []
    assert next(stream) == "session"
    assert stream.send("sent") == "sent"  # type: ignore[attr-defined]
    assert stream.throw(ValueError) == "caught"  # type: ignore[attr-defined]
    with pytest.raises(StopIteration) as caught:
        next(stream)
    assert caught.value.value == "returned"
    assert log == ["open", "committed", "closed"]


def test_a_generator_handler_that_is_dropped_closes_what_it_opened() -> None:
    """Breaking off a loop over it is the end of its block."""
    log = Log()

    @inject(Provider())
    def handler(session: str = Depends(log.session)) -> Iterator[str]:
        yield session
        yield session

    for _ in handler():
        break
    gc.collect()
    assert log == ["open", "rolled back GeneratorExit", "closed"]
