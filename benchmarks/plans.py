"""What a step of a plan costs, beside a bare SQLite journal with the same two synchronous commits.

    python benchmarks/plans.py [FOLDER]

Handlers do nothing, so that what is left is the plan. Both write to the same disk, in turns, a few steps at a time; the
ratio is the median of all pairs, for a disk is never quite at rest.
Exits with 1 when a target is missed.
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from torchsystem.plans import Journal, Plan
from torchsystem.services import Service

PAIRS = 25
STEPS = 200
MANY = 10_000
TARGET = 1.5  # of the bare journal
RESUME = 1.0  # seconds

service = Service("nothing")


@service.handler
def nothing(number: int) -> int:
    """Do nothing."""
    return number


def plan(steps: int) -> Plan:
    """Plan so many steps."""
    made = Plan("benchmark", [service])
    for number in range(steps):
        made.add("nothing", number=number)
    return made


def ours(path: Path) -> float:
    """Return the seconds that a step takes, what a run costs by itself included."""
    made, journal = plan(STEPS), Journal(path)
    journal.records("benchmark")  # makes the file
    start = time.perf_counter()
    made.run(journal)
    return (time.perf_counter() - start) / STEPS


def bare(path: Path) -> float:
    """Return the seconds that a step takes by hand: a row is written when it starts, and again when it is finished."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE steps (key TEXT PRIMARY KEY, state TEXT, result TEXT)")
    start = time.perf_counter()
    for number in range(STEPS):
        connection.execute("INSERT INTO steps VALUES (?, 'started', NULL)", (str(number),))
        result = nothing(number)
        connection.execute("UPDATE steps SET state = 'finished', result = ? WHERE key = ?", (str(result), str(number)))
    seconds = (time.perf_counter() - start) / STEPS
    connection.close()
    return seconds


def steps(folder: Path) -> bool:
    """Print what a step costs; tell whether the target is kept."""
    pairs = [(bare(folder / f"bare {number}.db"), ours(folder / f"ours {number}.db")) for number in range(PAIRS)]
    by_hand, mine = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for other, one in pairs)
    kept = ratio <= TARGET
    print(f"  {'a step, bare':24} {by_hand * 1e6:8.0f} µs {1:6.2f}x")
    print(f"  {'a step, torchsystem':24} {mine * 1e6:8.0f} µs {ratio:6.2f}x   ≤ {TARGET:g} {'✓' if kept else '✗'}")
    return kept


def resume(folder: Path) -> bool:
    """Print how long it takes to find that everything is done; tell whether the target is kept."""
    path = folder / "many.db"
    plan(MANY).run(Journal(path))
    times: list[float] = []
    for _ in range(5):
        start = time.perf_counter()
        plan(MANY).run(Journal(path))
        times.append(time.perf_counter() - start)
    seconds = min(times)
    kept = seconds <= RESUME
    print(f"  {f'{MANY:,} steps, all done':24} {seconds:8.2f} s  {'':6}    ≤ {RESUME:g} s {'✓' if kept else '✗'}")
    return kept


def main(where: str | None = None) -> int:
    """Print the table, and return the exit status."""
    with TemporaryDirectory(dir=where) as folder:
        print("\nPlans\n")
        kept = steps(Path(folder))
        kept = resume(Path(folder)) and kept
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
