"""A program that runs plans in children of its own, and kills each of them at a random instant.

    python tests/plans/killing.py FOLDER KILLS SEED

It imports everything once and forks, so that a life costs a few milliseconds. Lives are as long as it takes to get a
step done now and then, however busy the machine is; in every other life one step takes until the kill, so that it is
hit. When a plan is finished before all kills are spent, the next one begins. It prints how many kills hit a step that
was under way, and fails when a promise is broken:

- each step's result is once in the journal, and right;
- a step that was finished is never done again;
- a step begins when those that it refers to are finished.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from torchsystem.plans import Journal, Plan, step_key
from torchsystem.services import Depends, Service

STEPS = 30
LENGTH = 0.012  # seconds that a step takes

service = Service()
PARENT = os.getpid()
effects = Path()
endless: int | None = None  # the step that only a kill ends, in this life


@service.handler
def work(number: int, after: list[int], key: str = Depends(step_key)) -> int:
    """Do something that takes a while, and leaves a trace at its beginning and at its end."""
    trace("began", number)
    while number == endless and os.getppid() == PARENT:
        time.sleep(0.01)
    time.sleep(LENGTH * random.random())  # noqa: S311 - seeded by the plan
    trace("ended", number)
    assert key.endswith(f"/work/{number}")
    return number + sum(after)


def trace(what: str, number: int) -> None:
    """Write a line that survives the process."""
    with effects.open("a") as file:
        file.write(f"{os.getpid()} {what} {number}\n")


def needs(number: int) -> list[int]:
    """Say after which others a step comes."""
    return [one for one in (number - 1, number - 3, number // 2) if 0 <= one < number and number % 5]


def plan() -> Plan:
    """Plan the steps."""
    made = Plan("killed", [service])
    references = []
    for number in range(STEPS):
        references.append(made.add("work", number=number, after=[references[one] for one in needs(number)]))
    return made


def right() -> list[int]:
    """Return the results that there must be."""
    results: list[int] = []
    for number in range(STEPS):
        results.append(number + sum(results[one] for one in needs(number)))
    return results


def live(path: Path) -> None:
    """Run the plan in a child, to its end."""
    status = 1
    try:
        status = int(plan().run(Journal(path)) != right()[-1])
    finally:
        os._exit(status)


def finished(path: Path) -> set[int]:
    """Return which steps are finished."""
    with Journal(path) as journal:
        records = journal.records("killed")
    assert len(records) in {0, STEPS}, records
    done = {record.position: record.result for record in records if record.state == "finished"}
    assert all(done[number] == str(right()[number]) for number in done if number is not None), done
    return {number for number in done if number is not None}


def check(before: set[int], lines: list[str]) -> None:
    """Look at what one life has done."""
    done = set(before)
    for line in lines:
        _, what, number = line.split()
        if what == "began":
            assert int(number) not in before, f"{number} was finished"
            assert done.issuperset(needs(int(number))), f"{number} began too early"
        else:
            done.add(int(number))


def lives_still(child: int) -> bool:
    """Tell whether a child has not ended by itself."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def kill_at_random(folder: Path, kills: int, seed: int) -> int:
    """Begin, kill and continue plans; return how many kills hit a step that was under way."""
    global effects, endless  # noqa: PLW0603 - the children inherit them
    instants = random.Random(seed)  # noqa: S311 - not for secrets
    plans, lives, spent, hits = 0, 0, 0, 0
    longest = LENGTH
    path = folder / "0.db"
    while spent < kills or finished(path) != set(range(STEPS)):
        before = finished(path) if path.exists() else set[int]()
        if before == set(range(STEPS)):
            plans += 1
            path = folder / f"{plans}.db"
            continue
        effects = folder / f"life {lives}"
        effects.touch()
        lives += 1
        left = sorted(set(range(STEPS)) - before)
        endless = instants.choice(left[:3]) if lives % 2 and spent < kills else None
        child = os.fork() or live(path) or 0
        if spent < kills:
            while endless is not None and f" began {endless}\n" not in effects.read_text():
                assert lives_still(child)
                time.sleep(0.001)
            time.sleep(instants.uniform(0, LENGTH if endless is not None else longest))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        spent += os.WIFSIGNALED(status)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
        lines = effects.read_text().splitlines()
        check(before, lines)
        ended = sum(" ended " in line for line in lines)
        hits += len(lines) % 2
        if endless is None:
            longest *= 0.5**ended if ended else 1.12
    return hits


def main(folder: str, kills: str, seed: str) -> None:
    """Print how it went."""
    print(kill_at_random(Path(folder), int(kills), int(seed)))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
