"""What an optimization is made of: for each optimizer its own scheduler and bounds, checked against one another."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TypeAlias

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchsystem.errors import InvalidOptimization, SharedParameter
from torchsystem.training.descent import Descent
from torchsystem.training.options import check_bound, check_whole, per_optimizer
from torchsystem.training.schedules import Per, Schedule

Bounds: TypeAlias = float | Mapping[str, float] | None


def assemble(  # noqa: PLR0913 - `Optimization` is what users write
    optimizer: Optimizer | Mapping[str, Optimizer],
    scheduler: LRScheduler | Mapping[str, LRScheduler] | None,
    *,
    accumulate: int,
    clip_norm: Bounds,
    clip_value: Bounds,
    per: Per | Mapping[str, Per],
    metric: str | None,
    warmup: int,
    sequential: bool,
) -> dict[str, Descent]:
    """Bring together, by name, the optimizers and what is said of each; see `Optimization`.

    Raises:
        TrainingError: Something has no meaning, or none together with the rest.
    """
    check_whole("accumulate", accumulate, 1)
    check_whole("warmup", warmup, 0)
    optimizers = _by_name(optimizer)
    norms = _bounds("clip_norm", clip_norm, optimizers)
    values = _bounds("clip_value", clip_value, optimizers)
    schedules = _schedules(scheduler, optimizers, per, metric)
    descents = {
        name: Descent(
            name,
            each,
            accumulate=accumulate,
            clip_norm=norms.get(name),
            clip_value=values.get(name),
            warmup=warmup,
            schedule=schedules.get(name),
        )
        for name, each in optimizers.items()
    }
    if accumulate > 1 or not sequential:
        _refuse_shared_parameters(descents.values())
    return descents


def _by_name(optimizer: Optimizer | Mapping[str, Optimizer]) -> dict[str, Optimizer]:
    named = dict(optimizer) if isinstance(optimizer, Mapping) else {"optimizer": optimizer}
    if not named or not all(isinstance(name, str) for name in named):
        message = f"Optimization({optimizer!r}): write an optimizer, or several by name: {{'generator': optimizer}}."
        raise InvalidOptimization(message)
    return named


def _bounds(option: str, value: Bounds, names: Collection[str]) -> dict[str, float]:
    if value is None:
        return {}
    bounds = per_optimizer(option, value, names)
    for bound in bounds.values():
        check_bound(option, bound)
    return bounds


def _schedules(
    scheduler: LRScheduler | Mapping[str, LRScheduler] | None,
    optimizers: Mapping[str, Optimizer],
    per: Per | Mapping[str, Per],
    metric: str | None,
) -> dict[str, Schedule]:
    if not isinstance(scheduler, Mapping | None) and len(optimizers) > 1:
        message = f"Optimization(scheduler={scheduler!r}): there are several optimizers. Write {{'name': scheduler}}."
        raise InvalidOptimization(message)
    schedulers = {} if scheduler is None else per_optimizer("scheduler", scheduler, optimizers.keys())
    pers: dict[str, Per] = per_optimizer("per", per, optimizers.keys())
    schedules = {
        name: Schedule(each, optimizers[name], pers.get(name, "epoch"), metric) for name, each in schedulers.items()
    }
    if metric is not None and not any(schedule.watches for schedule in schedules.values()):
        message = f"Optimization(metric={metric!r}): no scheduler watches a metric. Give a ReduceLROnPlateau with it."
        raise InvalidOptimization(message)
    if not schedules and per != "epoch":
        message = f"Optimization(per={per!r}): there is no scheduler to move. Give one with it."
        raise InvalidOptimization(message)
    return schedules


def _refuse_shared_parameters(descents: Iterable[Descent]) -> None:
    owners: dict[int, str] = {}
    for descent in descents:
        for parameter in descent.parameters():
            owner = owners.setdefault(id(parameter), descent.name)
            if owner != descent.name:
                message = (
                    f"the optimizers {owner!r} and {descent.name!r} move the same parameter, whose gradient would be "
                    f"that of both their losses. Give it to one of them; or write sequential=True, without "
                    f"accumulation, so that each steps before the loss of the next is back-propagated."
                )
                raise SharedParameter(message)
