"""Steps that most pipelines have, ready-made; each logs what it touched, as ``torchsystem.compiler``.

Examples:
    >>> from torch import nn
    >>> from torchsystem.compiler import Compiler
    >>> from torchsystem.compiler.steps import freeze, move_to
    >>> def device() -> str: ...
    >>> compiler = Compiler[nn.Module]()
    >>> build = compiler.step(lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)))
    >>> freezing = compiler.step(freeze("0.*"))
    >>> moving = compiler.step(move_to(device))
    >>> compiler.dependency_overrides[device] = lambda: "cpu"
    >>> [name for name, parameter in compiler.compile().named_parameters() if parameter.requires_grad]
    ['1.weight', '1.bias']
"""

# ruff: noqa: PLC0415 - torch is imported where it is used, so that importing the compiler stays quick

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeAlias

from torchsystem.compiler.optimizers import optimizers
from torchsystem.depends import Depends
from torchsystem.errors import OrphanedOptimizer, UnmatchedPattern

if TYPE_CHECKING:
    from torch import Tensor, device
    from torch.nn import Module
    from torch.optim import Optimizer

Step: TypeAlias = Callable[..., Any]
Weights: TypeAlias = "Mapping[str, Tensor] | str | os.PathLike[str]"

WRAPPED = re.compile(r"(?<![^.])_orig_mod\.")  # what torch.compile puts into names

logger = logging.getLogger("torchsystem.compiler")


def move_to(device: str | device | Callable[..., Any]) -> Step:
    """Make a step that moves a module, and what its optimizers have already gathered, to a device.

    Args:
        device: The device, or a dependency that gives it.

    Raises:
        OrphanedOptimizer: Raised by the step: the move has made new parameters, and an optimizer has the old ones.
    """
    given: Any = Depends(device) if callable(device) else device

    def move(module: Module, *others: Any, device: Any = given) -> Any:
        before = {tensor.device.type for tensor in _tensors(module)}
        module.to(device)
        for name, optimizer in optimizers(module):
            _follow(name, optimizer, module)
        logger.info("moved %s from %s to %s", _described(module), ", ".join(sorted(before)), device)
        return (module, *others) if others else module

    return _named("move_to", move)


def load_weights(source: Weights | Callable[..., Weights], *, into: str = "") -> Step:
    """Make a step that loads weights into a module; what is missing, unexpected or of another shape is an error.

    Args:
        source: A ``state_dict``, a file that ``torch.save`` has written it to, or a dependency that gives one of them.
            Only weights are read from a file, and no code is run.
        into: The path of the module inside to load them into, such as ``"nn.encoder"``; empty for all of it.
    """
    given: Any = Depends(source) if callable(source) else source

    def load(module: Module, *others: Any, source: Any = given) -> Any:
        target = module.get_submodule(into)
        names = {WRAPPED.sub("", name): name for name in target.state_dict()}
        weights = {WRAPPED.sub("", name): tensor for name, tensor in _read(source).items()}
        weights = {names.get(name, name): tensor for name, tensor in weights.items()}
        target.load_state_dict(weights)
        where = "a state_dict" if isinstance(source, Mapping) else os.fspath(source)
        logger.info("loaded %d tensors from %s into %s", len(weights), where, into or type(module).__qualname__)
        return (module, *others) if others else module

    return _named("load_weights", load)


def freeze(*patterns: str) -> Step:
    """Make a step after which parameters require no gradient.

    Args:
        patterns: Names of parameters, with ``*`` for any part of a name: ``"nn.encoder.*"``. One that is shared has
            several.

    Raises:
        UnmatchedPattern: There is no pattern; or, raised by the step, no parameter of such a name.
    """
    if not patterns:
        message = "freeze() freezes nothing. Name the parameters: freeze('nn.encoder.*'), or freeze('*') for all."
        raise UnmatchedPattern(message)

    def frozen(module: Module, *others: Any) -> Any:
        parameters = {WRAPPED.sub("", name): value for name, value in module.named_parameters(remove_duplicate=False)}
        for pattern in patterns:
            names = [name for name in parameters if fnmatchcase(name, pattern)]
            if not names:
                message = f"freeze({pattern!r}) fits none of the parameters {', '.join(list(parameters)[:20])}"
                raise UnmatchedPattern(message)
            for name in names:
                parameters[name].requires_grad = False
            count = sum(parameters[name].numel() for name in names)
            logger.info("froze %d parameters of %s: %s", count, type(module).__qualname__, ", ".join(names))
        return (module, *others) if others else module

    return _named("freeze", frozen)


def _follow(name: str, optimizer: Optimizer, module: Module) -> None:
    """Move what an optimizer has gathered to where its parameters are; counts of steps only where torch does, too."""
    present = {id(parameter) for parameter in module.parameters()}
    if not all(id(parameter) in present for group in optimizer.param_groups for parameter in group["params"]):
        message = (
            f"{name} has parameters that {type(module).__qualname__} has not after the move. Make it after moving."
        )
        raise OrphanedOptimizer(message)
    for group in optimizer.param_groups:
        counts_too = group.get("fused") or group.get("capturable")
        for parameter in group["params"]:
            values = optimizer.state.get(parameter, {})
            for key, value in values.items():
                if hasattr(value, "dim") and (value.dim() > 0 or counts_too):
                    values[key] = value.to(parameter.device)


def _read(source: Weights) -> Mapping[str, Tensor]:
    import torch

    if isinstance(source, Mapping):
        return source
    weights: Mapping[str, Tensor] = torch.load(source, map_location="cpu", weights_only=True)
    return weights


def _tensors(module: Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _described(module: Module) -> str:
    tensors = _tensors(module)
    size = sum(tensor.nbytes for tensor in tensors) / 1e6
    return f"{type(module).__qualname__} ({len(tensors)} tensors, {size:.1f} MB)"


def _named(name: str, step: Step) -> Step:
    step.__name__ = name
    return step
