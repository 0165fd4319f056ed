"""Nothing of ours reads a value of the device on the step path: the device is never waited for but once per report."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.utils._python_dispatch import TorchDispatchMode

from torchsystem import Aggregate
from torchsystem.services import Consumer, Timers
from torchsystem.training import EarlyStopping, Optimization, Training, accuracy, device, metrics
from torchsystem.training.events import Lifecycle

# What makes the host wait for the device, as torch dispatches it, and as methods of a tensor.
READS = {"aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal", "aten::nonzero"}


class Reads(TorchDispatchMode):
    """Count the numbers that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name  # noqa: SLF001 - as torch's own modes do
        if name in READS:
            self.counts[name] += 1
        return func(*args, **({} if kwargs is None else kwargs))


class Model(Aggregate):
    """A network with all that an optimization can have on the step path."""

    def __init__(self, precision: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.nn = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.1), nn.Linear(8, 2))
        self.criterion = nn.CrossEntropyLoss()
        # Adam keeps its steps on the CPU and reads them there; SGD reads nothing, so that what is counted is ours.
        optimizer = optim.SGD(self.nn.parameters(), lr=0.1, momentum=0.9)
        scheduler = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=1000)
        self.optimization = Optimization(
            optimizer, scheduler, accumulate=2, clip_norm=1.0, clip_value=1.0, per="step", warmup=3, precision=precision
        )

    def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Learn from a batch."""
        output = self.nn(inputs)
        loss = self.criterion(output, targets)
        self.optimization.step(loss)
        return output, loss

    def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Predict a batch."""
        output = self.nn(inputs)
        return output, self.criterion(output, targets)


@pytest.mark.parametrize("precision", [None, "bf16"])
def test_a_value_is_read_once_per_report_and_never_in_between(precision: str | None) -> None:
    """With metrics, every event heard, accumulation, clipping, schedules, warm-up, timers and early stopping.

    From the first batch to the last of each split, which is more than the metrics keep before they fold them, no
    number is read; each of the reports is one read, whatever it reports.
    """
    count = 150
    generator = torch.Generator().manual_seed(1)
    loader = [(torch.randn(4, 2, generator=generator), torch.arange(4) % 2) for _ in range(count)]
    training = Training(timers=Timers(1000))
    training.override(device, lambda: "cpu")
    training.override(metrics, lambda: {"accuracy": accuracy, "top": accuracy})
    reads, lists = Reads(), Lists()
    at: list[tuple[str, int, int]] = []
    consumer = Consumer("hearing")

    @consumer.handler
    def hear(event: Lifecycle) -> None:
        at.append((type(event).__name__, reads.counts.total(), lists.counts.total()))

    training.producer.register(consumer, EarlyStopping("validation/loss", "min", patience=5))
    with reads, lists:
        training.handle("fit", Model(precision), {"train": loader, "validation": loader}, epochs=2)
    assert len(at) > 2 * 3 * count
    assert {dispatched for _, dispatched, _ in at} == {0}
    reported = 0
    for name, _, read in at:
        reported += name in {"Trained", "Validated"}
        assert read == reported, name
    assert lists.counts == {"tolist": 4}


class Lists(torch.overrides.TorchFunctionMode):
    """Count the methods by which tensors are read: on the CPU, a list is made of one without being dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in {"tolist", "item", "__bool__", "__float__", "__int__", "numpy", "cpu"}:
            self.counts[func.__name__] += 1
        return func(*args, **({} if kwargs is None else kwargs))
