"""What is bound late: overrides take effect at the next call, and are undone exactly."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchsystem.depends import Depends, Provider, inject
from torchsystem.errors import AsyncInSync, InvalidDependency, UnboundInterface, UnknownScope


def device() -> str:
    """Say where to train."""


def rate() -> float:
    """Give the learning rate."""
    return 0.1


def handler_of(provider: Provider) -> Callable[[], tuple[str, float]]:
    """Return a handler that shows what is bound."""

    @inject(provider)
    def handler(device: str = Depends(device), rate: float = Depends(rate)) -> tuple[str, float]:
        return device, rate

    return handler


@pytest.fixture
def provider() -> Provider:
    """Return a provider on which `device` is bound."""
    provider = Provider()
    provider.dependency_overrides[device] = lambda: "cuda"
    return provider


def test_an_override_takes_effect_at_the_next_call(provider: Provider) -> None:
    """Written into the dictionary in any way, or by `override`, before or after the first call."""
    handler = handler_of(provider)
    assert handler() == ("cuda", 0.1)
    provider.dependency_overrides[rate] = lambda: 0.2
    assert handler() == ("cuda", 0.2)
    provider.dependency_overrides.update({rate: lambda: 0.3, device: lambda: "cpu"})
    assert handler() == ("cpu", 0.3)
    provider.override(rate, lambda: 0.4)
    assert handler() == ("cpu", 0.4)
    del provider.dependency_overrides[rate]
    assert handler() == ("cpu", 0.1)
    provider.dependency_overrides |= {rate: lambda: 0.5}
    assert handler() == ("cpu", 0.5)
    assert provider.dependency_overrides.pop(rate)() == 0.5
    assert handler() == ("cpu", 0.1)
    assert provider.dependency_overrides.setdefault(rate, lambda: 0.6)() == 0.6
    assert handler() == ("cpu", 0.6)
    assert provider.dependency_overrides.popitem()[0] is rate
    assert handler() == ("cpu", 0.1)
    provider.dependency_overrides.clear()
    with pytest.raises(UnboundInterface):
        handler()


def test_a_block_restores_exactly(provider: Provider) -> None:
    """At its end what was there before is there again: another override, or none; also on error."""
    handler = handler_of(provider)
    before = dict(provider.dependency_overrides)
    with pytest.raises(ValueError, match="inside"), provider.override(device, lambda: "a"):
        with provider.override(device, lambda: "b"), provider.override(rate, lambda: 0.9):
            assert handler() == ("b", 0.9)
        assert handler() == ("a", 0.1)
        raise ValueError("inside")
    assert handler() == ("cuda", 0.1)
    assert dict(provider.dependency_overrides) == before


def test_blocks_may_end_in_any_order(provider: Provider) -> None:
    """Leaving removes one's own entry wherever it stands: the newest that is left is in force."""
    handler = handler_of(provider)
    first, second = provider.override(device, lambda: "first"), provider.override(device, lambda: "second")
    first.__enter__()
    second.__enter__()
    assert handler()[0] == "second"
    first.__exit__(None, None, None)
    assert handler()[0] == "second"
    second.__exit__(None, None, None)
    assert handler()[0] == "cuda"


def test_a_block_can_be_entered_again(provider: Provider) -> None:
    """One override object serves several blocks, also nested ones."""
    handler = handler_of(provider)
    override = provider.override(device, lambda: "tmp")
    with override, override:
        assert handler()[0] == "tmp"
    assert handler()[0] == "cuda"
    with override:
        assert handler()[0] == "tmp"
    assert handler()[0] == "cuda"


class Model:
    """What overrides of one key must show: one plain entry at most, and the blocks around and above it."""

    def __init__(self) -> None:
        self.stack: list[tuple[str, str]] = []

    def write(self, value: str) -> None:
        self.stack = [entry for entry in self.stack if entry[0] != "plain"] + [("plain", value)]

    def enter(self, value: str) -> None:
        self.stack.append(("block", value))

    def leave(self, value: str) -> None:
        self.stack = [entry for entry in self.stack if entry != ("block", value)]

    @property
    def top(self) -> str | None:
        return self.stack[-1][1] if self.stack else None


@given(st.lists(st.sampled_from(["write", "override", "enter", "leave first", "leave last", "delete"]), max_size=20))
def test_any_history_shows_what_the_stack_says(history: list[str]) -> None:
    """Writes, blocks and deletions in any order: in force is always the newest that is left."""
    provider, model, blocks = Provider(), Model(), []
    handler = inject(provider)(lambda rate=Depends(rate): rate)
    for number, action in enumerate(history):
        value = f"{action} {number}"
        if action == "write":
            provider.dependency_overrides[rate] = lambda value=value: value
            model.write(value)
        elif action == "override":
            provider.override(rate, lambda value=value: value)
            model.write(value)
        elif action == "enter":
            block = provider.override(rate, lambda value=value: value)
            block.__enter__()
            blocks.append((block, value))
            model.enter(value)
        elif action.startswith("leave") and blocks:
            block, left = blocks.pop(0 if action == "leave first" else -1)
            block.__exit__(None, None, None)
            model.leave(left)
        elif action == "delete" and rate in provider.dependency_overrides:
            del provider.dependency_overrides[rate]
            model.stack.clear()
        assert handler() == (0.1 if model.top is None else model.top)
        assert (rate in provider.dependency_overrides) is (model.top is not None)


