"""Guards: listeners that end a run that has reached its goal, or that leads nowhere."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor

from torchsystem.domain import Aggregate
from torchsystem.errors import MissingGradients, NonFiniteWeights, UnreadablePredictions
from torchsystem.services import handler
from torchsystem.training.events import BatchEnded, EpochEnded, GradientsUpdated, OptimizerStepped
from torchsystem.training.finite import Flags, broken, infinite, undefined
from torchsystem.training.owned import optimizations_of
from torchsystem.training.watch import Guard, MetricWatch, OnNan, refuse

SHOWN = 3  # names in a message; where one weight is broken, soon all are
HALF = 0.5


class StopOnThreshold(MetricWatch):
    """Ask for a stop when a metric has reached a target.

    Args:
        metric: What to watch, by split and name: `"validation/accuracy"`.
        above: Stop at this value, or a higher one.
        below: Stop at this value, or a lower one; either of the two is given.
        nan: What a value that is not a number means: `"stop"`, `"ignore"` or `"raise"`.

    Raises:
        InvalidStopping: An argument has no meaning.

    Examples:
        >>> from torchsystem.training import StopOnThreshold
        >>> StopOnThreshold("validation/accuracy", above=0.99).judge(0.995)
        'validation/accuracy is 0.995, and 0.99 was to be reached'
    """

    def __init__(
        self, metric: str, *, above: float | None = None, below: float | None = None, nan: OnNan = "stop"
    ) -> None:
        wrong = {
            "metric": not isinstance(metric, str) or "/" not in metric,
            "above": above is not None and not _is_finite(above),
            "below": below is not None and not _is_finite(below),
            "above together with below" if above is not None else "neither above nor below": (above is None)
            is (below is None),
            "nan": nan not in {"stop", "ignore", "raise"},
        }
        rule = f"StopOnThreshold({metric!r}, above={above!r}, below={below!r}, nan={nan!r})"
        refuse(rule, wrong, "Write the metric as 'split/name', and either above=0.99 or below=0.01.")
        target = f"above {above}" if above is not None else f"below {below}"
        super().__init__(f"{metric} {target}", metric, nan)
        self.above = above
        self.below = below

    def judge(self, value: float) -> str | None:
        """Say why to stop at a value; None to go on."""
        for target, reaches in ((self.above, operator.ge), (self.below, operator.le)):
            if target is not None and reaches(value, target):
                return f"{self.metric} is {value:g}, and {target:g} was to be reached"
        return None


class StopOnNonFinite(Guard):
    """End a run whose weights, or whose gradients, are infinite or not a number.

    At the end of each epoch it looks at all parameters, and at the buffers, which may be infinite, as masks are, but
    must be numbers. With `every`, it also looks at the parameters of each optimizer and their gradients at each n-th of
    its real steps, as an `Optimization` tells of them: gradients as they are before they are clipped, which would
    spread one broken value over all of them. A look is a few operations for all tensors at once, and one read.

    Args:
        mode: `"raise"` an error at once, or ask for a `"stop"` after the epoch.
        every: How many real steps of an optimizer lie between two looks; by default, only the ends of epochs count.

    Raises:
        InvalidStopping: An argument has no meaning.

    Examples:
        >>> from torchsystem.training import StopOnNonFinite, Training
        >>> training = Training()
        >>> training.producer.register(StopOnNonFinite("raise", every=100))
    """

    def __init__(self, mode: Literal["raise", "stop"], *, every: int | None = None) -> None:
        wrong = {
            "mode": mode not in {"raise", "stop"},
            "every": every is not None and not _is_count(every),
        }
        refuse(f"StopOnNonFinite({mode!r}, every={every!r})", wrong, "Write 'raise' or 'stop', and 1 step or more.")
        super().__init__("non-finite weights" if every is None else f"non-finite weights every {every} steps")
        self.mode = mode
        self.every = every
        self._steps: Counter[str] = Counter()  # real ones, by optimizer
        self._seen: dict[str, list[Flags]] = {}  # gradients of steps that may still be skipped
        if every is not None:  # else nobody hears of steps, and they cost nothing
            self.handler(self.notice)
            self.handler(self.look)

    def notice(self, event: GradientsUpdated) -> None:
        """Measure the gradients of a step that is due to be looked at; a scaler may skip the step, and rightly so."""
        if event.steps and self.every is not None and (self._steps[event.optimizer] + 1) % self.every == 0:
            moved = _moved(event.aggregate, event.optimizer)
            gradients = ((f"the gradient of {name}", part.grad) for name, part in moved)
            self._seen[event.optimizer] = infinite((name, each) for name, each in gradients if each is not None)

    def look(self, event: OptimizerStepped) -> None:
        """Look at the gradients and the parameters of a real step.

        Raises:
            NonFiniteWeights: Some are not finite, and that shall be an error.
        """
        self._steps[event.optimizer] += 1
        if event.optimizer in self._seen:
            flags = self._seen.pop(event.optimizer) + infinite(_moved(event.aggregate, event.optimizer))
            self._tell(event.aggregate, flags, f"in step {self._steps[event.optimizer]} of {event.optimizer!r}")

    @handler
    def check(self, event: EpochEnded) -> None:
        """Look at all weights at the end of an epoch.

        Raises:
            NonFiniteWeights: Some are not finite, and that shall be an error.
            MissingGradients: Steps were to be looked at, and the aggregate has no `Optimization` to tell of them.
        """
        aggregate = event.aggregate
        if self.every is not None and not optimizations_of(aggregate):
            message = (
                f"{self.name}: every={self.every} counts the steps that an Optimization makes, and "
                f"{type(aggregate).__qualname__} has none. Leave it out, to look at weights when epochs end."
            )
            raise MissingGradients(message)
        flags = infinite(aggregate.named_parameters()) + undefined(aggregate.named_buffers())
        self._tell(aggregate, flags, f"after epoch {event.progress.epoch}")

    def forget(self) -> None:
        """Remember nothing: the next step is the first."""
        self._steps.clear()
        self._seen.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return what it remembers, beside what every consumer does."""
        return {**super().state_dict(), "steps": dict(self._steps)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what was remembered."""
        super().load_state_dict(state)
        self._steps = Counter(state["steps"])

    def _tell(self, aggregate: Aggregate, flags: list[Flags], when: str) -> None:
        names = broken(flags)
        if not names:
            return
        others = f" and {len(names) - SHOWN} others" if len(names) > SHOWN else ""
        found = f"not finite {when}: {', '.join(names[:SHOWN])}{others}"
        if self.mode == "raise":
            message = f"{found}. Lower the learning rate, clip the gradients, or look at the data of the last batches."
            raise NonFiniteWeights(message)
        self.ask(aggregate, found)


class StopOnDegeneratePredictions(Guard):
    """Ask for a stop when, over a window of training batches, (nearly) all predictions are the same.

    Predictions are kept on their device until the window is full; then one number is read.

    Args:
        of: What predictions are compared as: `"classes"`, which are whole numbers or booleans, or scores of shape
            `(samples, classes, ...)`, whose highest is the class; or `"values"`, a row of numbers per sample.
        window: How many batches to look at together.
        share: How many of the predictions have to be the same, as a share above one half.
        tolerance: By how much values may differ and still be the same.
        transform: What makes, of an aggregate's predictions, the tensor to look at.

    Raises:
        InvalidStopping: An argument has no meaning.

    Examples:
        >>> from torchsystem.training import StopOnDegeneratePredictions, Training
        >>> training = Training()
        >>> training.producer.register(StopOnDegeneratePredictions("classes", window=100, share=0.99))
    """

    def __init__(
        self,
        of: Literal["classes", "values"],
        *,
        window: int,
        share: float = 1.0,
        tolerance: float = 0.0,
        transform: Callable[[Any], Tensor] | None = None,
    ) -> None:
        wrong = {
            "of": of not in {"classes", "values"},
            "window": not _is_count(window),
            "share": not _is_finite(share) or not HALF < share <= 1,
            "tolerance": not _is_finite(tolerance) or tolerance < 0 or (of == "classes" and tolerance > 0),
            "transform": transform is not None and not callable(transform),
        }
        rule = f"StopOnDegeneratePredictions({of!r}, window={window!r}, share={share!r}, tolerance={tolerance!r}, ...)"
        remedy = (
            "Write 'classes', or 'values' with a tolerance of 0 or more; a window of 1 batch or more, and a share "
            "above 0.5, up to 1."
        )
        refuse(rule, wrong, remedy)
        super().__init__(f"degenerate {of} in {window} batches")
        self.of = of
        self.window = window
        self.share = share
        self.tolerance = tolerance
        self._transform = transform
        self._kept: list[Tensor] = []

    @handler
    def look(self, event: BatchEnded) -> None:
        """Take in the predictions of a batch; when the window is full, judge them.

        Raises:
            UnreadablePredictions: They are nothing that could be compared so.
        """
        predictions = event.predictions if self._transform is None else self._transform(event.predictions)
        self._kept.append(self._rows(predictions))
        if len(self._kept) < self.window:
            return
        share = _share_of_most_common(self._kept, self.tolerance)
        self._kept = []
        if share >= self.share:
            reason = f"{share:.1%} of the predictions of {self.window} batches are the same"
            self.ask(event.aggregate, reason)

    def forget(self) -> None:
        """Remember nothing: a window begins."""
        self._kept = []

    def state_dict(self) -> dict[str, Any]:
        """Return what it remembers, beside what every consumer does."""
        return {**super().state_dict(), "kept": list(self._kept)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what was remembered."""
        super().load_state_dict(state)
        self._kept = list(state["kept"])

    def _rows(self, predictions: Any) -> Tensor:
        """Return the predictions as rows, of which equal ones are the same prediction.

        Raises:
            UnreadablePredictions: They are nothing that could be compared so.
        """
        if not isinstance(predictions, Tensor) or predictions.ndim == 0:
            self._cannot_read(type(predictions).__qualname__, "Give transform=, which makes a tensor of them")
        rows: Tensor = predictions.detach()
        if self.of == "values":
            return rows.flatten(1) if rows.ndim > 1 else rows.unsqueeze(1)
        if rows.is_floating_point():
            if rows.ndim == 1 or rows.shape[1] == 1:
                shape = tuple(rows.shape)
                self._cannot_read(f"scores of shape {shape}", "Give transform=, such as `lambda scores: scores > 0`")
            rows = rows.argmax(1)
        return rows.reshape(-1, 1)

    def _cannot_read(self, what: str, remedy: str) -> NoReturn:
        message = f"{self.name}: the predictions are {what}, of which nobody can tell the {self.of}. {remedy}."
        raise UnreadablePredictions(message)


def _share_of_most_common(kept: list[Tensor], tolerance: float) -> float:
    """Return which share of all rows the most common one has, if that is more than a half; else any smaller share.

    What more than a half are is the median: so it is found without counting all that there are.
    """
    device = kept[-1].device
    rows = torch.cat([part.to(device) for part in kept])
    if not rows.is_floating_point():
        rows = rows.double() if tolerance else rows.long()
    if not rows.numel():
        return 0.0
    common = rows.median(dim=0).values
    same = (rows - common).abs() <= tolerance if tolerance else rows == common
    return int(same.all(dim=1).sum()) / len(rows)


def _moved(aggregate: Aggregate, optimizer: str) -> list[tuple[str, Tensor]]:
    """List the parameters that an optimizer moves, by their names in the aggregate."""
    names = {id(parameter): name for name, parameter in aggregate.named_parameters()}
    known = [one.optimizers[optimizer] for one in optimizations_of(aggregate) if optimizer in one.optimizers]
    parameters = [part for one in known for group in one.param_groups for part in group["params"]]
    return [(names.get(id(part), "a parameter outside"), part) for part in parameters]


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
