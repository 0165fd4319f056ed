"""Norms of gradients: recorded on an interval, and a word when they vanish or explode."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from torchsystem.adapters.immediacy import Immediate
from torchsystem.adapters.moments import StepMoments
from torchsystem.adapters.parts import demand_optimization, optimizations
from torchsystem.domain import Aggregate
from torchsystem.errors import InvalidOption, InvalidState
from torchsystem.services import Producer, Registered, event, handler
from torchsystem.training.events import GradientsUpdated, Lifecycle, ProcessStarted, TrainingStarted
from torchsystem.triggers import Trigger, every

logger = logging.getLogger("torchsystem.adapters")

By = Literal["layer", "group", "parameter"]
TOTAL = "total"


@event
class GradientsVanished(Lifecycle):
    """The gradient of a part became smaller than it should be; told once, until it is larger again.

    Attributes:
        optimizer: The name of the optimizer.
        part: The layer, group or parameter, or `"total"`.
        norm: The norm of its gradient.
    """

    optimizer: str
    part: str
    norm: float


@event
class GradientsExploded(Lifecycle):
    """The gradient of a part became larger than it should be, or is not finite; told once, until it is smaller again.

    Attributes:
        optimizer: The name of the optimizer.
        part: The layer, group or parameter, or `"total"`.
        norm: The norm of its gradient.
    """

    optimizer: str
    part: str
    norm: float


class Norms(NamedTuple):
    """The norms of the gradients of an optimizer at some moment.

    Attributes:
        batch: How many batches were trained on before.
        step: How many optimizer steps were made before.
        optimizer: The name of the optimizer.
        norms: By layer, group or parameter, and of all together as `"total"`.
    """

    batch: int
    step: int
    optimizer: str
    norms: dict[str, float]


class Gradients(Immediate):
    """Record the norms of gradients on an interval, and tell of those that vanish or explode.

    It looks before real steps: at the whole gradient of what was accumulated, unscaled and not yet clipped. All norms
    of one moment are read from the device at once, and in between nothing is; so the interval is what it costs.

    A part that vanishes or explodes is told as an event, `GradientsVanished` or `GradientsExploded`, to whom it is
    registered with; if nobody there hears it, it is logged as a warning. What is recorded, and of whom was told, is its
    state.

    Args:
        when: When to look; the first step after the trigger is due.
        by: What to tell apart: `"layer"`s, that is the modules that own parameters, the `"group"`s of the optimizer, or
            each `"parameter"`.
        vanishing: Below which norm a gradient has vanished; 0 to leave it out.
        exploding: Above which norm it has exploded.
        name: What to call it, and its state.

    Attributes:
        records: What was recorded, in order.

    Raises:
        InvalidOption: An option has no meaning.

    Examples:
        >>> from torch import nn, optim, tensor
        >>> from torchsystem.adapters.gradients import Gradients
        >>> from torchsystem.training import Supervised, Training, device
        >>> from torchsystem.triggers import every
        >>> network = nn.Linear(1, 1, bias=False)
        >>> model = Supervised(network, nn.L1Loss(), optim.SGD(network.parameters(), lr=0.1))
        >>> training, gradients = Training(), Gradients(every(2, "batches"))
        >>> training.override(device, lambda: "cpu") and None
        >>> training.producer.register(gradients)
        >>> loader = [(tensor([[3.0]]), tensor([[100.0]]))] * 5
        >>> history = training.fit(model, {"train": loader}, epochs=1)
        >>> [(record.batch, record.norms) for record in gradients.records]
        [(2, {'nn': 3.0, 'total': 3.0}), (4, {'nn': 3.0, 'total': 3.0})]
    """

    def __init__(
        self,
        when: Trigger | None = None,
        *,
        by: By = "layer",
        vanishing: float = 1e-8,
        exploding: float = 1e4,
        name: str = "gradients",
    ) -> None:
        super().__init__(name)
        _check(when, by, vanishing, exploding)
        self.by = by
        self.vanishing = vanishing
        self.exploding = exploding
        self.records: list[Norms] = []
        self._moments = StepMoments(every(100, "batches") if when is None else when)
        self._told: dict[str, str] = {}  # of what is out of bounds, which way
        self._producers: list[Producer] = []

    @handler
    def know(self, event: Registered) -> None:
        """Remember to whom to tell."""
        if event.producer not in self._producers:
            self._producers.append(event.producer)

    @handler
    def begin(self, event: ProcessStarted) -> None:
        """Forget what lies beyond where the run begins, or goes on.

        Raises:
            MissingOptimization: Nothing tells of the gradients of the aggregate.
        """
        demand_optimization(self.name, event.aggregate)
        self.records = [each for each in self.records if each.batch < event.progress.batch]

    @handler
    def begin_anew(self, _event: TrainingStarted) -> None:
        """Forget everything: what was recorded was another run's."""
        self.records, self._told = [], {}
        self._moments.forget()

    @handler
    def look(self, event: GradientsUpdated) -> None:
        """Measure the gradients that a step is about to be made on, if it is time to."""
        if self._moments.has_come(event):
            norms = self._measure(event)
            self.records.append(Norms(event.progress.batch, event.progress.step, event.optimizer, norms))
            for part, norm in norms.items():
                self._judge(event, part, norm)

    def state_dict(self) -> dict[str, Any]:
        """Return what it remembers, beside what every consumer does."""
        return {
            **super().state_dict(),
            "records": [list(each) for each in self.records],
            "told": dict(self._told),
            "moments": self._moments.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what was remembered.

        Raises:
            InvalidState: It was remembered by another kind of listener. Nothing is changed then.
        """
        try:
            records, told = [Norms(*each) for each in state["records"]], dict(state["told"])
            moments = state["moments"]
        except (KeyError, TypeError) as error:
            message = f"This is not the state of {self!r}: it lacks {error}. Load what `state_dict()` returned."
            raise InvalidState(message) from error
        super().load_state_dict({"handlers": state.get("handlers", {})})
        self._moments.restore(moments)
        self.records, self._told = records, told

    @torch.no_grad()
    def _measure(self, event: GradientsUpdated) -> dict[str, float]:
        """Compute all norms on the device, and read them in one go."""
        optimizer = _optimizer(event)
        parts: list[str] = []
        gradients: list[Tensor] = []
        for part, parameter in self._parts(event.aggregate, optimizer):
            if parameter.grad is not None:
                parts.append(part)
                gradients.append(_real(parameter.grad))
        if not gradients:
            return {}
        first = gradients[0].device
        dtype = torch.float64 if any(gradient.dtype == torch.float64 for gradient in gradients) else torch.float32
        each = [torch.linalg.vector_norm(gradient, dtype=dtype).to(first) for gradient in gradients]
        sums: dict[str, float] = {}
        for part, norm in zip(parts, torch.stack(each).tolist(), strict=True):
            sums[part] = math.hypot(sums.get(part, 0.0), norm)
        return {**sums, TOTAL: math.hypot(*sums.values())}

    def _parts(self, aggregate: Aggregate, optimizer: Optimizer) -> Iterator[tuple[str, Parameter]]:
        """Yield the parameters of an optimizer, each with the name of what its norm counts for."""
        names = {id(parameter): name for name, parameter in aggregate.named_parameters()}
        for number, group in enumerate(optimizer.param_groups):
            for parameter in group["params"]:
                name = names.get(id(parameter), f"group {number}")
                if self.by == "group":
                    yield f"group {number}", parameter
                else:
                    yield name if self.by == "parameter" else name.rpartition(".")[0] or name, parameter

    def _judge(self, event: GradientsUpdated, part: str, norm: float) -> None:
        """Tell of a part that is out of bounds, unless that was told already."""
        key = f"{event.optimizer}: {part}"
        is_large = not norm <= self.exploding  # also what is not a number
        state = "exploded" if is_large else "vanished" if norm < self.vanishing else None
        if state is None:
            self._told.pop(key, None)
        elif self._told.get(key) != state:
            self._told[key] = state
            self._tell(GradientsExploded if is_large else GradientsVanished, event, part, norm)

    def _tell(
        self, kind: type[GradientsExploded | GradientsVanished], event: GradientsUpdated, part: str, norm: float
    ) -> None:
        hearing = [producer for producer in self._producers if producer.wants(kind) and self in producer.listeners()]
        for producer in hearing:
            producer.dispatch(kind(event.aggregate, event.progress, event.optimizer, part, norm))
        if not hearing:
            what = "exploded" if kind is GradientsExploded else "vanished"
            batch, whose = event.progress.batch, event.optimizer
            logger.warning("%s: the gradient of %s (%s) %s at batch %d: %g", self.name, part, whose, what, batch, norm)


def _real(gradient: Tensor) -> Tensor:
    """Return the values of a gradient, of which complex ones are two each."""
    values = gradient.coalesce().values() if gradient.is_sparse else gradient
    return torch.view_as_real(values.resolve_conj()) if values.is_complex() else values


def _optimizer(event: GradientsUpdated) -> Optimizer:
    """Find the optimizer that an event means: of several of one name, the one that has gradients."""
    named = [each.optimizers for each in optimizations(event.aggregate).values()]
    found = [each[event.optimizer] for each in named if event.optimizer in each]
    return next((each for each in found if _has_gradients(each.param_groups)), found[0])


def _has_gradients(groups: Iterable[Mapping[str, Any]]) -> bool:
    return any(parameter.grad is not None for group in groups for parameter in group["params"])


def _check(when: object, by: object, vanishing: float, exploding: float) -> None:
    if when is not None and not isinstance(when, Trigger):
        _refuse(f"when={when!r}", 'Write a trigger, such as every(100, "batches")')
    if by not in {"layer", "group", "parameter"}:
        _refuse(f"by={by!r}", 'Write "layer", "group" or "parameter"')
    if not all(isinstance(norm, int | float) for norm in (vanishing, exploding)) or not 0 <= vanishing < exploding:
        _refuse(f"vanishing={vanishing!r}, exploding={exploding!r}", "Write two norms, 0 or more, the lower one first")


def _refuse(what: str, remedy: str) -> NoReturn:
    message = f"Gradients({what}) has no meaning. {remedy}."
    raise InvalidOption(message)
