"""One optimizer, and the losses that are gathered for its next step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from inspect import signature
from typing import Any

from torch import Tensor
from torch.amp import GradScaler
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer

from torchsystem.domain.plain import gathered, spread
from torchsystem.errors import FrozenOptimizer, InvalidLoss, InvalidOptimizer
from torchsystem.training.precision import step_scaled
from torchsystem.training.schedules import Schedule, lowered


class Descent:
    """What happens to the parameters of one optimizer.

    Losses come in groups, each for one step. The gradient of a step is that of the mean over its group, so every loss
    is divided by the size of the group when it is back-propagated. The last group of an epoch may be smaller; if that
    was not known in time, the gradient is corrected when the step is made.

    Args:
        name: What the optimizer is called.
        optimizer: The optimizer.
        accumulate: How many losses make a group.
        clip_norm: What to clip the norm of the gradient to.
        clip_value: What to clip the values of the gradient to.
        warmup: Over how many steps learning rates rise to what they should be.
        schedule: How they change then.

    Attributes:
        steps: The real steps that were made.
        count: The losses gathered for the next one.
        size: How many they are divided by.
        left: How many losses are still to come in this epoch; None if nobody said, or it does not matter.
        is_plain: Whether a step is backward, the optimizer's step and `clear`, and no more, now and from now on.

    Raises:
        InvalidOptimizer: It is no optimizer, or steps by a closure.
    """

    __slots__ = (
        "_accumulate",
        "_clip_norm",
        "_clip_value",
        "_sets_to_none",
        "_warmup",
        "count",
        "is_plain",
        "left",
        "name",
        "optimizer",
        "schedule",
        "size",
        "steps",
    )

    def __init__(  # noqa: PLR0913 - `Optimization` is what users write
        self,
        name: str,
        optimizer: Optimizer,
        *,
        accumulate: int,
        clip_norm: float | None,
        clip_value: float | None,
        warmup: int,
        schedule: Schedule | None,
    ) -> None:
        _check(name, optimizer)
        self.name = name
        self.optimizer = optimizer
        self.schedule = schedule
        self.steps = 0
        self.count = 0
        self.size = accumulate
        self.left: int | None = None
        self._accumulate = accumulate
        self._clip_norm = clip_norm
        self._clip_value = clip_value
        self._warmup = warmup
        own = "zero_grad" in vars(optimizer) or type(optimizer).zero_grad is not Optimizer.zero_grad
        self._sets_to_none = not own
        self._settle()

    @property
    def clips(self) -> bool:
        """Whether gradients are clipped."""
        return self._clip_norm is not None or self._clip_value is not None

    @property
    def is_warming_up(self) -> bool:
        """Whether the next step is one of the warm-up."""
        return self.steps < self._warmup

    @property
    def factor(self) -> float:
        """What learning rates are multiplied by in the next step."""
        return (self.steps + 1) / self._warmup if self.is_warming_up else 1.0

    def parameters(self) -> Iterator[Tensor]:
        """Yield what the optimizer moves."""
        for group in self.optimizer.param_groups:
            yield from group["params"]

    def trainable(self) -> list[Tensor]:
        """List the parameters that require a gradient now.

        Raises:
            FrozenOptimizer: None does.
        """
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not parameters:
            message = (
                f"a loss for the optimizer {self.name!r}: none of its parameters requires a gradient, so there is "
                f"nothing to learn from it. Leave the loss out while they are frozen."
            )
            raise FrozenOptimizer(message)
        return parameters

    def check_gradients(self) -> None:
        """Look whether the first loss of a group has reached any parameter.

        Raises:
            InvalidLoss: It has not.
        """
        if not self.count and not self.has_gradients:
            message = (
                f"the loss for the optimizer {self.name!r} depends on none of its parameters that require a gradient, "
                f"so there is nothing to learn from it. Is it the loss of another optimizer, or detached from them?"
            )
            raise InvalidLoss(message)

    def gradients(self) -> Iterator[Tensor]:
        """Yield the gradients that there are."""
        for parameter in self.parameters():
            if parameter.grad is not None:
                yield parameter.grad

    @property
    def has_gradients(self) -> bool:
        """Whether any loss has reached its parameters; a scaler knows nothing to do with an optimizer without."""
        return next(self.gradients(), None) is not None

    def begin(self, losses: int | None) -> None:
        """Begin an epoch, with so many losses to come. Gradients that belong to no group are forgotten."""
        self.left = losses if self._accumulate > 1 else None
        if not self.count:
            self.clear()
        self._settle()

    def divisor(self) -> int:
        """Say by what the next loss is divided."""
        if not self.count:
            self.size = min(self._accumulate, self.left or self._accumulate)
        return self.size

    def gather(self) -> bool:
        """Count a loss that was back-propagated, and tell whether the group is complete."""
        self.count += 1
        if self.left:
            self.left -= 1
        return self.count == self.size

    def step(self, scaler: GradScaler | None) -> bool:
        """Make the step that the group was gathered for, and tell whether it was made or skipped.

        Args:
            scaler: What the losses were scaled by. Where gradients are clipped, it has unscaled them.
        """
        if self.count != self.size:
            for gradient in self.gradients():
                gradient.mul_(self.size / self.count)
        self.count = 0
        if self._clip_value is not None:
            clip_grad_value_(self.parameters(), self._clip_value)
        if self._clip_norm is not None:
            clip_grad_norm_(self.parameters(), self._clip_norm)
        with lowered(self.optimizer, self.factor) if self.is_warming_up else nullcontext():
            if scaler is None or not self.has_gradients:
                self.optimizer.step()
            elif not step_scaled(scaler, self.optimizer):
                return False
        self.steps += 1
        if self.steps == self._warmup:
            self._settle()
        if self.schedule is not None:
            self.schedule.stepped()
        return True

    def clear(self) -> None:
        """Forget the gradients."""  # torch's `zero_grad` does no more, but tells the profiler, which costs 8 µs
        if self._sets_to_none:
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
        else:
            self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the counters, and the gradients of a group that is not complete, by the number of the parameter."""
        state = {"steps": self.steps, "count": self.count, "size": self.size, "left": self.left}
        numbered = enumerate(self.parameters() if self.count else ())
        gradients = {str(number): parameter.grad for number, parameter in numbered if parameter.grad is not None}
        return {**state, "gradients": gradients}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.steps, self.count, self.size, self.left = (state[name] for name in ("steps", "count", "size", "left"))
        for number, parameter in enumerate(self.parameters()):
            gradient = state["gradients"].get(str(number))
            parameter.grad = None if gradient is None else _as_gradient(gradient, parameter)
        self._settle()

    def _settle(self) -> None:
        moves = self.schedule is not None and self.schedule.per == "step"
        self.is_plain = self._accumulate == 1 and not (self.clips or moves or self.count or self.is_warming_up)

    # Copies and pickles of parameters leave their gradients behind; those of a group under way must not be lost.

    def __getstate__(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self.__slots__}
        return {**own, "progress": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        progress = state.pop("progress")
        for name, value in state.items():
            setattr(self, name, value)
        if self.count:
            self.load_state_dict(progress)


def _as_gradient(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Copy a gradient to where its parameter is, spread over ranks as that is."""
    whole = gathered(gradient).detach().to(parameter.device, parameter.dtype, copy=True)
    return spread(whole, parameter)


def _check(name: str, optimizer: object) -> None:
    if not isinstance(optimizer, Optimizer):
        message = f"the optimizer {name!r} is {type(optimizer).__qualname__}. Write a torch.optim.Optimizer."
        raise InvalidOptimizer(message)
    closure = signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        message = (
            f"the optimizer {name!r}, {type(optimizer).__qualname__}, computes the loss several times per step, by a "
            f"closure, and has no use for a backward pass that was made before. Call optimizer.step(closure) yourself."
        )
        raise InvalidOptimizer(message)
