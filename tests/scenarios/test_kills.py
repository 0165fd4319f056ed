"""Killed at any instant, a training that is started again by the same line is the one that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.scenarios import program

HOUSE = Path(__file__).parents[2]
HERE = Path(__file__).parent
MEMORY = Path("/dev/shm")  # noqa: S108 - a killed process loses nothing there, and it does not wait for a disk


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a fast folder of its own."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None, prefix="torchsystem-") as name:
        yield Path(name)


def command(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a script of this folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HOUSE)}
    words = [sys.executable, str(HERE / script), *map(str, arguments)]
    return subprocess.Popen(  # noqa: S603 - its own scripts
        words,
        env=environment,
        cwd=HOUSE,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.mark.parametrize(("kills", "workers"), [(100, 0), (6, 2)], ids=["alone", "with workers"])
def test_a_killed_training_ends_as_one_left_alone(folder: Path, kills: int, workers: int) -> None:
    """State, history and events are the same, bit by bit, after SIGKILL at random instants; `make prove` has 1,000."""
    process = command("killing.py", folder / "runs", kills, 7, workers)
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    assert f"{kills} kills" in output


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_cold_start_goes_on(folder: Path, number: signal.Signals) -> None:
    """A process of its own, signalled when it has begun to train, and started again; what can be handled is.

    SIGTERM and SIGINT end it with 128 and their number.
    """
    program.run(folder / "whole")
    cut = folder / "cut"
    process = command("program.py", cut, 30)
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    process.send_signal(number)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), output
    assert not (cut / "outcome.json").exists()
    again = command("program.py", cut)
    output, _ = again.communicate(timeout=200)
    assert again.returncode == 0, output
    assert (cut / "outcome.json").read_text() == (folder / "whole/outcome.json").read_text()
    assert program.told(cut)[-1][0] == "TrainingEnded"
