"""What it costs to be able to go on in the middle of an epoch: iterating a loader through a run, and plainly.

    taskset -c 0 python benchmarks/cursor.py

A batch is fetched, and nothing is learned from it. Both take turns in one process, and the median of the ratios of
neighbours counts. The last line is the time that one event per batch with one handler adds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from torchsystem import Aggregate
from torchsystem.services import Consumer, Producer
from torchsystem.training import batches, epochs
from torchsystem.training.events import BatchEnded

SAMPLES, BATCH = 16_000, 64
SETTINGS = {"without workers": (0, 1.02, 20), "with two workers": (2, 1.10, 6)}


def loader(workers: int) -> DataLoader[tuple[Tensor, ...]]:
    """Make a shuffled loader of small samples."""
    data = TensorDataset(torch.randn(SAMPLES, 32), torch.zeros(SAMPLES).long())
    return DataLoader(data, BATCH, shuffle=True, num_workers=workers)


def plainly(given: DataLoader[tuple[Tensor, ...]]) -> None:
    """Iterate as one does."""
    for _ in given:
        pass


def through_a_run(given: DataLoader[tuple[Tensor, ...]], producer: Producer | None = None) -> None:
    """Iterate with safe points."""
    for epoch in epochs(Aggregate(), producer, epochs=1):
        for _ in batches(epoch, given):
            pass


def seconds_of(run: Callable[[DataLoader[tuple[Tensor, ...]]], None], given: DataLoader[tuple[Tensor, ...]]) -> float:
    """Return the seconds of one epoch."""
    start = time.perf_counter()
    run(given)
    return time.perf_counter() - start


def ratio_of(given: DataLoader[tuple[Tensor, ...]], pairs: int) -> float:
    """Return how many times as long an epoch takes through a run."""
    ratios: list[float] = []
    for _ in range(pairs):
        before, mine, after = (seconds_of(run, given) for run in (plainly, through_a_run, plainly))
        ratios.append(2 * mine / (before + after))
    return statistics.median(ratios)


def heard() -> Producer:
    """Make a producer with one handler of one event per batch."""
    producer, consumer = Producer(), Consumer()

    @consumer.handler
    def hear(event: BatchEnded) -> None:
        """Do nothing."""

    producer.register(consumer)
    return producer


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("\nIterating a loader through a run, per plain iteration\n")
    for name, (workers, target, pairs) in SETTINGS.items():
        ratio = ratio_of(loader(workers), pairs)
        print(f"  {name:18} {ratio:6.3f}x  (≤ {target:.2f} {'✓' if ratio <= target else '✗'})")
    batch = [(torch.zeros(1), torch.zeros(1))] * 20_000
    pairs_of: list[float] = []
    for _ in range(7):
        unheard, told = Producer(), heard()
        times = []
        for producer in (unheard, told):
            start = time.perf_counter()
            for epoch in epochs(Aggregate(), producer, epochs=1):
                for _ in batches(epoch, batch):
                    epoch.fitted = (None, None)
            times.append(time.perf_counter() - start)
        pairs_of.append((times[1] - times[0]) / len(batch) * 1e6)
    added = statistics.median(pairs_of)
    print(f"  one event per batch, one handler: {added:.1f} µs  (≤ 5 {'✓' if added <= 5 else '✗'})")  # noqa: PLR2004


if __name__ == "__main__":
    main()
