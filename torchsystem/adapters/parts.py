"""What an aggregate is made of, told without its help: its optimizers, their learning rates, and what each part is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchsystem.domain import Aggregate
from torchsystem.errors import MissingOptimization, NoCanonicalForm, NotRegistered
from torchsystem.registry import getmetadata
from torchsystem.training import Optimization
from torchsystem.training.owned import owned

Description: TypeAlias = dict[str, Any]

_OF_OPTIMIZERS = {"foreach", "maximize", "capturable", "differentiable", "fused", "decoupled_weight_decay"}
_OF_SCHEDULERS = {"last_epoch", "verbose", "best", "num_bad_epochs", "cooldown_counter", "num_last_epochs"}
_LONGEST = 2000


def optimizations(aggregate: Aggregate) -> dict[str, Optimization]:
    """Find the optimizations of an aggregate and of the modules in it, by the path to each."""
    return dict(owned(aggregate, Optimization))


def optimizers(aggregate: Aggregate) -> dict[str, Optimizer]:
    """Find the optimizers of an aggregate and of the modules in it: in an optimization, alone, or in a container.

    Args:
        aggregate: The aggregate.

    Returns:
        The optimizers. In an optimization they have its names for them; if two would share one, and for plain ones,
        the path to it stands before it.

    Examples:
        >>> from torch import nn, optim
        >>> from torchsystem.training import Supervised
        >>> network = nn.Linear(2, 1)
        >>> model = Supervised(network, nn.MSELoss(), optim.SGD(network.parameters(), lr=0.1))
        >>> list(optimizers(model))
        ['optimizer']
    """
    return {name: optimizer for name, optimizer, _ in _optimizers(aggregate)}


def learning_rates(aggregate: Aggregate) -> dict[str, list[float | Tensor]]:
    """Tell what the next step learns with: the rates of the groups of each optimizer, warm-up included.

    Args:
        aggregate: The aggregate.

    Returns:
        The rates, by the names that `optimizers` gives.

    Examples:
        >>> from torch import nn, optim
        >>> from torchsystem.training import Supervised
        >>> network = nn.Linear(2, 1)
        >>> model = Supervised(network, nn.MSELoss(), optim.SGD(network.parameters(), lr=0.1))
        >>> learning_rates(model)
        {'optimizer': [0.1]}
    """
    return {name: rates for name, _, rates in _optimizers(aggregate)}


def describe(aggregate: Aggregate) -> dict[str, Description]:
    """Say what an aggregate and its parts are, ready for JSON.

    What is registered is told by its metadata: name, hash and arguments. Of optimizers and schedulers the settings
    are known anyway; of another module the class and what it prints.

    Args:
        aggregate: The aggregate.

    Returns:
        The descriptions: of the `"aggregate"` itself, and of its parts by name.
    """
    described = {"aggregate": _registered(aggregate) or {"name": type(aggregate).__qualname__}}
    for name, module in aggregate.named_children():
        described[name] = _registered(module) or _of_module(module)
    for name, optimizer in optimizers(aggregate).items():
        described[name] = _registered(optimizer) or _of_optimizer(optimizer)
    for name, value in _attributes(aggregate):
        if isinstance(value, Optimization):
            for key, scheduler in value.schedulers.items():
                described[f"{name}.scheduler" if key == "optimizer" else f"{name}.scheduler.{key}"] = _of_scheduler(
                    scheduler
                )
        elif isinstance(value, LRScheduler):
            described[name] = _registered(value) or _of_scheduler(value)
        elif not isinstance(value, Optimizer) and (metadata := _registered(value)) is not None:
            described[name] = metadata
    return described


def demand_optimization(name: object, aggregate: Aggregate) -> None:
    """Refuse an aggregate of whose gradients nothing tells.

    Raises:
        MissingOptimization: It has no `Optimization`.
    """
    if not optimizations(aggregate):
        message = (
            f"{name}: {type(aggregate).__qualname__} has no Optimization, and so nobody tells of its gradients. Write "
            f"`self.optimization = Optimization(optimizer)`, and `self.optimization.step(loss)` in `fit`."
        )
        raise MissingOptimization(message)


def flat(description: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Write nested settings as one level, with names such as `"optimizer.lr"`.

    Args:
        description: Settings, or what `describe` gives.
        prefix: What stands before each name.

    Examples:
        >>> flat({"optimizer": {"name": "SGD", "arguments": {"lr": 0.1, "betas": [1, 2]}}})
        {'optimizer': 'SGD', 'optimizer.lr': 0.1, 'optimizer.betas': '[1, 2]'}
    """
    found: dict[str, bool | int | float | str] = {}
    for key, value in description.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value.keys() >= {"name", "arguments"}:
            found[name] = str(value["name"])
            found |= flat(value["arguments"], f"{name}.")
        elif isinstance(value, Mapping) and isinstance(value.get("name"), str):
            found[name] = value["name"]
        elif isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        else:
            known = scalar(value)
            found[name] = known if isinstance(known, bool | int | float | str) else str(known)
    return found


