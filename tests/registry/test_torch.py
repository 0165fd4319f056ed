"""The classes of torch: all of them can be registered, and stay what they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_every_class_of_torch_can_be_registered() -> None:
    """Some 200 modules, optimizers, schedulers, data sets and samplers keep signature, copies, pickles and states."""
    program = Path(__file__).with_name("torch_classes.py")
    done = subprocess.run(  # noqa: S603 - our own
        [sys.executable, program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    every, modules, optimizers, schedulers, made = map(int, done.stdout.split())
    assert every >= 200
    assert (modules >= 150, optimizers >= 14, schedulers >= 15, made >= 50) == (True, True, True, True)
