"""What a progress bar costs a training, beside the same training without one, in the same process.

    taskset -c 0 python benchmarks/progress.py

The batches take about 100 µs each, without a single kernel of note, so that whatever is done beside them shows; the
terminal is one in memory. Runs take turns, and the median of the ratios of neighbours counts. On one core the thread
that draws takes its time from the loop, all of which is measured so.
"""

from __future__ import annotations

import io
import statistics
import sys
import time

import torch
from rich.console import Console
from torch import Tensor

from torchsystem import Aggregate
from torchsystem.adapters.progress import ProgressBar
from torchsystem.training import Training, device

BATCHES, PAIRS, TARGET = 20_000, 12, 1.01


class Busy(Aggregate):
    """An aggregate that is busy for about 100 µs per batch."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = torch.zeros(())

    def fit(self, inputs: Tensor, _targets: Tensor) -> tuple[Tensor, Tensor]:
        """Pass the time in Python, which holds the interpreter all the while."""
        total = 0
        for number in range(3_500):
            total += number
        return inputs, self.loss


def seconds_of(batches: list[tuple[Tensor, Tensor]], console: Console | None) -> float:
    """Return the CPU seconds of one epoch, all threads together; with a bar if there is a console."""
    training = Training()
    training.override(device, lambda: "cpu")
    if console is not None:
        training.producer.register(ProgressBar(console))
    start = time.process_time()
    training.handle("fit", Busy(), {"train": batches}, epochs=1)
    return time.process_time() - start


def main() -> int:
    """Print the ratio, and return the exit status."""
    torch.set_num_threads(1)
    batches = [(torch.zeros(1, 1), torch.zeros(1))] * BATCHES
    ratios: list[float] = []
    plain: list[float] = []
    for _ in range(PAIRS):
        console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=110)
        before, shown, after = (seconds_of(batches, each) for each in (None, console, None))
        ratios.append(2 * shown / (before + after))
        plain += [before, after]
    ratio, batch = statistics.median(ratios), statistics.median(plain) / BATCHES * 1e6
    print(
        f"\n  a progress bar  {ratio:6.3f}x of a training without  (≤ {TARGET:.2f} {'✓' if ratio <= TARGET else '✗'})"
        f"   {(ratio - 1) * batch:.2f} µs of a batch of {batch:.0f} µs"
    )
    return 0 if ratio <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
