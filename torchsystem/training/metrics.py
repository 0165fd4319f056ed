"""Metrics: gathered batch by batch on the device, and read once per report.

To read a value from a device is to wait for all that was queued on it. So nothing is read on the way: losses and what
metrics give are kept as they come, folded into sums every few batches, and all sums are read in one go by `compute`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from torchsystem.errors import InvalidMetric, NonFiniteLoss

Metric: TypeAlias = Callable[[Tensor, Tensor], Tensor]

FOLD = 256  # batches: what is kept until then is small, and a few operations then do for all of it


def accuracy(predictions: Tensor, targets: Tensor) -> Tensor:
    """Tell of each sample whether it was predicted right.

    Args:
        predictions: Classes, of shape `(samples, ...)`, or scores of shape `(samples, classes, ...)`.
        targets: Classes, of shape `(samples, ...)`.

    Returns:
        A boolean for each target.

    Examples:
        >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        tensor([ True, False])
    """
    return (predictions.argmax(1) if predictions.ndim > targets.ndim else predictions) == targets


class Measures:
    """The metrics of one split on its way through the batches: means over samples, the loss always among them.

    Args:
        metrics: By name, functions of predictions and targets that give a value per sample (or per element). Their
            mean over all of them is reported.

    Raises:
        InvalidMetric: A name is taken by the loss, or has a `/`, which parts splits from metrics.

    Examples:
        >>> measures = Measures({"accuracy": accuracy})
        >>> measures.update(torch.tensor([1, 0]), torch.tensor([1, 1]), torch.tensor(0.5), 2)
        >>> measures.update(torch.tensor([1]), torch.tensor([1]), torch.tensor(2.0), 1)
        >>> measures.compute()
        {'loss': 1.0, 'accuracy': 0.6666666666666666}
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        for name in metrics:
            if name == "loss" or "/" in name:
                message = f"metric {name!r}: the name is the loss's, or has a '/'. Call it something else."
                raise InvalidMetric(message)
        self._metrics = tuple(metrics.values())
        self._names = ("loss", *metrics)
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self._losses: list[Tensor] = []
        self._weights: list[int] = []
        self._kept: tuple[list[Tensor], ...] = tuple([] for _ in self._metrics)
        self._keepers = [(metric, kept.append) for metric, kept in zip(self._metrics, self._kept, strict=True)]
        self._sums: Tensor | None = None  # of the loss and each metric, then of how many there were of each
        self._folded = 0
        self._bad: Tensor | None = None  # the number of the first batch whose loss was not finite, or -1

    def update(self, predictions: Tensor, targets: Tensor, loss: Tensor, samples: int) -> None:
        """Take in a batch. Nothing is read from the device.

        Args:
            predictions: What the aggregate predicted.
            targets: What was to be predicted; not looked at without metrics.
            loss: The mean loss of the batch, a scalar.
            samples: How many samples the batch had: the weight of its loss.
        """
        losses = self._losses
        losses.append(loss.detach())
        self._weights.append(samples)
        for metric, keep in self._keepers:
            keep(metric(predictions, targets))
        if len(losses) >= FOLD:
            self._fold()

    def compute(self) -> dict[str, float]:
        """Read the means of all since `reset`, and begin anew; empty if there were no batches.

        Raises:
            NonFiniteLoss: The loss of a batch was infinite or not a number; the first such batch is named.
        """
        self._fold()
        if self._sums is None or self._bad is None:
            return {}
        *values, bad = torch.cat([self._sums, self._bad.to(self._sums.dtype).reshape(1)]).tolist()
        self.reset()
        if bad >= 0:
            message = (
                f"the loss of batch {int(bad)} (counted from 0 since the last report) is not finite. Look at its data, "
                f"lower the learning rate, or clip the gradients."
            )
            raise NonFiniteLoss(message)
        count = len(self._names)
        sums, counts = values[:count], values[count:]
        return {name: total / number for name, total, number in zip(self._names, sums, counts, strict=True)}

    @torch.no_grad()
    def _fold(self) -> None:
        if not self._losses:
            return
        losses = torch.stack(self._losses)
        wide = torch.float32 if losses.device.type == "mps" else torch.float64  # Apple's have no doubles
        losses = losses.to(wide)
        weights = torch.tensor(self._weights, dtype=wide).to(losses.device, non_blocking=True)
        gathered = [torch.cat([value.reshape(-1) for value in kept]) for kept in self._kept]
        sums = [losses @ weights, *(values.sum(dtype=wide) for values in gathered)]
        counts = torch.tensor([sum(self._weights), *(values.numel() for values in gathered)], dtype=wide)
        folded = torch.cat([torch.stack(sums), counts.to(losses.device, non_blocking=True)])
        self._note_first_bad(losses)
        self._sums = folded if self._sums is None else self._sums + folded
        self._folded += len(self._losses)
        self._losses.clear()
        self._weights.clear()
        for kept in self._kept:
            kept.clear()

    def _note_first_bad(self, losses: Tensor) -> None:
        wrong = ~losses.isfinite()
        first = torch.where(wrong.any(), wrong.int().argmax() + self._folded, -1)
        self._bad = first if self._bad is None else torch.where(self._bad >= 0, self._bad, first)
