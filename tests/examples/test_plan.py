"""The plan of the digits example: five folds and a report, killed and continued."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "digits"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Copy what the program needs."""
    shutil.copytree(EXAMPLE / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(EXAMPLE / "plan.py", tmp_path / "plan.py")
    return tmp_path


def start(folder: Path) -> subprocess.Popen[str]:
    """Start the program."""
    return subprocess.Popen(
        [sys.executable, "plan.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def run(folder: Path) -> str:
    """Run it to its end, and return what it prints."""
    process = start(folder)
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0
    return output


def kill_in_the_third_fold(process: subprocess.Popen[str], folder: Path) -> str:
    """Read what a program prints, and kill it when the third fold has a checkpoint."""
    seen = ""
    assert process.stdout is not None
    for text in process.stdout:
        seen += text
        if text.startswith("train-fold/2"):
            break
    deadline = time.monotonic() + 200
    while not list(folder.glob("runs/folds/*train-fold-2*/*/*/manifest.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    return seen + process.communicate()[0]


def steps(output: str, what: str) -> list[str]:
    """List the steps that begin or end in what was printed."""
    return re.findall(rf"^(\S+) +{what}", output, re.MULTILINE)


def test_it_is_killed_and_goes_on_where_it_was(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same line again goes on, with the interrupted fold from its checkpoint, and comes to the same figures."""
    whole = tmp_path_factory.mktemp("whole") / "digits"
    shutil.copytree(folder, whole)
    expected = run(whole)
    assert steps(expected, "ends") == [*(f"train-fold/{fold}" for fold in range(5)), "report/0"]
    found = re.search(r"accuracy ([\d.]+)% ± ([\d.]+)%", expected)
    assert found is not None
    assert float(found[1]) >= 95

    first = kill_in_the_third_fold(start(folder), folder)
    done = steps(first, "ends")  # two, or more where the kill came late
    assert done[:2] == ["train-fold/0", "train-fold/1"]
    second = run(folder)
    assert steps(second, "begins") == steps(expected, "begins")[len(done) :]
    assert figures(first + second) == figures(expected)
    assert "6 done" in second


def figures(output: str) -> dict[str, str]:
    """Read what each step came to."""
    return dict(re.findall(r"^(\S+) +ends +(.*)$", output, re.MULTILINE))
