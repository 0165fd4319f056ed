"""What learns in an aggregate: its optimizations and optimizers, wherever in it they stand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.nn import Module
from torch.optim import Optimizer

from torchsystem.domain.parts import OF_TORCH
from torchsystem.training.held import MANY
from torchsystem.training.optimization import Optimization


def optimizations_of(aggregate: Module) -> list[Optimization]:
    """List the optimizations of an aggregate and of the modules in it, each once: attributes, or in a container.

    Examples:
        >>> from torch import nn, optim
        >>> from torchsystem import Aggregate
        >>> from torchsystem.training import Supervised
        >>> whole, network = Aggregate(), nn.Linear(2, 1)
        >>> whole.part = Supervised(network, nn.MSELoss(), optim.SGD(network.parameters(), lr=0.1))
        >>> [one.steps for one in optimizations_of(whole)]
        [0]
    """
    return [one for _, one in owned(aggregate, Optimization)]


def optimizers_of(aggregate: Module) -> dict[str, Optimizer]:
    """Name the optimizers of an aggregate and of the modules in it.

    In an `Optimization` they have its names for them, with the path to it before each that another one has; plain ones
    are called by their path. One that is held twice is one.
    """
    found: dict[str, Optimizer] = {}
    both: Iterator[tuple[str, Optimization | Optimizer]] = owned(aggregate, (Optimization, Optimizer))
    for path, one in both:
        own = one.optimizers if isinstance(one, Optimization) else {path: one}
        others = {name: each for name, each in own.items() if not any(each is known for known in found.values())}
        found |= {name if name not in found else f"{path}.{name}": each for name, each in others.items()}
    return found


def owned(aggregate: Module, kind: Any) -> Iterator[tuple[str, Any]]:
    """Yield what of an aggregate and of the modules in it is of some kind, each once, with the path to it."""
    seen: set[int] = set()
    for path, module in aggregate.named_modules():
        for name, value in vars(module).items():
            if name not in OF_TORCH:
                yield from _within(f"{path}.{name}" if path else name, value, kind, seen)


def _within(path: str, value: Any, kind: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, (kind, dict, list, tuple)) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, kind):
        yield path, value
    elif len(value) <= MANY:  # a longer one is full of data
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _within(f"{path}.{key}", item, kind, seen)
