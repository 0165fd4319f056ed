"""Services that stand at the top of a module, as those do whose steps run in other processes."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path
from typing import Any

from torchsystem.plans import Plan
from torchsystem.services import Depends, Service


def place() -> str:
    """Say where it is done; to be bound."""
    return "nowhere"


service = Service("programs")
bound = Service("bound elsewhere")


@service.handler
def add(numbers: list[int], trace: str | None = None, seconds: float = 0.0, until: str | None = None) -> int:
    """Add numbers, slowly and not before there is some file, and leave a trace."""
    if trace is not None:
        with Path(trace).open("a") as file:
            file.write(f"{os.getpid()} {len(numbers)}\n")
    time.sleep(seconds)
    while until is not None and not Path(until).exists():
        time.sleep(0.01)
    return sum(numbers) + 1


@service.handler
def process() -> int:
    """Say who does it."""
    return os.getpid()


@service.handler
def die_once(flag: str) -> str:
    """End the process the first time."""
    if not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@service.handler
def die() -> None:
    """End the process each time."""
    os.kill(os.getpid(), signal.SIGKILL)


@service.handler
def fail_twice(folder: str) -> int:
    """Fail the first two times."""
    times = len(list(Path(folder).iterdir()))
    if times < 2:
        (Path(folder) / str(times)).touch()
        raise LookupError(f"time {times}")
    return times


class Odd(LookupError):
    """An exception that cannot be sent to another process."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@service.handler
def fail_oddly_once(flag: str) -> str:
    """Fail the first time, with an exception that cannot be sent."""
    if not Path(flag).exists():
        Path(flag).touch()
        raise Odd(1, 2)
    return "mended"


@service.handler
def fail(*, odd: bool) -> None:
    """Fail, with an exception that can be sent or with one that cannot."""
    if odd:
        raise Odd(1, 2)
    raise LookupError("as itself")


@bound.handler
def where(place: str = Depends(place)) -> str:
    """Say what was bound."""
    return place


def together() -> list[Service]:
    """Put a service together, in whatever process it is called."""
    made = Service("made")

    @made.handler
    def where(place: str = Depends(place)) -> str:
        return place

    made.override(place, lambda: "bound by the root")
    return [made]


def pyramid(height: int, trace: Path | None = None, seconds: float = 0.0, until: Path | None = None) -> Plan:
    """Plan layers of steps, each step on two of the layer below; the third layer comes to no end before some file."""
    plan = Plan("pyramid", [service])
    options: dict[str, Any] = {"seconds": seconds} | ({} if trace is None else {"trace": str(trace)})
    layer = [plan.add("add", numbers=[number], **options) for number in range(height)]
    while len(layer) > 1:
        waits = {} if until is None or len(layer) != height - 1 else {"until": str(until)}
        layer = [plan.add("add", numbers=list(pair), **options, **waits) for pair in itertools.pairwise(layer)]
    return plan


def top(height: int) -> int:
    """Return what the last of such steps returns."""
    layer = [number + 1 for number in range(height)]
    while len(layer) > 1:
        layer = [one + two + 1 for one, two in itertools.pairwise(layer)]
    return layer[0]
