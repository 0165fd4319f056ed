"""Mean loss and accuracy."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from src.domain import Results


class ClassificationMetrics:
    """Sum on the device, and read once."""

    def __init__(self) -> None:
        self.sums: list[Tensor] = []
        self.samples = 0

    def update(self, predictions: Tensor, targets: Tensor, loss: Tensor) -> None:
        count = len(targets)
        batch = [loss * count, (predictions == targets).sum()]
        self.sums = [total + value for total, value in zip(self.sums, batch, strict=True)] if self.sums else batch
        self.samples += count

    def compute(self) -> Results:
        loss, hits = (total.item() / self.samples for total in self.sums)
        self.sums, self.samples = [], 0
        return {"loss": loss, "accuracy": hits}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums, "samples": self.samples}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sums, self.samples = list(state["sums"]), state["samples"]
