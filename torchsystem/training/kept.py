"""Tensors that were kept batch by batch, until they are summed up."""

from __future__ import annotations

import torch
from torch import Tensor


def joined(kept: list[Tensor], weights: list[int]) -> Tensor:
    """Join values, one without dimensions as many times as its batch has samples.

    Args:
        kept: What came of each batch; the first may be what was joined by who began.
        weights: The samples of each batch.
    """
    batches = zip(together(kept), weights[-len(kept) :], strict=True)
    return torch.cat([value if value.ndim == 1 else _flat(value, weight) for value, weight in batches])


def _flat(value: Tensor, weight: int) -> Tensor:
    return value.reshape(-1) if value.ndim else value.expand(weight)


def together(values: list[Tensor]) -> list[Tensor]:
    """Bring what was kept by another process, and taken up from its state, to where the rest is."""
    device = values[-1].device
    return values if values[0].device == device else [value.to(device) for value in values]


def brought(value: Tensor | None, device: torch.device | None) -> Tensor | None:
    """Bring a tensor to a device, where there are both."""
    return value if value is None or device is None else value.to(device)