def test_inside_its_own_override_a_dependency_means_the_original(provider: Provider) -> None:
    """So an override can decorate what it replaces, at any depth below it."""

    def doubled(rate: float = Depends(rate)) -> float:
        return 2 * rate

    def deeper(halved: float = Depends(lambda rate=Depends(rate): rate / 2)) -> float:
        return halved

    handler = handler_of(provider)
    with provider.override(rate, doubled):
        assert handler() == ("cuda", 0.2)
    with provider.override(rate, deeper):
        assert handler() == ("cuda", 0.05)


def test_an_override_of_an_override_is_not_followed(provider: Provider) -> None:
    """What stands in for a dependency is what it is: overriding that changes only its direct uses."""

    def slow() -> float:
        return 0.01

    provider.override(rate, slow)
    provider.override(slow, lambda: 99.0)
    assert handler_of(provider)() == ("cuda", 0.01)


def test_an_override_may_need_other_dependencies_and_clean_up(provider: Provider) -> None:
    """An implementation may be of another sort than the interface: with needs, a generator, a class."""
    log = []

    def opened(model: str, rate: float = Depends(rate)) -> Iterator[str]:
        log.append("open")
        yield f"{model} {rate}"
        log.append("closed")

    @inject(provider)
    def handler(model: str, device: str = Depends(device)) -> str:
        return device

    with provider.override(device, opened):
        assert handler("mlp") == "mlp 0.1"
    assert log == ["open", "closed"]
    with provider.override(device, str):
        assert handler("mlp") == ""
    assert handler("mlp") == "cuda"


def test_two_dependencies_with_one_implementation_are_two(provider: Provider) -> None:
    """Each dependency has its value, whoever makes it."""
    provider.override(device, object)
    provider.override(rate, object)
    handler = handler_of(provider)()
    assert handler[0] is not handler[1]


@pytest.mark.parametrize(
    ("key", "implementation", "message"),
    [
        (device, "cuda", "override of device with 'cuda'.*lambda: value"),
        ("device", lambda: "cuda", "override of 'device'.*not its name"),
        (Depends(device), lambda: "cuda", r"override of Depends\(device\).*Write device"),
        (device, Depends(rate), "override of device with"),
        (device, None, "override of device with None"),
    ],
)
def test_an_override_that_cannot_be_called_is_refused(
    provider: Provider, key: object, implementation: object, message: str
) -> None:
    """At once, in words that say what to write, and without a trace."""
    before = dict(provider.dependency_overrides)
    for write in (
        provider.override,
        provider.dependency_overrides.__setitem__,
        provider.dependency_overrides.setdefault,
    ):
        if write == provider.dependency_overrides.setdefault and key is device:
            continue  # is bound already
        with pytest.raises(InvalidDependency, match=message):
            write(key, implementation)  # type: ignore[arg-type,operator]
    with pytest.raises(InvalidDependency, match=message):
        provider.dependency_overrides.update([(rate, lambda: 1.0), (key, implementation)])
    assert dict(provider.dependency_overrides) == before


def test_async_for_sync_is_refused(provider: Provider) -> None:
    """Sync handlers could not wait for it; the other way round is fine."""

    async def connect() -> str:
        return "async"

    with pytest.raises(AsyncInSync, match="connect: it is async, and device is not"):
        provider.override(device, connect)
    provider.override(connect, lambda: "sync")


def test_an_unknown_scope_is_refused(provider: Provider) -> None:
    """A scope is "call" or "provider"."""
    with pytest.raises(UnknownScope, match="'run'"):
        provider.override(device, lambda: "cuda", scope="run")  # type: ignore[arg-type]


def test_a_copy_of_the_overrides_is_a_plain_dictionary(provider: Provider) -> None:
    """Who copies them wants to look or to restore, and must not change the provider by it."""
    copied = copy.copy(provider.dependency_overrides)
    assert type(copied) is dict
    assert copied == provider.dependency_overrides


def test_threads_never_see_a_mixed_graph() -> None:  # noqa: C901 - a small graph, and its caller
    """A call is bound to one state of the overrides, whatever other threads switch meanwhile."""
    provider = Provider()

    def one() -> int:
        return 0

    def two(one: int = Depends(one)) -> int:
        return one

    @inject(provider)
    def handler(a: int = Depends(one), b: int = Depends(two)) -> tuple[int, int]:
        return a, b

    def resource() -> Iterator[int]:
        yield 3

    implementations: list[Callable[..., object]] = [lambda: 1, lambda: 2, resource]
    stop, mixed = threading.Event(), []

    def call() -> None:
        while not stop.is_set():
            a, b = handler()
            if a != b:
                mixed.append((a, b))

    threads = [threading.Thread(target=call) for _ in range(16)]
    for thread in threads:
        thread.start()
    choose = random.Random(0)  # noqa: S311 - to be the same in every run
    for _ in range(120):
        with provider.override(one, choose.choice(implementations)):
            handler()
    stop.set()
    for thread in threads:
        thread.join()
    assert mixed == []


def test_blocks_of_several_threads_leave_nothing_behind() -> None:
    """Sixteen threads enter and leave blocks of the same key at random: in the end the original is in force."""
    provider = Provider()
    handler = inject(provider)(lambda rate=Depends(rate): rate)
    wrong = []

    def work(number: int) -> None:
        for _ in range(50):
            with provider.override(rate, lambda: number):
                if handler() == 0.1:
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 17)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert handler() == 0.1
    assert provider.dependency_overrides == {}
