"""What type checkers know of dependencies: `Depends(f)` is what `f` gives, and injecting changes no signature."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Protocol, assert_type

from torchsystem import Depends, Provider, inject


class Writer: ...


class Clock(Protocol):
    def now(self) -> float: ...


def device() -> str: ...
def writer() -> Iterator[Writer]: ...
def generated() -> Generator[Writer]: ...
@contextmanager
def managed() -> Generator[Writer]:
    yield Writer()


def clock() -> Clock: ...
async def fetched() -> Writer: ...
async def streamed() -> AsyncIterator[Writer]:
    yield Writer()


async def generated_later() -> AsyncGenerator[Writer]:
    yield Writer()


@asynccontextmanager
async def managed_later() -> AsyncGenerator[Writer]:
    yield Writer()


# A plain callable gives what it returns, a class its instances.
assert_type(Depends(device), str)
assert_type(Depends(clock), Clock)
assert_type(Depends(Writer), Writer)
assert_type(Depends(lambda: 3), int)

# What opens and closes gives what is handed over in between.
assert_type(Depends(writer), Writer)
assert_type(Depends(generated), Writer)
assert_type(Depends(managed), Writer)

# So do the async kinds.
assert_type(Depends(fetched), Writer)
assert_type(Depends(streamed), Writer)
assert_type(Depends(generated_later), Writer)
assert_type(Depends(managed_later), Writer)

# Options change how often and how long, not what.
assert_type(Depends(device, cache=False), str)
assert_type(Depends(writer, scope="provider"), Writer)
Depends(device, scope="forever")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
Depends("cuda")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]

# A dependency of another type than its parameter is seen where it is written.
provider = Provider()


@inject(provider)
def wrong(device: int = Depends(device)) -> None: ...  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]


# An injected function is called with or without what would be injected, and with nothing else.
@inject(provider)
def train(model: str, device: str = Depends(device)) -> float: ...


@inject(provider)
def validate(model: str, device: Annotated[str, Depends(device)] = "cpu") -> float: ...


assert_type(train("mlp"), float)
assert_type(train("mlp", device="cuda"), float)
assert_type(validate("mlp"), float)
train()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
train("mlp", device=0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@inject(provider)
def batches(writer: Writer = Depends(writer)) -> Iterator[int]: ...


@inject(provider)
async def fetch(writer: Writer = Depends(fetched)) -> str: ...


assert_type(batches(), Iterator[int])


async def driver() -> None:
    assert_type(await fetch(), str)


# The places where things are bound.
provider.dependency_overrides[device] = lambda: "cuda"
provider.override(device, lambda: "cuda")
with provider.override(device, lambda: "cuda", scope="provider"), provider:
    pass
provider.close()

factory: Callable[[], str] = device
