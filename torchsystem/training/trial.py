"""A trial: what is done to a copy of an aggregate, and leaves the aggregate and all random numbers as they were."""

from __future__ import annotations

import gc
from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch.nn import Module
from torch.optim import Optimizer

from torchsystem.domain import Aggregate, Events
from torchsystem.training.held import generators_in
from torchsystem.training.optimization import Optimization
from torchsystem.training.randomness import capture, put_back, untouched

R = TypeVar("R")


def trial(aggregate: Aggregate, act: Callable[[Any], R], *sources: object) -> R:
    """Do something to a copy that learns, whose events nobody hears; afterwards nothing has happened.

    It is a deep copy rather than a snapshot that is put back: so the aggregate is not touched at all, neither what of
    it is in no snapshot, nor where the trial is killed. That takes the memory of a second aggregate meanwhile.

    Args:
        aggregate: What to copy.
        act: What to do to the copy.
        sources: Loaders and the like, whose own generators of random numbers are put back as well.

    Returns:
        What it has led to.
    """
    held = [generators_in(source) for source in sources]
    before = [capture(generators) for generators in held]
    try:
        with untouched():
            return act(_copy(aggregate))
    finally:
        for generators, states in zip(held, before, strict=True):
            put_back(states, generators)
        gc.collect()  # hooks and those whose hooks they are hold one another, and with them the memory of the copy
        torch.cuda.empty_cache()  # does nothing where there is no such device


def optimizations_of(aggregate: Aggregate) -> list[Optimization]:
    """List the optimizations of an aggregate."""
    return [value for value in vars(aggregate).values() if isinstance(value, Optimization)]


def optimizers_of(aggregate: Aggregate) -> dict[str, Optimizer]:
    """Name the optimizers of an aggregate, in its optimizations or attributes of its own."""
    found: dict[str, Optimizer] = {}
    for attribute, value in vars(aggregate).items():
        if isinstance(value, Optimizer):
            found[attribute] = value
        elif isinstance(value, Optimization):
            own = value.optimizers
            found |= {name if name not in found else f"{attribute}.{name}": each for name, each in own.items()}
    return found


def _copy(aggregate: Aggregate) -> Aggregate:
    twin = deepcopy(aggregate)
    for module in twin.modules():
        if isinstance(module, Aggregate):
            module.events = Events()
    Module.train(twin)  # no change of phase that a hook should hear of
    return twin
