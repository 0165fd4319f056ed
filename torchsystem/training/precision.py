"""In which type the forward pass computes, and what gradients need because of it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from torchsystem.errors import InvalidOptimization

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"] | torch.dtype

TYPES: dict[Precision, torch.dtype | None] = {
    "fp32": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    torch.float32: None,
    torch.bfloat16: torch.bfloat16,
    torch.float16: torch.float16,
}


def type_of(precision: Precision | None) -> torch.dtype | None:
    """Return the type to compute in; None for the types as they are.

    Raises:
        InvalidOptimization: It is none that `torch.autocast` knows.
    """
    if precision is None:
        return None
    if precision not in TYPES:
        message = f"precision={precision!r}: write 'fp32', 'bf16' or 'fp16', or the dtype of one of them."
        raise InvalidOptimization(message)
    return TYPES[precision]


def scaler_for(dtype: torch.dtype | None, scaler: GradScaler | None, device: str) -> GradScaler | None:
    """Return what scales losses so that gradients do not vanish: what is given, or what the type needs.

    Raises:
        InvalidOptimization: One is given that the type has no use for.
    """
    if scaler is not None and dtype == torch.bfloat16:
        message = "Optimization(precision='bf16', scaler=...): bf16 has the range of fp32. Leave the scaler out."
        raise InvalidOptimization(message)
    if scaler is None and dtype == torch.float16:
        scaler = GradScaler(device)
    return scaler


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """Leave the autocast that the forward pass may be in, where torch does not want backward passes to be."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def step_scaled(scaler: GradScaler, optimizer: Optimizer) -> bool:
    """Step on scaled gradients, and tell whether a step was made or skipped, because some of them are not finite.

    The scaler does not tell, but optimizers do: a step that it skips is not made, and runs no hook; but fused ones are
    always called, and given what they need to skip it themselves.
    """
    made = False

    def note(optimizer: Optimizer, *_: Any) -> None:
        nonlocal made
        found = getattr(optimizer, "found_inf", None)
        made = found is None or not bool(found)

    hook = optimizer.register_step_post_hook(note)
    try:
        scaler.step(optimizer)
    finally:
        hook.remove()
    return made


def update_scale(scaler: GradScaler, pending: Iterable[Tensor]) -> None:
    """Let the scaler choose its next scale, and bring gradients that wait for a later step to it.

    Args:
        scaler: The scaler, after steps.
        pending: Gradients of other optimizers, under the scale as it was.
    """
    waiting = list(pending)
    if not waiting:
        scaler.update()
        return
    one = torch.ones((), device=waiting[0].device)
    before = scaler.scale(one)
    scaler.update()
    change = scaler.scale(one) / before  # a power of two, unless somebody chose other factors
    for gradient in waiting:
        gradient.mul_(change.to(gradient.device, non_blocking=True))
