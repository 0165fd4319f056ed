"""A training with checkpoints, a history and a mirror, to be killed at a batch, and started again by the same line."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from threading import Event
from typing import Any

from tests.training.fakes import Learner, loader
from torchsystem.adapters.checkpoints import Checkpoints
from torchsystem.adapters.experiment import Experiment
from torchsystem.adapters.history import History
from torchsystem.adapters.plots import Plots
from torchsystem.services import Consumer
from torchsystem.storage import Repository, Store
from torchsystem.training import Training, device
from torchsystem.training.events import BatchEnded
from torchsystem.triggers import every

MIRRORED = 8  # after how many batches nothing goes on before all that was kept is elsewhere


def main(storage: Path, *, die_after: int | None = None, mirror: Store | None = None) -> Learner:
    """Train; or only until a batch, and die there as one does whose power is cut."""
    with (
        Experiment("p", "e", "r", storage=storage, mirror=mirror) as experiment,
        Repository(experiment.folder / "checkpoints") as repository,
    ):
        killer = Consumer("killer")

        @killer.handler
        def look(event: BatchEnded) -> None:
            if event.progress.batch == MIRRORED and experiment.mirror is not None:
                repository.flush()
                experiment.mirror.tell("checkpoints")
                while any("checkpoints" in missing for missing in experiment.mirror.missing()):
                    Event().wait(0.01)
            if event.progress.batch == die_after:
                os.kill(os.getpid(), signal.SIGKILL)

        training = Training()
        training.override(device, lambda: "cpu")
        history = History()
        listeners = [history, Plots(history=history, when=None), Checkpoints(repository, every=every(5, "batches"))]
        experiment.register(training.producer, *listeners, killer)
        model = repository.restore(Learner())
        training.handle("fit", model, {"train": loader(4), "validation": loader(2)}, epochs=6)
    return model


if __name__ == "__main__":
    options: dict[str, Any] = json.loads(sys.argv[3])
    main(Path(sys.argv[1]), die_after=13, mirror=Store(sys.argv[2], options=options))
