"""Losses that are kept as they come, on the device, until it is time to read them all at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

LONGEST = 4096  # losses, each of which a device gives a block of memory


class Loss(NamedTuple):
    """The loss of a batch.

    Attributes:
        batch: How many batches were done with it.
        time: When it came, in seconds since 1970.
        value: The loss.
    """

    batch: int
    time: float
    value: float


class Losses:
    """Losses of batches, not read yet.

    Examples:
        >>> losses = Losses()
        >>> losses.keep(1, torch.tensor(0.5))
        >>> [(loss.batch, loss.value) for loss in losses.read()]
        [(1, 0.5)]
        >>> list(losses.read())
        []
    """

    def __init__(self) -> None:
        self._moments: list[tuple[int, float]] = []
        self._values: list[Any] = []
        self._folded: list[Tensor] = []

    def keep(self, batch: int, loss: Any) -> None:
        """Keep the loss of a batch. Many are made one tensor, which is not to wait for the device."""
        self._moments.append((batch, time.time()))
        self._values.append(loss)
        if len(self._values) >= LONGEST:
            self._fold()

    def read(self) -> Iterator[Loss]:
        """Yield those that were kept since the last time, read from the device in one go."""
        if self._values:
            self._fold()
        folded, self._folded = self._folded, []
        moments, self._moments = self._moments, []
        if folded:
            for (batch, moment), value in zip(moments, torch.cat(folded).tolist(), strict=True):
                yield Loss(batch, moment, value)

    def _fold(self) -> None:
        values, self._values = self._values, []
        self._folded.append(torch.stack([torch.as_tensor(loss).detach().reshape(()) for loss in values]))
