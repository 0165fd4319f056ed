"""Kill a training at random instants, start it again by the same line, and compare it with one left alone.

    python tests/scenarios/killing.py FOLDER KILLS SEED [WORKERS]

Everything is imported once; each life is a child that was forked then, which takes milliseconds and not seconds. When a
run is finished before all kills are spent, the next one begins. It prints what it has done, and fails when a run that
was killed differs from the one left alone: in its state, its history, or any of its events.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

from tests.scenarios import program


def live(folder: Path, workers: int) -> int:
    """Begin a life of the program in a child; return its number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with (folder / "output.txt").open("a") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            program.run(folder, workers)
            status = 0
        except BaseException:  # noqa: BLE001 - the parent reads it
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    os.setpgid(child, child)  # so that its workers end with it
    return child


def finished(child: int, seconds: float) -> bool:
    """Wait until a life is over, or kill it.

    Raises:
        AssertionError: It ended by itself, and badly.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, status
            return True
        time.sleep(0.001)
    os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return status == 0


def result(folder: Path) -> tuple[str, list[object]]:
    """Return what a run came to, and what it told."""
    return (folder / "outcome.json").read_text(), program.told(folder)


def main(folder: Path, kills: int, seed: int, workers: int) -> None:
    """Spend all kills."""
    torch.set_num_threads(1)
    chance = random.Random(seed)  # noqa: S311 - instants, no secrets
    folder.mkdir(parents=True, exist_ok=True)
    program.run(folder / "warm")  # torch imports as much again when it first steps; children need not
    lengths = []
    for name in ("first", "whole"):
        (folder / name).mkdir()
        began = time.monotonic()
        assert finished(live(folder / name, workers), 600), "the run that is left alone did not end"
        lengths.append(time.monotonic() - began)
    length = min(lengths)
    whole = result(folder / "whole")
    assert whole == result(folder / "first"), "two runs that are left alone differ, so that nothing could be compared"
    spent, runs, hits = 0, 0, set[int]()
    while spent < kills:
        runs += 1
        killed = folder / f"killed-{runs}"
        killed.mkdir()
        while True:
            alive = length * chance.random() * 0.8 if spent < kills else 600
            if finished(live(killed, workers), alive):
                break
            spent += 1
            events = killed / "events.jsonl"
            hits.add(events.read_text().count("\n") if events.exists() else 0)
        outcome = result(killed)
        assert outcome == whole, f"{killed}: {outcome[0][:200]} is not {whole[0][:200]}"
    epochs = len(json.loads(whole[0])[1])
    print(f"{spent} kills in {runs} runs of {epochs} epochs, at {len(hits)} different places; all as if left alone")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int((*sys.argv, "0")[4]))
