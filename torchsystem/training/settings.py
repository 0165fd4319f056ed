"""What a training needs from whoever puts it together: a device, a precision, and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial, wraps
from typing import Any, NamedTuple

import torch

from torchsystem.depends import Depends
from torchsystem.domain import Aggregate
from torchsystem.training.batches import to_device
from torchsystem.training.metrics import Metric
from torchsystem.training.owned import optimizations_of
from torchsystem.training.precision import Precision, type_of


def device() -> str | torch.device:
    """Say where to train: on the GPU if there is one, of whatever make."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if accelerator is None else accelerator.type


def precision() -> torch.dtype | Precision | None:
    """Say in which type to compute what may be computed so (`torch.autocast`), such as `torch.bfloat16` or `"bf16"`.

    None is for the types as they are. It scales no losses: for `torch.float16` write `Optimization(precision="fp16")`,
    which does.
    """
    return None


def metrics() -> Mapping[str, Metric]:
    """Say what to measure beside the loss, by name."""
    return {}


class Settings(NamedTuple):
    """What the handlers of a training need."""

    device: torch.device
    precision: torch.dtype | None
    metrics: Mapping[str, Metric]

    def computing(self, function: Callable[..., Any], aggregate: Aggregate) -> Callable[..., Any]:
        """Return `function` of `aggregate` as it computes in the precision that is bound, or in that of its own.

        What listeners and metrics compute is left alone.
        """
        context = self._context(aggregate)
        if context is None:
            return function

        @wraps(function)
        def compute(*args: Any, **kwargs: Any) -> Any:
            with context():
                return function(*args, **kwargs)

        return compute

    def _context(self, aggregate: Aggregate) -> Callable[[], AbstractContextManager[Any]] | None:
        if self.precision is not None:
            return partial(torch.autocast, self.device.type, self.precision)
        own = (one for one in optimizations_of(aggregate) if one.precision is not None)
        return next((one.autocast for one in own), None)

    @property
    def bring(self) -> Callable[[Any], Any] | None:
        """What brings a batch to the device; None where batches are made on it."""
        return None if self.device.type == "cpu" else partial(to_device, device=self.device)


def settings(
    device: str | torch.device = Depends(device),
    precision: torch.dtype | Precision | None = Depends(precision),
    metrics: Mapping[str, Metric] = Depends(metrics),
) -> Settings:
    """Gather what the handlers need."""
    dtype = precision if isinstance(precision, torch.dtype) else type_of(precision)
    return Settings(torch.device(device), dtype, metrics)
