"""A trial: what is done to a copy of an aggregate, and leaves the aggregate and all random numbers as they were."""

from __future__ import annotations

import gc
from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch.nn import Module

from torchsystem.domain import Aggregate, Events
from torchsystem.training.held import generators_in
from torchsystem.training.randomness import capture, put_back, untouched
from torchsystem.training.run import check_aggregate

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

    Raises:
        NotAnAggregate: It is something else that is to be copied.
    """
    check_aggregate(aggregate)
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


def _copy(aggregate: Aggregate) -> Aggregate:
    twin = deepcopy(aggregate)
    for module in twin.modules():
        if isinstance(module, Aggregate):
            module.events = Events()
    Module.train(twin)  # no change of phase that a hook should hear of
    return twin
