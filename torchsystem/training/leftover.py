"""What no snapshot knows of parameters: gradients that a batch has left behind, and which of them are frozen.

An `Optimization` keeps the gradients of an unfinished group; here are those of who accumulates by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from logging import getLogger
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from torchsystem.domain.names import Names
from torchsystem.domain.plain import Plain, plain, spread
from torchsystem.training.optimization import Optimization

logger = getLogger(__name__)


def gradients_of(root: Module, optimizations: Iterable[Optimization]) -> dict[str, Plain]:
    """Copy the gradients that are there, by the names of their parameters, but for those that an optimization keeps.

    Examples:
        >>> from torch import nn, ones
        >>> network = nn.Linear(2, 1, bias=False)
        >>> network(ones(1, 2)).backward()
        >>> gradients_of(network, [])
        {'weight': tensor([[1., 1.]])}
    """
    return {
        name: _kept(name, parameter.grad)
        for name, parameter in _parameters(root, optimizations)
        if parameter.grad is not None
    }


def put_back_gradients(root: Module, optimizations: Iterable[Optimization], states: dict[str, Plain]) -> None:
    """Give parameters the gradients that `gradients_of` returned, and all others of those none."""
    for name, parameter in _parameters(root, optimizations):
        parameter.grad = _revived(states[name], parameter) if name in states else None


def frozen_of(root: Module) -> list[str]:
    """Name the parameters that are not learned now.

    Examples:
        >>> from torch import nn
        >>> frozen_of(nn.Linear(2, 1).requires_grad_(False))
        ['weight', 'bias']
    """
    names = Names(root)
    return [names.of(name) for name, parameter in root.named_parameters() if not parameter.requires_grad]


def freeze_again(root: Module, frozen: Iterable[str]) -> None:
    """Have those parameters learned that were, and no others: somebody may have thawed some in an earlier epoch."""
    names, still = Names(root), frozenset(frozen)
    for name, parameter in root.named_parameters():
        is_learned = names.of(name) not in still
        if parameter.requires_grad != is_learned:
            logger.info("%s is %s, as it was when the run was kept", name, "learned" if is_learned else "frozen")
            parameter.requires_grad_(is_learned)


def _parameters(root: Module, optimizations: Iterable[Optimization]) -> Iterator[tuple[str, Parameter]]:
    groups = (group for each in optimizations for one in each.optimizers.values() for group in one.param_groups)
    known = {id(parameter) for group in groups for parameter in group["params"]}
    names = Names(root)
    return ((names.of(name), each) for name, each in root.named_parameters() if id(each) not in known)


def _kept(name: str, gradient: Tensor) -> Plain:
    if gradient.layout is not torch.sparse_coo:
        return plain(gradient, name, _to_memory)
    whole = gradient.detach().coalesce()  # of an embedding, which has gradients for the rows that were asked for
    return {"indices": _to_memory(name, whole.indices()), "values": _to_memory(name, whole.values())}


def _to_memory(_name: str, tensor: Tensor) -> Tensor:
    """Copy a tensor to the memory of the machine: a device may have no room for all gradients twice."""
    return tensor.to("cpu", copy=True)


def _revived(state: Any, parameter: Parameter) -> Tensor:
    if isinstance(state, Tensor):
        return spread(state.to(parameter.device, copy=True), parameter)
    indices, values = state["indices"], state["values"]
    shape, device = parameter.shape, parameter.device
    return torch.sparse_coo_tensor(indices, values, shape, device=device, is_coalesced=True, check_invariants=True)
