"""A program: register every class of torch that trains something, and see that nothing else changes.

It runs in a process of its own, because a class stays registered for as long as its process lives.
"""

from __future__ import annotations

import copy
import inspect
import io
import json
import pickle
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn import Module
from torch.nn.modules.lazy import LazyModuleMixin
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler
from torch.utils import data

from torchsystem.registry import Registry, getarguments, gethash, getmetadata, register

# The options have slots, and no place for a record; a container is deprecated, and says so.
LEFT_OUT = {nn.LinearCrossEntropyOptions, nn.Container}
# Not made here: recurrent networks show no arguments and need some; torch cannot copy lazy buffers.
NOT_MADE = (nn.RNNBase, LazyModuleMixin)


def classes(*modules: ModuleType) -> Iterator[type]:
    """Find the public classes of modules."""
    for module in modules:
        for name, cls in vars(module).items():
            if isinstance(cls, type) and cls.__module__.startswith("torch.") and not name.startswith("_"):
                yield cls


def signature(cls: type) -> inspect.Signature | None:
    """Give the signature of a class, if it has one."""
    try:
        return inspect.signature(cls)
    except ValueError:
        return None


def survives(obj: Any) -> None:
    """See that an object keeps its identity through a copy and a pickle."""
    for copied in (copy.deepcopy(obj), pickle.loads(pickle.dumps(obj))):  # noqa: S301 - our own
        assert gethash(copied) == gethash(obj), obj
        assert getarguments(copied).keys() == getarguments(obj).keys()


def main() -> None:
    """Register all, make some, and compare."""
    every = register_all(registry := Registry[Any]())
    made = use_modules(registry, every)
    use_optimizers(every)
    use_data()
    use_parameters()
    counts = [sum(issubclass(cls, kind) for cls in every) for kind in (object, Module, Optimizer, LRScheduler)]
    print(*counts, made)  # noqa: T201 - what the test reads


def register_all(registry: Registry[Any]) -> list[type]:
    """Register every class, and see that it looks as before."""
    # Parameters and buffers are values rather than things that are constructed, and made in great numbers.
    every = [
        cls
        for cls in dict.fromkeys(classes(nn, optim, lr_scheduler, data))
        if cls not in LEFT_OUT and not issubclass(cls, Tensor)
    ]
    before = {cls: (signature(cls), cls.__doc__, cls.__init__.__doc__) for cls in every}
    for cls in every:
        excluded = [0] if issubclass(cls, Optimizer) else None
        assert registry.register(cls, excluded_args=excluded) is cls
        assert registry.get(cls.__name__) is cls
        registry.signature(cls.__name__)
        assert (signature(cls), cls.__doc__, cls.__init__.__doc__) == before[cls], cls
    return every


def use_modules(registry: Registry[Any], every: list[type]) -> int:
    """Make the modules that need no arguments, and a nest of those that do."""
    made = 0
    for cls in every:
        if issubclass(cls, Module) and not issubclass(cls, NOT_MADE) and not required(cls):
            survives(cls())
            made += 1
    net = nn.Sequential(nn.Linear(4, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 2))
    survives(net)
    assert gethash(registry.build(json.loads(json.dumps(getmetadata(net))))) == gethash(net)
    return made


def use_optimizers(every: list[type]) -> None:
    """Make every optimizer, and a scheduler, whose state is all of its attributes."""
    for cls in every:
        if issubclass(cls, Optimizer) and cls is not Optimizer:
            optimizer = cls([nn.Parameter(torch.ones(2, 2))], lr=0.5)
            assert getarguments(optimizer) == {"lr": 0.5}
            assert optimizer.state_dict().keys() == {"state", "param_groups"}
            survives(optimizer)
    optimizer = optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    saved = io.BytesIO()
    torch.save(scheduler.state_dict(), saved)
    saved.seek(0)
    scheduler.load_state_dict(torch.load(saved, weights_only=True))
    described = {"name": "SGD", "arguments": {"lr": 0.1}}
    assert getmetadata(scheduler)["arguments"] == {"optimizer": described, "T_max": 10}


def use_data() -> None:
    """Write down what a run was trained on."""
    dataset = data.TensorDataset(torch.arange(6.0).view(3, 2), torch.arange(3))
    loader = data.DataLoader(
        dataset,
        batch_size=2,
        sampler=data.RandomSampler(dataset, generator=torch.Generator().manual_seed(7)),
        collate_fn=data.default_collate,
    )
    metadata = json.loads(json.dumps(getmetadata(loader)))
    assert list(metadata["arguments"]) == ["dataset", "batch_size", "sampler", "collate_fn"]
    assert metadata["arguments"]["sampler"]["arguments"]["generator"]["value"] == {"device": "cpu", "seed": 7}
    assert metadata["arguments"]["dataset"]["name"] == "TensorDataset"
    again = data.DataLoader(dataset, 2, sampler=loader.sampler, collate_fn=data.default_collate)
    assert gethash(again) == gethash(loader)
    assert len(list(data.DataLoader(dataset, batch_size=2, num_workers=1))) == 2
    assert gethash(data.Subset(dataset, range(2))) != gethash(data.Subset(dataset, range(1)))


def use_parameters() -> None:
    """Register what is rather a value: models, and files of tensors alone, go on as before."""
    register(nn.Parameter)
    linear = nn.Linear(2, 2)
    assert gethash(nn.Parameter(torch.ones(2))) == gethash(nn.Parameter(data=torch.ones(2), requires_grad=True))
    assert copy.deepcopy(linear).weight.equal(linear.weight)
    saved = io.BytesIO()
    torch.save({"weight": linear.weight}, saved)
    saved.seek(0)
    assert torch.load(saved, weights_only=True)["weight"].equal(linear.weight)


def required(cls: type) -> set[str]:
    """Name the parameters of a class that have to be given."""
    variable = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    parameters = inspect.signature(cls).parameters.values()
    return {each.name for each in parameters if each.default is each.empty and each.kind not in variable}


if __name__ == "__main__":
    main()
