"""Mean loss and accuracy."""

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