def scalar(value: Any) -> Any:
    """Return a scalar of numpy or torch as the number that it is, what is plain as it is, and anything else as text.

    Examples:
        >>> import torch
        >>> scalar(torch.tensor(3)), scalar(0.1), scalar(None)
        (3, 0.1, 'None')
    """
    if isinstance(value, bool | int | float | str):
        return value
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else str(value)


def _attributes(aggregate: Aggregate) -> Iterator[tuple[str, Any]]:
    """Yield the attributes that are no modules, and what stands in a list or a dictionary that is one."""
    for name, value in vars(aggregate).items():
        if name.startswith("_"):
            continue
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", item) for key, item in value.items())
        elif isinstance(value, list | tuple):
            yield from ((f"{name}.{index}", item) for index, item in enumerate(value))
        else:
            yield name, value


def _optimizers(aggregate: Aggregate) -> Iterator[tuple[str, Optimizer, list[float | Tensor]]]:
    taken: set[str] = set()
    of_optimizations = {id(each) for one in optimizations(aggregate).values() for each in one.optimizers.values()}
    for attribute, value in owned(aggregate, (Optimization, Optimizer)):
        if isinstance(value, Optimization):
            rates = value.learning_rates
            for key, optimizer in value.optimizers.items():
                name = f"{attribute}.{key}" if key in taken else key
                taken.add(name)
                yield name, optimizer, rates[key]
        elif id(value) not in of_optimizations:  # which knows more of its rate
            name = f"{attribute}.{type(value).__name__}" if attribute in taken else attribute
            taken.add(name)
            yield name, value, [group["lr"] for group in value.param_groups if "lr" in group]


def _registered(value: object) -> Description | None:
    try:
        return {**getmetadata(value)}
    except (NotRegistered, NoCanonicalForm):
        return None


def _of_module(module: Module) -> Description:
    shown = repr(module)
    return {"name": type(module).__qualname__, "shown": shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]} …"}


def _of_optimizer(optimizer: Optimizer) -> Description:
    """Tell the settings of the first group; the learning rate is the one it began with, whatever a scheduler does."""
    group = optimizer.param_groups[0]
    settings = {name: value for name, value in group.items() if name in optimizer.defaults}
    settings |= {"lr": group["initial_lr"]} if "initial_lr" in group else {}
    return {"name": type(optimizer).__qualname__, "arguments": _plain(settings, _OF_OPTIMIZERS)}


def _of_scheduler(scheduler: LRScheduler) -> Description:
    state = {name: value for name, value in vars(scheduler).items() if not name.startswith("_")}
    return {"name": type(scheduler).__qualname__, "arguments": _plain(state, {*_OF_SCHEDULERS, "optimizer"})}


def _plain(settings: Mapping[str, Any], left_out: set[str]) -> Description:
    plain: Description = {}
    for name, value in settings.items():
        known = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
        if isinstance(known, list | tuple) and all(isinstance(item, bool | int | float | str) for item in known):
            known = list(known)
        elif not isinstance(known, bool | int | float | str):
            continue
        if name not in left_out:
            plain[name] = known
    return plain
