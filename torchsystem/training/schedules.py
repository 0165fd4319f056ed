"""How learning rates change: by a scheduler of torch, per epoch, per step or on a plateau, and by a warm-up."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from torchsystem.errors import InvalidOptimization, InvalidScheduler, MissingMetric

Per: TypeAlias = Literal["epoch", "step"]


class Schedule:
    """A scheduler, and when it moves on.

    Args:
        scheduler: The scheduler.
        optimizer: The optimizer that it shall belong to.
        per: Whether it counts epochs or real steps.
        metric: What a `ReduceLROnPlateau` watches.

    Raises:
        InvalidOptimization: It cannot move on like that.
        InvalidScheduler: It is no scheduler, or one of another optimizer.
    """

    def __init__(self, scheduler: LRScheduler, optimizer: Optimizer, per: Per, metric: str | None) -> None:
        name = type(scheduler).__qualname__
        if not isinstance(scheduler, LRScheduler):
            message = f"{scheduler!r} is no scheduler. Write one of torch.optim.lr_scheduler, made for its optimizer."
            raise InvalidScheduler(message)
        if scheduler.optimizer is not optimizer:
            message = f"the {name} was made for another optimizer than it is given with. Make it for that one."
            raise InvalidScheduler(message)
        if per not in {"epoch", "step"}:
            message = f"Optimization(per={per!r}): write 'epoch' or 'step'."
            raise InvalidOptimization(message)
        self.scheduler = scheduler
        self.per = per
        self._metric = metric if isinstance(scheduler, ReduceLROnPlateau) else None
        if isinstance(scheduler, ReduceLROnPlateau) and (per == "step" or metric is None):
            message = (
                f"a {name} moves per epoch, by a metric. Write Optimization(..., per='epoch', "
                f"metric='validation/loss'), the metric's name as the epoch reports it."
            )
            raise InvalidOptimization(message)

    @property
    def watches(self) -> bool:
        """Whether it watches a metric."""
        return self._metric is not None

    def stepped(self) -> None:
        """Move on after a real step, if that is what it counts."""
        if self.per == "step":
            self._move()

    def epoch_ended(self, metrics: Mapping[str, Any], waiting: Collection[str] = ()) -> None:
        """Move on after an epoch, if that is what it counts, and what it watches is due.

        Args:
            metrics: What the epoch reports.
            waiting: The splits that were not due in it.

        Raises:
            MissingMetric: What it watches is not among the metrics.
        """
        if self.per == "step":
            return
        if self._metric is None:
            self._move()
        elif self._metric in metrics:
            self._move(metrics[self._metric])
        elif self._metric.rpartition("/")[0] not in waiting:
            message = (
                f"{type(self.scheduler).__qualname__} watches {self._metric!r}, and the epoch reports "
                f"{', '.join(map(repr, metrics)) or 'nothing'}. Write Optimization(..., metric=...) with one of them."
            )
            raise MissingMetric(message)

    def _move(self, *metric: Any) -> None:
        optimizer = self.scheduler.optimizer
        if getattr(optimizer, "_opt_called", False) and hasattr(optimizer.step, "_wrapped_by_lr_sched"):
            self.scheduler.step(*metric)
            return
        with warnings.catch_warnings():
            # Schedulers warn if they miss the marks by which they see that their optimizer has stepped. Copies of
            # optimizers have lost theirs, and a scaler may have skipped all steps so far. Here steps come first anyway.
            missed = r"(Seems like `optimizer|Detected call of `lr_scheduler)\.step"
            warnings.filterwarnings("ignore", missed, UserWarning)
            self.scheduler.step(*metric)


@contextmanager
def lowered(optimizer: Optimizer, factor: float) -> Generator[None]:
    """Multiply learning rates for a moment. What schedulers compute from them knows nothing of it."""
    rates = [group["lr"] for group in optimizer.param_groups]
    rates = [rate.clone() if isinstance(rate, Tensor) else rate for rate in rates]
    for group in optimizer.param_groups:
        group["lr"] *= factor  # in place if it is a tensor, whom a compiled step has to know again
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            if isinstance(rate, Tensor):
                group["lr"].copy_(rate)
            else:
                group["lr"] = rate
