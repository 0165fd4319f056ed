"""A program that trains with everything that has a state, and goes on when it is started again.

    python tests/scenarios/program.py FOLDER [EVENTS]

After so many events it says so, and goes on when its standard input ends, so that whoever has started it can do
something to it in the middle of its training, however fast or slow both are.

It is what a user would write: build, restore, fit. What it tells and comes to is written down, so that one that was
killed and started again can be compared with one that was left alone.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from tests.training.resuming import Net, Points
from torchsystem.adapters.checkpoints import Checkpoints
from torchsystem.registry import fingerprint
from torchsystem.services import Consumer
from torchsystem.storage import Repository
from torchsystem.training import EarlyStopping, Training, accuracy, device, metrics, seed
from torchsystem.training.events import Lifecycle, ProcessStarted
from torchsystem.triggers import every

EPOCHS = 4


class Writer(Consumer):
    """Write every event down, by the place that it has in the run; told again after a kill, it has to be the same."""

    def __init__(self, file: Path, waits_at: int | None) -> None:
        super().__init__("writer")
        self.file = file
        self.count = 0
        self.waits_at = waits_at
        self.handler(self.write)

    def write(self, event: Lifecycle) -> None:
        if isinstance(event, ProcessStarted):
            return
        progress = event.progress
        self.count += 1
        facts = [progress.epoch, progress.batch, progress.batch_in_epoch, progress.step, progress.samples]
        line = [self.count, type(event).__name__, *facts, getattr(event, "metrics", None)]
        with self.file.open("a") as lines:
            lines.write(json.dumps(line) + "\n")
        if self.count == self.waits_at:
            print("training", flush=True)
            sys.stdin.read()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "count": self.count}

    def load_state_dict(self, state: Any) -> None:
        self.count = state["count"]


def run(folder: Path, workers: int = 0, *, waits_at: int | None = None) -> None:
    """Train to the end, from wherever a killed process has left it."""
    folder.mkdir(parents=True, exist_ok=True)
    seed(1)
    loaders = {
        "train": DataLoader(Points(noisy=True), batch_size=4, shuffle=True, num_workers=workers),
        "validation": DataLoader(Points(10, noisy=True), batch_size=4, num_workers=workers),
    }
    training = Training()
    training.override(device, lambda: "cpu")
    training.override(metrics, lambda: {"accuracy": accuracy})
    with Repository(folder) as repository:
        best = ("validation/accuracy", "max")
        training.producer.register(
            Writer(folder / "events.jsonl", waits_at),
            EarlyStopping("validation/loss", "min", patience=3),
            Checkpoints(repository, every=every(2, "batches"), keep_last=3, keep_best=best),
        )
        model = repository.restore(Net())
        history = training.handle("fit", model, loaders, epochs=EPOCHS)
    (folder / "outcome.json").write_text(json.dumps([identity(model), history]))


def identity(model: Net) -> str:
    """Return a hash over the whole state, but for the seconds that it took."""
    snapshot = model.snapshot()
    snapshot["parts"]["progress"]["elapsed"] = 0.0
    parts = {name: value for name, value in snapshot.items() if name != "version"}
    return hashlib.sha256(fingerprint(parts).encode()).hexdigest()


def told(folder: Path) -> list[Any]:
    """Return the events of a run, once each.

    Raises:
        AssertionError: One that was told again, because the process was killed after it, was another.
    """
    events: dict[int, Any] = {}
    for text in (folder / "events.jsonl").read_text().splitlines(keepends=True):
        if text.endswith("\n"):  # else the process was killed while it wrote
            number, *event = json.loads(text)
            assert events.setdefault(number, event) == event, (number, event, events[number])
    return [events[number] for number in sorted(events)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), waits_at=int(sys.argv[2]) if len(sys.argv) > 2 else None)
