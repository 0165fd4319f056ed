"""What injection takes of the machine: time at import, memory over many calls."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from itertools import repeat
from pathlib import Path

from torchsystem.depends import Depends, Provider, inject


def cpu_of(statement: str, cache: Path) -> float:
    """Return the CPU seconds that a fresh interpreter takes for `statement`.

    What one run compiles, others find in `cache`, as they would on a machine that keeps byte code.
    """
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True, env=environment)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_importing_it_is_quick(tmp_path: Path) -> None:
    """It takes no more than two and a half times what `inspect` alone takes beyond a bare interpreter: about 25 ms."""
    statements = ("pass", "import inspect", "import torchsystem.depends")
    # Each in turn, so that whatever else the machine does slows all of them; and of each the least of several runs.
    rounds = [[cpu_of(statement, tmp_path) for statement in statements] for _ in range(9)]
    bare, inspect, ours = map(min, zip(*rounds, strict=True))
    assert ours - bare <= 2.5 * (inspect - bare)


def test_importing_it_loads_nothing_heavy() -> None:
    """Neither torch nor asyncio, nor what only looking at foreign callables needs."""
    heavy = ["torch", "asyncio", "inspect", "dataclasses", "dis", "pathlib"]
    statement = f"import sys, torchsystem.depends; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True, text=True)  # noqa: S603
    assert done.stdout.strip() == "[]"


def test_calls_leave_memory_flat() -> None:
    """After calls, failures, overrides and registrations by the ten thousand, nothing more is allocated."""
    provider = Provider()

    def opened() -> Iterator[int]:
        yield 1

    def plain(opened: int = Depends(opened)) -> int:
        return opened

    def make() -> object:
        @inject(provider)
        def handler(fail: bool = False, plain: int = Depends(plain)) -> int:  # noqa: FBT001, FBT002
            if fail:
                raise ValueError
            return plain

        return handler

    def work(times: int) -> None:
        handler = make()
        for number in range(times):
            handler()  # type: ignore[operator]
            with suppress(ValueError):
                handler(fail=True)  # type: ignore[operator]
            if number % 10 == 0:
                with provider.override(plain, lambda: 2):
                    handler()  # type: ignore[operator]
                make()

    tracemalloc.start()
    try:
        work(5000)  # until every table has its size
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        work(5000)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000


def test_a_million_calls_leave_memory_flat() -> None:
    """A call leaves nothing behind, not a byte in a thousand calls."""
    growth = []

    def opened() -> Iterator[int]:
        yield 1

    @inject(Provider())
    def handler(opened: int = Depends(opened)) -> int:
        return opened

    handler()
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(4):
            before, _ = tracemalloc.get_traced_memory()
            for _ in repeat(None, 250_000):
                handler()
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
            growth.append(after - before)
    finally:
        tracemalloc.stop()
    assert min(growth) < 250  # what calls leave behind, each quarter does; other threads may allocate in one of them


def test_a_handler_that_is_dropped_is_forgotten() -> None:
    """A provider does not keep the handlers it injected."""
    import weakref  # noqa: PLC0415

    provider = Provider()

    def use() -> weakref.ref[object]:
        @inject(provider)
        def handler(value: int = Depends(lambda: 1)) -> int:
            return value

        handler()
        return weakref.ref(handler)

    dropped = use()
    gc.collect()
    assert dropped() is None
