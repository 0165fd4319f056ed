"""The value inside an aggregate that turns losses into steps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchsystem.training.assembly import assemble
from torchsystem.training.descent import Descent
from torchsystem.training.nested import load_states, states
from torchsystem.training.options import check_flag, check_whole, losses_by_name
from torchsystem.training.precision import Precision, scaler_for, type_of, update_scale, without_autocast
from torchsystem.training.schedules import Per

OnGradients: TypeAlias = Callable[[str, int, bool], object]
OnStep: TypeAlias = Callable[[str], object]


class Optimization:
    """Turn losses into steps, so that `fit` need not.

    Args:
        optimizer: An optimizer, or several by name. One that has no name is called `"optimizer"`.
        scheduler: How the learning rate changes; one per optimizer, by the same names.
        accumulate: How many losses make one step, whose gradient is that of their mean.
        clip_norm: What to clip the norm of each optimizer's gradient to, once per step; or several by name.
        clip_value: What to clip the values of the gradient to, before the norm; or several by name.
        precision: What the forward pass computes in inside `autocast`: `"bf16"`, or `"fp16"` with a `GradScaler`.
        scaler: The scaler, if it shall not be torch's default.
        per: Whether schedulers count `"epoch"`s or real `"step"`s; or several by name.
        metric: What a `ReduceLROnPlateau` watches, as `epoch_ended` is told it.
        warmup: Over how many steps learning rates rise, linearly, to what they would be without. Between steps the
            optimizer shows the latter; `learning_rates` tells the truth.
        sequential: Whether, of several losses, each is stepped on before the next is back-propagated.

    Attributes:
        scaler: What scales the losses; None if nothing does.

    Raises:
        InvalidOptimization: An option has no meaning.
        InvalidOptimizer: An optimizer is none, or steps by a closure.
        InvalidScheduler: A scheduler is none, or belongs to another optimizer.
        SharedParameter: Two optimizers have a parameter in common, and are not `sequential`.
        UnknownOptimizer: An option is given for an optimizer that there is not.

    Examples:
        >>> from torch import nn, optim, ones
        >>> from torchsystem.training.optimization import Optimization
        >>> network = nn.Linear(2, 1)
        >>> optimization = Optimization(optim.SGD(network.parameters(), lr=0.1), accumulate=2, clip_norm=1.0)
        >>> for _ in range(5):
        ...     optimization.step(network(ones(4, 2)).mean())
        >>> optimization.steps
        2
        >>> optimization.finish()  # the fifth loss is a group of its own
        >>> optimization.steps
        3
    """

    def __init__(  # noqa: PLR0913 - each says one thing
        self,
        optimizer: Optimizer | Mapping[str, Optimizer],
        scheduler: LRScheduler | Mapping[str, LRScheduler] | None = None,
        *,
        accumulate: int = 1,
        clip_norm: float | Mapping[str, float] | None = None,
        clip_value: float | Mapping[str, float] | None = None,
        precision: Precision | None = None,
        scaler: GradScaler | None = None,
        per: Per | Mapping[str, Per] = "epoch",
        metric: str | None = None,
        warmup: int = 0,
        sequential: bool = False,
    ) -> None:
        self._descents = assemble(
            optimizer,
            scheduler,
            accumulate=accumulate,
            clip_norm=clip_norm,
            clip_value=clip_value,
            per=per,
            metric=metric,
            warmup=warmup,
            sequential=sequential,
        )
        check_flag("sequential", sequential)
        self._sequential = sequential
        self._dtype = type_of(precision)
        self.scaler = scaler_for(self._dtype, scaler, self._device)
        self._scaling = self.scaler if self.scaler is not None and self.scaler.is_enabled() else None
        self.listen()

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """The optimizers, by name."""
        return {name: descent.optimizer for name, descent in self._descents.items()}

    @property
    def schedulers(self) -> dict[str, LRScheduler]:
        """The schedulers, by the names of their optimizers."""
        schedules = {name: descent.schedule for name, descent in self._descents.items()}
        return {name: schedule.scheduler for name, schedule in schedules.items() if schedule is not None}

    @property
    def precision(self) -> torch.dtype | None:
        """The type that the forward pass computes in inside `autocast`; None for the types as they are."""
        return self._dtype

    @property
    def steps(self) -> int:
        """The real steps of all optimizers; one that a scaler skipped is none."""
        return sum([descent.steps for descent in self._descents.values()])  # a list takes half as long

    @property
    def learning_rates(self) -> dict[str, list[float | Tensor]]:
        """What the next step learns with, warm-up included: per optimizer, the rates of its groups."""
        return {
            name: [group["lr"] * descent.factor for group in descent.optimizer.param_groups]
            for name, descent in self._descents.items()
        }

    def listen(self, on_gradients: OnGradients | None = None, on_step: OnStep | None = None) -> None:
        """Say who hears of backward passes and steps, in place of who did; nobody by default, which costs nothing.

        Copies and pickles have no listeners.

        Args:
            on_gradients: Called after each backward pass, once per optimizer, with its name, the position of the loss
                in its group, and whether a step follows. If one does, gradients are unscaled then, and not yet clipped.
            on_step: Called after each real step, before its gradients are cleared, with the name of the optimizer.

        Examples:
            >>> from torch import nn, optim, ones
            >>> from torchsystem.training.optimization import Optimization
            >>> network = nn.Linear(2, 1)
            >>> optimization = Optimization(optim.SGD(network.parameters(), lr=0.1))
            >>> optimization.listen(on_gradients=print, on_step=print)
            >>> optimization.step(network(ones(4, 2)).mean())
            optimizer 0 True
            optimizer
        """
        self._on_gradients = on_gradients
        self._on_step = on_step
        alone = len(self._descents) == 1 and self._dtype is None and self._scaling is None
        unheard = on_gradients is None and on_step is None
        self._alone = next(iter(self._descents.values())) if alone and unheard else None

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute what stands in the block in the type of `precision`: the forward pass and the loss.

        `step` may be called inside or outside: it computes gradients outside.

        Examples:
            >>> from torch import nn, optim, ones
            >>> from torchsystem.training.optimization import Optimization
            >>> network = nn.Linear(2, 1)
            >>> optimization = Optimization(optim.SGD(network.parameters(), lr=0.1), precision="bf16")
            >>> with optimization.autocast():
            ...     print(network(ones(4, 2)).dtype)
            torch.bfloat16
        """
        return nullcontext() if self._dtype is None else torch.autocast(self._device, self._dtype)

    def begin(self, losses: int | None = None) -> None:
        """Begin an epoch, or go on in one. Gradients that were left behind by others are forgotten.

        Args:
            losses: How many losses each optimizer is still to get, so that the last group has the right size from its
                beginning, and its step is made with its last loss. If nobody knows, `finish` corrects it; if more
                come, whole groups follow.
        """
        if losses is not None:
            check_whole("begin: losses", losses, 0)
        for descent in self._descents.values():
            descent.begin(losses)

    def step(self, loss: Tensor | Mapping[str, Tensor] | None = None, /, **losses: Tensor) -> None:
        """Compute the gradients of a loss, and step if it completes its group.

        A loss that has no name is for all optimizers. One that is given for an optimizer by name moves nothing but the
        parameters of that one, and computes no other gradient. All losses are back-propagated before any step, unless
        the optimization is `sequential`.

        Args:
            loss: A loss, or losses by the names of the optimizers.
            losses: The same, as keywords.

        Raises:
            FrozenOptimizer: A loss is for parameters none of which requires a gradient.
            InvalidLoss: It is no loss, or depends on no parameter of the optimizer that it is given for.
            UnknownOptimizer: There is no optimizer of that name.

        Examples:
            >>> from torch import nn, optim, ones
            >>> from torchsystem.training.optimization import Optimization
            >>> generator, discriminator = nn.Linear(1, 2), nn.Linear(2, 1)
            >>> optimization = Optimization({
            ...     "generator": optim.Adam(generator.parameters()),
            ...     "discriminator": optim.Adam(discriminator.parameters()),
            ... })
            >>> judged = discriminator(generator(ones(4, 1))).mean()
            >>> optimization.step(generator=-judged, discriminator=judged)
            >>> optimization.steps
            2
        """
        alone = self._alone
        if alone is not None and alone.is_plain and type(loss) is Tensor and not losses:
            loss.backward()  # type: ignore[no-untyped-call]
            alone.optimizer.step()
            alone.steps += 1
            alone.clear()
            return
        with nullcontext() if self._dtype is None else without_autocast(self._device):
            self._descend(losses_by_name(loss, losses, self._descents))

    def finish(self) -> None:
        """End the training split of an epoch: step on what is gathered, as the mean of as many losses as there are."""
        pending = [descent for descent in self._descents.values() if descent.count]
        for descent in pending:
            self._unscale(descent)
        self._make_steps(pending)

    def epoch_ended(self, metrics: Mapping[str, Any] | None = None, *, waiting: Collection[str] = ()) -> None:
        """Move on the schedulers that count epochs.

        Args:
            metrics: What the epoch reports, for those that watch a metric.
            waiting: The splits that were not due in this epoch. Who watches a metric of theirs does not move.

        Raises:
            MissingMetric: What one watches is not among them.
        """
        for descent in self._descents.values():
            if descent.schedule is not None:
                descent.schedule.epoch_ended({} if metrics is None else metrics, waiting)

    def parts(self) -> dict[str, Any]:
        """Return what has a state of its own, by name, for whoever keeps the state of all that is in an aggregate."""
        parts: dict[str, Any] = {
            "schedulers": self.schedulers,
            "optimizers": self.optimizers,  # after the schedulers, which would change their learning rates
            "descents": dict(self._descents),
        }
        return parts if self.scaler is None else {**parts, "scaler": self.scaler}

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state: optimizers, schedulers, scaler, counters, and the gradients of unfinished groups."""
        return states(self.parts())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            MismatchedState: It is of an optimization that has other parts; nothing was changed.
        """
        load_states(self.parts(), state, "the optimization")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_on_gradients": None, "_on_step": None, "_alone": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.listen()

    @property
    def _device(self) -> str:
        return next(next(iter(self._descents.values())).parameters()).device.type

    def _descend(self, losses: Mapping[str, Tensor]) -> None:
        """Back-propagate losses, and step where groups are complete."""
        shares = self._shares(losses)
        due: list[Descent] = []
        for position, (loss, descents) in enumerate(shares, start=1):
            self._back_propagate(loss, descents, retain=position < len(shares))
            due += [descent for descent in descents if self._gather(descent)]
            if self._sequential:
                self._make_steps(due)
                due = []
        self._make_steps(due)

    def _shares(self, losses: Mapping[str, Tensor]) -> list[tuple[Tensor, list[Descent]]]:
        """Bring together the optimizers that have a loss in common, so that it is back-propagated once."""
        shares: dict[object, tuple[Tensor, list[Descent]]] = {}
        for name, loss in losses.items():
            descent = self._descents[name]
            key = name if self._sequential else (id(loss), descent.divisor())
            shares.setdefault(key, (loss, []))[1].append(descent)
        return list(shares.values())

    def _back_propagate(self, loss: Tensor, descents: list[Descent], *, retain: bool) -> None:
        divisor = descents[0].divisor()
        scaled = loss if divisor == 1 else loss / divisor
        if self._scaling is not None:
            scaled = self._scaling.scale(scaled)
        if len(descents) == len(self._descents):
            torch.autograd.backward(scaled)
            return
        inputs = [part for descent in descents for part in descent.trainable()]
        torch.autograd.backward(scaled, retain_graph=retain, inputs=inputs)
        for descent in descents:
            descent.check_gradients()

    def _gather(self, descent: Descent) -> bool:
        """Count a loss, tell who listens, and return whether the optimizer's step is due."""
        position = descent.count
        is_due = descent.gather()
        if is_due:
            self._unscale(descent)
        if self._on_gradients is not None:
            self._on_gradients(descent.name, position, is_due)
        return is_due

    def _unscale(self, descent: Descent) -> None:
        is_seen = descent.clips or self._on_gradients is not None
        if self._scaling is not None and is_seen and descent.has_gradients:
            self._scaling.unscale_(descent.optimizer)

    def _make_steps(self, due: list[Descent]) -> None:
        made = [descent for descent in due if descent.step(self._scaling)]
        if self._scaling is not None and any(descent.has_gradients for descent in due):
            waiting = [descent for descent in self._descents.values() if descent.count]
            update_scale(self._scaling, (gradient for descent in waiting for gradient in descent.gradients()))
        try:
            if self._on_step is not None:
                for descent in made:
                    self._on_step(descent.name)
        finally:
            for descent in due:
                descent.clear()
