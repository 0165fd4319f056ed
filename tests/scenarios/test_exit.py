"""What a process says when its state is not finite: an error by name, and an exit status that is not 0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torchsystem.storage import Repository

PROGRAM = """
import sys, torch
from torch import nn, optim
from torchsystem.adapters.checkpoints import Checkpoints
from torchsystem.storage import Repository
from torchsystem.training import Supervised, Training, device
from torchsystem.triggers import every

network = nn.Linear(2, 2)
model = Supervised(network, nn.CrossEntropyLoss(), optim.SGD(network.parameters(), lr=float(sys.argv[2])))
training = Training()
training.override(device, lambda: "cpu")
repository = Repository(sys.argv[1])
training.producer.register(Checkpoints(repository, every=every(1, "batches")))
batch = (torch.full((2, 2), 1e30), torch.tensor([0, 1]))
training.handle("fit", repository.restore(model), {"train": [batch]}, epochs=1)
"""


@pytest.mark.parametrize(("rate", "error"), [("1e30", "NonFiniteState"), ("0.1", None)])
def test_a_state_that_is_not_finite_ends_the_process_badly(tmp_path: Path, rate: str, error: str | None) -> None:
    """Nothing is saved of it, though the loss was finite before the step; a finite one ends well, and is saved."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), rate]
    done = subprocess.run(  # noqa: S603 - its own program
        command, check=False, capture_output=True, text=True, timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert (done.returncode == 0) == (error is None), done.stderr
    assert error is None or f"torchsystem.errors.{error}: " in done.stderr
    with Repository(tmp_path) as repository:
        assert len(repository.checkpoints(id="supervised")) == (0 if error else 2)
