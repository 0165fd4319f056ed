"""How long a value lives: for a call, or until the provider is closed."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from torchsystem.depends import Depends, Provider, inject
from torchsystem.errors import AsyncInSync, ScopeMismatch, UnknownScope


class Writers:
    """A generator dependency that counts, and logs what happens to its values."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.count = 0

    def writer(self) -> Iterator[str]:
        self.count += 1
        name = f"writer {self.count}"
        self.log.append(f"{name} open")
        try:
            yield name
        except BaseException as error:
            self.log.append(f"{name} saw {type(error).__name__}")
            raise
        finally:
            self.log.append(f"{name} closed")


def test_a_kept_value_is_made_once_until_the_provider_is_closed() -> None:
    """All calls of all handlers get the same; closing ends it, and the next use makes a new one."""
    writers, provider = Writers(), Provider()

    @inject(provider)
    def one(writer: str = Depends(writers.writer, scope="provider")) -> str:
        return writer

    @inject(provider)
    def two(writer: str = Depends(writers.writer, scope="provider")) -> str:
        return writer

    with provider:
        assert [one(), two(), one()] == ["writer 1"] * 3
    assert writers.log == ["writer 1 open", "writer 1 closed"]
    assert two() == "writer 2"
    provider.close()
    assert writers.log[2:] == ["writer 2 open", "writer 2 closed"]
    provider.close()
    assert len(writers.log) == 4


def test_an_override_can_ask_for_the_scope() -> None:
    """The composition root decides that a writer is opened once per run, not the handler."""
    writers, provider = Writers(), Provider()

    def writer() -> str: ...

    @inject(provider)
    def handler(writer: str = Depends(writer)) -> str:
        return writer

    with provider:
        provider.override(writer, writers.writer, scope="provider")
        assert [handler(), handler()] == ["writer 1", "writer 1"]
    assert writers.log[-1] == "writer 1 closed"


def test_what_is_kept_closes_in_reverse_and_sees_what_ended_the_block() -> None:
    """`with provider:` is the block of all that is kept."""
    writers, provider = Writers(), Provider()

    def second(writer: str = Depends(writers.writer)) -> Iterator[str]:
        writers.log.append("second open")
        try:
            yield f"second on {writer}"
        finally:
            writers.log.append("second closed")

    @inject(provider)
    def handler(second: str = Depends(second, scope="provider")) -> str:
        return second

    with pytest.raises(ValueError, match="run failed"), provider:
        assert handler() == "second on writer 1"
        raise ValueError("run failed")
    assert writers.log == [
        "writer 1 open",
        "second open",
        "second closed",
        "writer 1 saw ValueError",
        "writer 1 closed",
    ]


def test_a_scope_that_is_not_given_is_that_of_its_user() -> None:
    """What a kept value is made from is kept with it."""
    writers, provider = Writers(), Provider()

    def history(writer: str = Depends(writers.writer)) -> list[str]:
        return [writer]

    @inject(provider)
    def handler(history: list[str] = Depends(history, scope="provider")) -> list[str]:
        return history

    with provider:
        assert handler() is handler()
    assert writers.count == 1


def test_the_widest_scope_in_a_graph_holds_for_uses_that_give_none() -> None:
    """One dependency is one value in one call, so a use without a scope gets what is kept."""
    writers, provider = Writers(), Provider()

    def user(writer: str = Depends(writers.writer)) -> str:
        return writer

    @inject(provider)
    def handler(
        a: str = Depends(user), b: str = Depends(writers.writer, scope="provider"), c: str = Depends(writers.writer)
    ) -> set[str]:
        return {a, b, c}

    with provider:
        assert handler() == handler() == {"writer 1"}


def test_a_use_that_asks_for_a_call_gets_its_own() -> None:
    """`scope="call"` is respected beside a kept value of the same dependency."""
    writers, provider = Writers(), Provider()

    @inject(provider)
    def handler(
        kept: str = Depends(writers.writer, scope="provider"), own: str = Depends(writers.writer, scope="call")
    ) -> tuple[str, str]:
        return kept, own

    with provider:
        assert handler() == ("writer 1", "writer 2")
        assert handler() == ("writer 1", "writer 3")


