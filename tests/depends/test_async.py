"""Async handlers: the same plan, the same rules, and what must be awaited is."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.depends.graphs import Pause, drive
from torchsystem.depends import Depends, Provider, inject
from torchsystem.errors import AsyncInSync, NeverYielded, YieldedTwice


def test_an_async_handler_may_need_everything() -> None:
    """Sync and async functions, generators of both sorts, and `@asynccontextmanager`, in one graph."""
    log: list[str] = []

    def plain() -> str:
        return "plain"

    async def awaited(plain: str = Depends(plain)) -> str:
        await Pause()
        return f"awaited {plain}"

    def opened() -> Iterator[str]:
        log.append("open")
        yield "opened"
        log.append("closed")

    async def async_opened(opened: str = Depends(opened)) -> AsyncIterator[str]:
        await Pause()
        log.append("async open")
        yield f"async {opened}"
        await Pause()
        log.append("async closed")

    @asynccontextmanager
    async def managed() -> AsyncIterator[str]:
        log.append("managed open")
        yield "managed"
        log.append("managed closed")

    @inject(Provider())
    async def handler(
        x: int, a: str = Depends(awaited), b: str = Depends(async_opened), c: str = Depends(managed)
    ) -> tuple[object, ...]:
        await Pause()
        log.append("handler")
        return x, a, b, c

    assert inspect.iscoroutinefunction(handler)
    assert drive(handler(1)) == (1, "awaited plain", "async opened", "managed")
    assert log == ["open", "async open", "managed open", "handler", "managed closed", "async closed", "closed"]
    assert inspect.iscoroutinefunction(handler)
    log.clear()
    assert drive(handler(2, b="given")) == (2, "awaited plain", "given", "managed")
    assert log == ["managed open", "handler", "managed closed"]


def test_a_sync_handler_cannot_need_an_async_dependency() -> None:
    """It could not wait: refused at registration, with the way to it."""

    async def connect() -> str:
        return "connection"

    def store(connection: str = Depends(connect)) -> str:
        return connection

    with pytest.raises(AsyncInSync, match=r"connect is async and handler is not(.|\n)*✗ store(.|\n)*✗ connection"):

        @inject(Provider())
        def handler(store: str = Depends(store)) -> None: ...


def test_an_override_by_sync_makes_it_usable() -> None:
    """An async interface bound to a sync implementation serves a sync handler."""

    async def connect() -> str: ...

    provider = Provider()
    provider.override(connect, lambda: "fake")

    @inject(provider)
    def handler(connection: str = Depends(connect)) -> str:
        return connection

    assert handler() == "fake"


def test_an_async_generator_handler_passes_everything_through() -> None:
    """Sent values, thrown exceptions and the close reach the handler, its dependencies stay open meanwhile."""
    log: list[str] = []

    async def session() -> AsyncIterator[str]:
        log.append("open")
        try:
            yield "session"
        except BaseException as error:
            log.append(type(error).__name__)
            raise
        finally:
            log.append("closed")

    @inject(Provider())
    async def handler(n: int, session: str = Depends(session)) -> AsyncIterator[object]:
        received = yield session
        try:
            yield received
        except ValueError:
            yield "caught"
        yield n

    assert inspect.isasyncgenfunction(handler)

    async def all_of_it() -> None:
        stream = handler(3)
        assert log == []
        assert await anext(stream) == "session"
        assert await stream.asend("sent") == "sent"  # type: ignore[attr-defined]
        assert await stream.athrow(ValueError()) == "caught"  # type: ignore[attr-defined]
        assert [value async for value in stream] == [3]
        assert log == ["open", "closed"]

    async def broken_off() -> None:
        stream = handler(3)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        assert log == ["open", "GeneratorExit", "closed"]

    drive(all_of_it())
    log.clear()
    drive(broken_off())


def test_mistakes_of_async_generators_have_the_same_names() -> None:
    """Never and twice, as with sync ones."""

    async def never() -> AsyncIterator[int]:
        if never is None:
            yield 1

    async def twice() -> AsyncIterator[int]:
        yield 1
        yield 2

    @inject(Provider())
    async def one(x: int = Depends(never)) -> None: ...

    @inject(Provider())
    async def two(x: int = Depends(twice)) -> None: ...

    with pytest.raises(NeverYielded):
        drive(one())
    with pytest.raises(YieldedTwice):
        drive(two())


def test_a_coroutine_that_was_made_before_a_change_sees_all_of_it_or_nothing() -> None:
    """Calls that began before the first one was carried out, or before an override, are bound when they run."""
    provider = Provider()

    async def value() -> int:
        return 1

    @inject(provider)
    async def handler(a: int = Depends(value), b: int = Depends(value)) -> tuple[int, int]:
        return a, b

    early, first = handler(), handler()
    assert drive(first) == (1, 1)
    assert drive(early) == (1, 1)
    before = handler()
    provider.override(value, lambda: 2)
    assert drive(before) == (2, 2)
