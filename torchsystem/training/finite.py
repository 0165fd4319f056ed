"""Which of many tensors are broken: measured all at once, and read in one go."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchsystem.domain.plain import gathered


class Flags(NamedTuple):
    """Of some tensors on one device, which are broken; not read yet.

    Attributes:
        names: What they are called.
        values: For each, whether it is broken.
    """

    names: list[str]
    values: Tensor


def infinite(named: Iterable[tuple[str, Tensor]]) -> list[Flags]:
    """Flag the tensors of which an element is infinite or not a number. Nothing is read."""
    groups: dict[tuple[torch.device, torch.dtype], list[tuple[str, Tensor]]] = {}
    for name, tensor in named:
        if _can_be_broken(tensor):
            groups.setdefault((tensor.device, tensor.dtype), []).append((name, tensor.detach()))
    foreach: Any = torch
    flags: list[Flags] = []
    for group in groups.values():
        names, tensors = zip(*group, strict=True)
        # The largest element is infinite, or no number, if any element is.
        largest = [gathered(size) for size in foreach._foreach_norm(tensors, math.inf)]  # noqa: SLF001 - as torch does
        flags.append(Flags([*names], torch.stack(largest).isfinite().logical_not()))
    return flags


def undefined(named: Iterable[tuple[str, Tensor]]) -> list[Flags]:
    """Flag the tensors of which an element is not a number. Nothing is read."""
    there = [(name, tensor.detach()) for name, tensor in named if _can_be_broken(tensor)]
    return [Flags([name], gathered(tensor.isnan().any()).reshape(1)) for name, tensor in there]


def broken(flags: Iterable[Flags]) -> list[str]:
    """Read, once per device, which tensors are broken."""
    by_device: dict[torch.device, list[Flags]] = {}
    for flag in flags:
        by_device.setdefault(flag.values.device, []).append(flag)
    found: list[str] = []
    for there in by_device.values():
        names = [name for flag in there for name in flag.names]
        values = torch.cat([flag.values for flag in there]).tolist()
        found += [name for name, is_broken in zip(names, values, strict=True) if is_broken]
    return found


def _can_be_broken(tensor: Tensor) -> bool:
    return bool(tensor.numel()) and (tensor.is_floating_point() or tensor.is_complex())
