"""Whether a state is finite: what is not, is no state to go on from, and is never saved."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from torchsystem.domain.plain import Plain
from torchsystem.errors import NonFiniteState

SHOWN = 5
ALWAYS_FINITE = {getattr(torch, "float4_e2m1fn_x2", None)}  # of this type every pattern of bits is a number
OPTIMIZER, SCHEDULE, SCALER = {"state", "param_groups"}, {"last_epoch", "_last_lr"}, {"scale", "growth_factor"}
GRADIENTS = "gradients"  # of a group that is not finished; where they overflow, the scaler will leave the step out
HALF = 2  # bytes of the types whose sums would overflow


def check(snapshot: Mapping[str, Plain], parameters: Collection[str]) -> None:
    """Refuse a snapshot in which the weights or an optimizer are not finite.

    Nothing may be NaN. Buffers may be infinite, as masks of attention are; parameters and what optimizers keep may not.
    What other parts remember in plain values may be what it likes: the best so far is infinite before there is one.

    Args:
        snapshot: The state of an aggregate.
        parameters: The names of what is trained in it.

    Raises:
        NonFiniteState: Something is not finite.
    """
    wrong = [*_wrong_in_modules(snapshot["modules"], parameters)]
    for name, part in snapshot["parts"].items():
        wrong += _wrong_in_part(part, name)
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        message = (
            f"{', '.join(wrong[:SHOWN])}{more}: a state that is not finite is not saved, because nothing could go on "
            f"from it. The checkpoints before it are as they were. Look for the batch, or the learning rate, that did "
            f"it; `torch.autograd.set_detect_anomaly(True)` names the operation."
        )
        raise NonFiniteState(message)


def _wrong_in_modules(modules: Mapping[str, Plain], parameters: Collection[str]) -> Iterator[str]:
    for name, value in modules.items():
        yield from _wrong(value, name, may_be_infinite=name not in parameters)


def _wrong_in_part(part: Plain, name: str) -> Iterator[str]:
    """Name what is not finite in an optimizer, and is not a number in a schedule, a scaler, or any tensor."""
    if isinstance(part, dict) and part.keys() >= OPTIMIZER:
        yield from _wrong(part["state"], f"{name}.state", may_be_infinite=False)
        yield from _wrong(part["param_groups"], f"{name}.param_groups", may_be_infinite=True)
    elif isinstance(part, Tensor) or (isinstance(part, dict) and (part.keys() >= SCHEDULE or part.keys() >= SCALER)):
        yield from _wrong(part, name, may_be_infinite=True)
    elif isinstance(part, dict | list):
        for key, inside in part.items() if isinstance(part, dict) else enumerate(part):
            if key != GRADIENTS:
                yield from _wrong_in_part(inside, f"{name}.{key}")


def _wrong(value: Any, name: str, *, may_be_infinite: bool) -> Iterator[str]:
    """Name what is not finite in a value."""
    if isinstance(value, Tensor):
        what = _fault(value, may_be_infinite=may_be_infinite)
        if what:
            yield f"{name} {what}"
    elif isinstance(value, float):
        if math.isnan(value) or (math.isinf(value) and not may_be_infinite):
            yield f"{name} is {value}"
    elif isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _wrong(part, f"{name}.{key}", may_be_infinite=may_be_infinite)


def _fault(tensor: Tensor, *, may_be_infinite: bool) -> str:
    """Say what is wrong with a tensor; its sum tells most that nothing is, in one pass and without memory."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.dtype in ALWAYS_FINITE or not tensor.numel():
        return ""
    values = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    if values.element_size() == 1:  # of these, torch only knows how to make others
        values = values.to(torch.float32)
    total = values.sum(dtype=values.dtype if values.element_size() > HALF else torch.float32)
    if torch.isfinite(total) or (may_be_infinite and not torch.isnan(total)):
        return ""
    nans, infinities = int(values.isnan().sum()), 0 if may_be_infinite else int(values.isinf().sum())
    counts = {"are not a number": nans, "are infinite": infinities}
    said = " and ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"has values that are not finite (of {values.numel()}, {said})" if said else ""
