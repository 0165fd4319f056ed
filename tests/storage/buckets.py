"""Buckets and folders to store things in, and processes that do so at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from torchsystem.storage.layout import Layout
from torchsystem.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PREDICTIONS = "{project}/{experiment}/{run}/predictions/{split}_{number}.json"


class Bucket(NamedTuple):
    """Where a bucket is, and what it takes to reach it."""

    url: str
    options: dict[str, Any]


def layout() -> Layout:
    """Return a layout of three kinds."""
    return Layout(
        predictions=PREDICTIONS,
        tokenizer="{project}/{run}/{kind}/{number:03d}.json",
        config="{project}/{experiment}/{run}/config.json",
    )


def open_store(root: str | Path, **options: Any) -> Store:
    """Open a store for a run."""
    values: dict[str, str | int] = {"project": "digits", "experiment": "baseline", "run": "first"}
    return Store(root, layout=layout(), values=values, **options)


def at_once(count: int, function: Callable[[int], T]) -> list[T]:
    """Call a function in several threads."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, range(count)))


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    """Run a program in a process of its own, which can import what tests can."""
    return subprocess.Popen(  # noqa: S603 - the program is ours
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