def test_a_kept_value_cannot_be_made_from_what_lives_shorter() -> None:
    """Asking explicitly for scope "call", or for a handler's argument, is a mistake named at registration."""
    provider, writers = Provider(), Writers()

    def short(writer: str = Depends(writers.writer, scope="call")) -> str:
        return writer

    def by_argument(model: str) -> str:
        return model

    with pytest.raises(ScopeMismatch, match=r"writer is asked for with scope='call'(.|\n)*✗ value"):

        @inject(provider)
        def one(value: str = Depends(short, scope="provider")) -> None: ...

    with pytest.raises(ScopeMismatch, match=r"by_argument is kept by the provider, but its parameter 'model'"):

        @inject(provider)
        def two(model: str, value: str = Depends(by_argument, scope="provider")) -> None: ...


def test_marks_that_contradict_themselves_are_refused() -> None:
    """Unknown scopes, and values that are both kept and made anew."""
    with pytest.raises(UnknownScope, match="scope='run': there are 'call' and 'provider'"):
        Depends(str, scope="run")  # type: ignore[arg-type]
    with pytest.raises(ScopeMismatch, match="cache=False"):
        Depends(str, scope="provider", cache=False)


def test_an_override_of_any_part_makes_a_kept_value_anew() -> None:
    """A kept value belongs to what it was made from; when that is restored, so is the value."""
    writers, provider = Writers(), Provider()

    def folder() -> str:
        return "runs"

    def log(folder: str = Depends(folder), writer: str = Depends(writers.writer)) -> tuple[str, str]:
        return folder, writer

    @inject(provider)
    def handler(log: tuple[str, str] = Depends(log, scope="provider")) -> tuple[str, str]:
        return log

    with provider:
        first = handler()
        assert first == ("runs", "writer 1")
        with provider.override(folder, lambda: "tmp"):
            assert handler() == ("tmp", "writer 1")
        assert handler() is first


def test_a_kept_value_is_made_once_under_threads() -> None:
    """Threads that ask at the same time wait for the one that makes it."""
    provider, made, ready = Provider(), [], threading.Barrier(8)

    def slow() -> object:
        made.append(1)
        gc.collect(0)  # long enough for the others to come
        return object()

    @inject(provider)
    def handler(value: object = Depends(slow, scope="provider")) -> object:
        return value

    values: list[object] = []

    def call() -> None:
        ready.wait()
        values.append(handler())

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(set(map(id, values))) == 1


def test_making_a_kept_value_that_fails_leaves_nothing() -> None:
    """What was opened for it is closed at once, and the next call tries again."""
    writers, provider, fails = Writers(), Provider(), [True, False]

    def flaky(writer: str = Depends(writers.writer, cache=False)) -> str:
        if fails.pop(0):
            raise ValueError("not yet")
        return writer

    @inject(provider)
    def handler(value: str = Depends(flaky, scope="provider")) -> str:
        return value

    with provider:
        with pytest.raises(ValueError, match="not yet"):
            handler()
        assert writers.log == ["writer 1 open", "writer 1 saw ValueError", "writer 1 closed"]
        assert handler() == "writer 2"


def test_blocks_of_one_provider_nest() -> None:
    """Two services may share a provider and both be in a `with`: the outermost end closes."""
    writers, provider = Writers(), Provider()

    @inject(provider)
    def handler(writer: str = Depends(writers.writer, scope="provider")) -> str:
        return writer

    with provider:
        with provider:
            assert handler() == "writer 1"
        assert handler() == "writer 1"
    assert writers.log[-1] == "writer 1 closed"


def test_a_provider_that_is_dropped_with_something_open_warns() -> None:
    """Silence would lose what was not flushed."""
    writers = Writers()

    def use() -> None:
        @inject(Provider())
        def handler(writer: str = Depends(writers.writer, scope="provider")) -> str:
            return writer

        handler()

    use()
    with pytest.warns(ResourceWarning, match=r"a provider was never closed: .*writer still open"):
        gc.collect()


def test_async_values_are_kept_too_and_closed_by_aclose() -> None:
    """An async generator of scope "provider" is made once, and its end must be awaited."""
    log, provider = [], Provider()

    async def session() -> AsyncIterator[str]:
        log.append("open")
        yield "session"
        await asyncio.sleep(0)
        log.append("closed")

    @inject(provider)
    async def handler(session: str = Depends(session, scope="provider")) -> str:
        return session

    async def main() -> None:
        assert await asyncio.gather(handler(), handler(), handler()) == ["session"] * 3
        assert log == ["open"]
        with pytest.raises(AsyncInSync, match="session: closing an async generator must be awaited"):
            provider.close()
        await provider.aclose()
        assert log == ["open", "closed"]

    asyncio.run(main())
