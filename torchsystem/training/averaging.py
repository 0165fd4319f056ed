"""The average of a network's weights: kept inside the aggregate, and put in their place where they are evaluated."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from torchsystem.domain.names import Names
from torchsystem.domain.plain import spread
from torchsystem.errors import AveragedWeights, InvalidAverage

Buffers: TypeAlias = Literal["keep", "average"]


class WeightAverage:
    """The exponential moving average of a network's weights: a value inside the aggregate, and so of its snapshot.

    After each real step of the optimizer, average = average + (1 - decay) * (weight - average), beginning with the
    weights as they are given. (B. Polyak and A. Juditsky have shown in 1992 why averages of iterates are better than
    the last one; that the decay may rise as min(decay, (1 + steps) / (10 + steps)) is from TensorFlow's
    `ExponentialMovingAverage`.)

    It hears of steps by a hook of the optimizer, so in any loop, and never of one that was accumulated for or that a
    scaler skipped. Copies and pickles go on with the copies of network and optimizer. Averages of weights of less
    than 32 bits have 32, because small changes would be lost in them.

    Args:
        network: What to average.
        optimizer: Whose steps count: the one that moves the network.
        decay: How much of the average stays in each step, from 0 up to, and without, 1.
        warmup: Whether the decay rises from a small one, so that the first weights are soon forgotten.
        buffers: `"keep"` evaluates averaged weights with the network's own buffers; `"average"` averages those of
            floating point as well, as running means of a batch normalization; others are the network's own.

    Attributes:
        steps: How many steps were averaged.

    Raises:
        InvalidAverage: An argument has no meaning.

    Examples:
        >>> from torch import nn, ones, optim
        >>> from torchsystem import Aggregate
        >>> from torchsystem.training import WeightAverage
        >>> class Classifier(Aggregate):
        ...     def __init__(self, network: nn.Module) -> None:
        ...         super().__init__()
        ...         self.nn = network
        ...         self.optimizer = optim.SGD(network.parameters(), lr=1.0)
        ...         self.average = WeightAverage(network, self.optimizer, decay=0.5)
        >>> classifier = Classifier(nn.Linear(1, 1, bias=False))
        >>> _ = nn.init.zeros_(classifier.nn.weight)
        >>> classifier.average.reset()
        >>> classifier.nn(ones(1, 1)).sum().backward()
        >>> classifier.optimizer.step()
        >>> with classifier.average.applied():
        ...     classifier.nn.weight.item()
        -0.5
        >>> classifier.nn.weight.item()
        -1.0
    """

    def __init__(
        self,
        network: Module,
        optimizer: Optimizer,
        *,
        decay: float,
        warmup: bool = False,
        buffers: Buffers = "keep",
    ) -> None:
        _check(network, optimizer, decay, buffers)
        self.steps = 0
        self.decay = decay
        self.warmup = warmup
        self._network = network
        self._optimizer = optimizer
        self._buffers: Buffers = buffers
        self._is_applied = False
        self.reset()
        self._listen()

    def reset(self) -> None:
        """Begin anew, from the weights as they are now."""
        self._refuse_while_applied("reset")
        self.steps = 0
        self._averaged = [*_averaged(self._network, self._buffers).values()]
        self._averages = [tensor.detach().to(_wide(tensor), copy=True) for tensor in self._averaged]

    @contextmanager
    def applied(self) -> Generator[None]:
        """Put the averages in the place of the weights for a block, after which all is what it was, bit by bit.

        While it lasts, nothing may step, and the state of the aggregate cannot be kept: the weights of the training
        are not where they belong. What the block does to the buffers of the network is undone as well.

        In `evaluate`, it costs three copies of the weights per batch, and is safe: a run may be kept, interrupted and
        continued between any two batches.

        Raises:
            AveragedWeights: They are there already.
            InvalidAverage: The network has got other parameters.
        """
        self._refuse_while_applied("applied")
        self._follow()
        places = [*self._averaged, *_others(self._network, self._averaged)]
        own = [tensor.detach().clone() for tensor in places]
        self._is_applied = True
        try:
            _copy(self._averaged, self._averages)
            yield
        finally:
            _copy(places, own)
            self._is_applied = False

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps were averaged, and the averages by the names of the weights.

        Raises:
            AveragedWeights: They stand where the weights belong, which whoever keeps this wants to keep, too.
            InvalidAverage: The network has got other parameters.
        """
        self._refuse_while_applied("state_dict")
        self._follow()
        names = _averaged(self._network, self._buffers)
        return {"steps": self.steps, "averages": dict(zip(names, self._averages, strict=True))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            AveragedWeights: The averages stand where the weights belong.
            InvalidAverage: It is of other weights; nothing was changed.
        """
        self._refuse_while_applied("load_state_dict")
        self._follow()
        names, given = _averaged(self._network, self._buffers), state["averages"]
        shapes = {name: average.shape for name, average in zip(names, self._averages, strict=True)}
        other = {name for name in shapes.keys() | given.keys() if name not in given or name not in shapes}
        other |= {name for name in shapes.keys() & given.keys() if shapes[name] != given[name].shape}
        if other:
            message = (
                f"this is the average of other weights: {', '.join(sorted(other)[:5])} are missing, unexpected or of "
                f"another shape. Load what an average of the same network has given."
            )
            raise InvalidAverage(message)
        for name, average in zip(names, self._averages, strict=True):
            average.copy_(spread(given[name], average))
        self.steps = state["steps"]

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_while_applied("copy")
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._listen()  # copies of optimizers have lost their hooks

    def _listen(self) -> None:
        # A count of steps in a compiled graph would make a new graph in each step.
        separate: Any = torch.compiler.disable(self._stepped)  # type: ignore[no-untyped-call]
        self._optimizer.register_step_post_hook(separate)

    def _stepped(self, optimizer: Optimizer, *_: Any) -> None:
        """Take in the weights after a step."""
        self._refuse_while_applied("optimizer.step")
        skips = getattr(optimizer, "found_inf", None)  # with a scaler, a fused optimizer finds out by itself
        if skips is not None and bool(skips):
            return
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.warmup else self.decay
        self._move()
        with torch.no_grad():
            weights = [
                part if part.dtype == average.dtype else part.to(average.dtype)
                for part, average in zip(self._averaged, self._averages, strict=True)
            ]
            foreach: Any = torch
            foreach._foreach_lerp_(self._averages, weights, 1 - decay)

    def _move(self) -> None:
        """Follow a network that was moved to another device; looking at one weight is enough, and costs nothing."""
        if self._averaged[0].device != self._averages[0].device:
            pairs = zip(self._averages, self._averaged, strict=True)
            self._averages = [average.to(part.device) for average, part in pairs]

    def _follow(self) -> None:
        """Follow the network where it was moved.

        Raises:
            InvalidAverage: It has got other parameters, whose average this is not.
        """
        present = [*_averaged(self._network, self._buffers).values()]
        if [id(tensor) for tensor in present] != [id(tensor) for tensor in self._averaged]:
            message = (
                "the network has got other weights than those that are averaged: others were put in their place, or "
                "added. Make its WeightAverage after that, or call reset() to begin anew."
            )
            raise InvalidAverage(message)
        self._move()

    def _refuse_while_applied(self, action: str) -> None:
        if self.__dict__.get("_is_applied"):
            message = (
                f"{action}: averaged weights stand in the place of those of the training. Leave the block "
                f"`with average.applied():` first; weights alone are kept by the network's own state_dict()."
            )
            raise AveragedWeights(message)


def _averaged(network: Module, buffers: Buffers) -> dict[str, Tensor]:
    """Name what is averaged of a network, without the names of wrappers."""
    names = Names(network)
    found: dict[str, Tensor] = {names.of(name): part for name, part in network.named_parameters()}
    if buffers == "average":
        named = network.named_buffers()
        found |= {names.of(name): part for name, part in named if part.is_floating_point() or part.is_complex()}
    return found


def _others(network: Module, averaged: list[Tensor]) -> list[Tensor]:
    known = {id(tensor) for tensor in averaged}
    return [buffer for buffer in network.buffers() if id(buffer) not in known]


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


@torch.no_grad()
def _copy(places: list[Tensor], values: list[Tensor]) -> None:
    foreach: Any = torch
    if places:
        foreach._foreach_copy_(places, values)


def _check(network: Module, optimizer: Optimizer, decay: float, buffers: str) -> None:
    parameters = [*network.parameters()]
    moved = {id(part) for group in optimizer.param_groups for part in group["params"]}
    wrong = {
        "the network has no parameters": not parameters,
        "the network is not made yet: call it once": any(is_lazy(part) for part in parameters),
        "the optimizer moves none of its parameters": not any(id(part) in moved for part in parameters),
        "the decay is a number from 0 up to, and without, 1": isinstance(decay, bool) or not 0 <= decay < 1,
        "buffers are 'keep' or 'average'": buffers not in {"keep", "average"},
    }
    reasons = [reason for reason, is_wrong in wrong.items() if is_wrong]
    if reasons:
        message = f"WeightAverage(..., decay={decay!r}, buffers={buffers!r}): {'; '.join(reasons)}."
        raise InvalidAverage(message)
