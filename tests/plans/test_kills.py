"""SIGKILL at random instants: a plan gets through, and does nothing twice that was finished."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("killing.py")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_plan_of_thirty_steps_survives_two_hundred_kills(tmp_path: Path) -> None:
    """Each step's result is once in the journal; what was finished is not done again; references are respected."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, str(PROGRAM), str(tmp_path), "200", os.environ.get("SEED", "0")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[2])},
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 100  # the others hit whatever a run was doing just then
