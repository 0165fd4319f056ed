"""What a training costs per batch, beside a hand-written loop that does the same work, in the same process.

    taskset -c 0 python benchmarks/loop.py

Both train the same small perceptron from the same weights on the same ready batches, so that nearly all time beyond the
loop is the framework's own. "bare" is training and nothing else; "everything on" has per-batch loss and accuracy,
TensorBoard, a checkpoint per epoch and early stopping, all by the listeners that come with the library. Its checkpoints
are verified, synced to disk and have the whole run; the hand-written ones are a plain `torch.save`. Runs take turns,
and the median of the ratios of neighbours counts. Weights must be the same bit by bit. Python calls per batch are
counted too: they know no noise.

`run_bare` and `run_real` are what independent benchmarks call.
"""

from __future__ import annotations

import cProfile
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.utils.tensorboard import SummaryWriter

from torchsystem import Aggregate
from torchsystem.adapters.checkpoints import Checkpoints
from torchsystem.adapters.progress import ProgressBar
from torchsystem.adapters.tensorboard import TensorBoard
from torchsystem.storage import Repository
from torchsystem.training import EarlyStopping, Optimization, Training, accuracy, device, metrics

LR, PATIENCE, PAIRS = 0.05, 1000, 24
TARGETS = {"bare": 1.02, "everything on": 1.00}
Batches = Iterable[tuple[Tensor, Tensor]]


class Classifier(Aggregate):
    """The aggregate of a quick start."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.nn = network
        self.criterion = nn.CrossEntropyLoss()
        self.optimization = Optimization(optim.SGD(network.parameters(), lr=LR))

    def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Learn from a batch."""
        output = self.nn(inputs)
        loss = self.criterion(output, targets)
        self.optimization.step(loss)
        return output, loss


def run_bare(model: nn.Module, batches: Batches, epochs: int) -> None:
    """Train and do nothing else."""
    training = Training()
    training.override(device, lambda: "cpu")
    training.handle("fit", Classifier(model), {"train": batches}, epochs=epochs)


def run_real(model: nn.Module, batches: Batches, epochs: int, folder: str, progress: bool) -> dict[str, float]:  # noqa: FBT001 - as others call it
    """Train with metrics, TensorBoard, checkpoints and early stopping."""
    training = Training()
    training.override(device, lambda: "cpu")
    training.override(metrics, lambda: {"accuracy": accuracy})
    with Repository(Path(folder) / "checkpoints") as repository, training.producer:
        training.producer.register(
            TensorBoard(folder),
            EarlyStopping("train/loss", "min", patience=PATIENCE),
            Checkpoints(repository, keep_last=None, exact=False),  # batches may come from whatever others measure with
            *([ProgressBar()] if progress else []),
        )
        history = training.handle("fit", Classifier(model), {"train": batches}, epochs=epochs)
    return {name: history[-1][f"train/{name}"] for name in ("loss", "accuracy")}


def hand_bare(model: nn.Module, batches: Batches, epochs: int) -> None:
    """Train by hand and do nothing else."""
    optimizer, criterion = optim.SGD(model.parameters(), lr=LR), nn.CrossEntropyLoss()
    model.train()
    for _ in range(epochs):
        for inputs, targets in batches:
            optimizer.zero_grad()
            loss = criterion(model(inputs), targets)
            loss.backward()
            optimizer.step()


def hand_real(model: nn.Module, batches: Batches, epochs: int, folder: str) -> None:
    """Train by hand with metrics, TensorBoard, checkpoints and early stopping."""
    optimizer, criterion = optim.SGD(model.parameters(), lr=LR), nn.CrossEntropyLoss()
    writer, best, left = SummaryWriter(folder), float("inf"), PATIENCE
    model.train()
    for epoch in range(epochs):
        total, hits, seen = torch.zeros(()), torch.zeros((), dtype=torch.long), 0
        for inputs, targets in batches:
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, targets)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(targets)
            hits += (outputs.detach().argmax(1) == targets).sum()
            seen += len(targets)
        loss_, accuracy_ = total.item() / seen, hits.item() / seen
        writer.add_scalar("loss", loss_, epoch)
        writer.add_scalar("accuracy", accuracy_, epoch)
        state = {"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, Path(folder) / f"{epoch}.pt")
        best, left = (loss_, PATIENCE) if loss_ < best else (best, left - 1)
        if left < 0:
            break
    writer.close()


def make_model() -> nn.Module:
    """Make the perceptron, always with the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def make_batches(count: int) -> list[tuple[Tensor, Tensor]]:
    """Make batches of 64 samples, ready in memory."""
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(64, 64, generator=generator), torch.randint(10, (64,), generator=generator)) for _ in range(count)
    ]


def seconds_of(run: Callable[..., object], *arguments: object) -> tuple[float, nn.Module]:
    """Return the CPU seconds of one run, and the model it trained."""
    model = make_model()
    with tempfile.TemporaryDirectory() as folder:
        arguments = tuple(folder if argument == "folder" else argument for argument in arguments)
        start = time.process_time()
        run(model, *arguments)
        return time.process_time() - start, model


def calls_of(run: Callable[..., object], *rest: Any) -> float:
    """Count the Python calls of one more batch."""
    counts: list[int] = []
    for number in (100, 300):
        profile = cProfile.Profile()
        with tempfile.TemporaryDirectory() as folder:
            arguments = tuple(folder if argument == "folder" else argument for argument in rest)
            model, batches = make_model(), make_batches(number)
            profile.enable()
            run(model, batches, 1, *arguments)
            profile.disable()
        counts.append(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]
    return (counts[1] - counts[0]) / 200


def compare(name: str, ours: Callable[..., object], hand: Callable[..., object], *rest: Any) -> bool:
    """Print what one setting costs; tell whether it keeps its target and the weights."""
    batches = make_batches(600)
    hand_rest = rest[:1]
    ratios: list[float] = []
    identical = True
    for _ in range(PAIRS):
        before, model = seconds_of(hand, batches, 2, *hand_rest)
        mine, other = seconds_of(ours, batches, 2, *rest)
        after, _ = seconds_of(hand, batches, 2, *hand_rest)
        ratios.append(mine / ((before + after) / 2))
        pairs = zip(model.parameters(), other.parameters(), strict=True)
        identical = identical and all(torch.equal(one, two) for one, two in pairs)
    ratio, target = statistics.median(ratios), TARGETS[name]
    calls, by_hand = calls_of(ours, *rest), calls_of(hand, *hand_rest)
    print(
        f"  {name:16} {ratio:6.3f}x of hand-written  (≤ {target:.2f} {'✓' if ratio <= target else '✗'})   "
        f"calls per batch {calls:.0f}, by hand {by_hand:.0f}   weights {'identical' if identical else 'DIFFER'}"
    )
    return ratio <= target and identical


def main() -> int:
    """Print the table, and return the exit status."""
    torch.set_num_threads(1)
    print("\nTraining, per batch of 64 samples\n")
    kept = compare("bare", run_bare, hand_bare)
    kept = compare("everything on", run_real, hand_real, "folder", False) and kept  # noqa: FBT003 - no progress bar
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
