"""Metrics: gathered batch by batch on the device, and read once per report.

To read a value from a device is to wait for all that was queued on it. So nothing is read on the way: losses and what
metrics give are kept as they come, folded into sums every few batches, and all sums are read in one go by `compute`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeAlias

import torch
from torch import Tensor

from torchsystem.errors import InvalidLoss, InvalidMetric, MetricMismatch, NonFiniteLoss
from torchsystem.training.accumulators import Accumulator, Own, detached, is_accumulator
from torchsystem.training.computed import Computed, Result, is_number, merged, read
from torchsystem.training.kept import brought, joined, together

Metric: TypeAlias = Callable[[Any, Any], Tensor] | Accumulator

FOLD = 256  # batches: a few operations then do for all that was kept until then
ROOM = 2**22  # values: what is kept is folded earlier, if there is so much of it


def accuracy(predictions: Tensor, targets: Tensor) -> Tensor:
    """Tell of each sample whether it was predicted right.

    Args:
        predictions: Classes, of shape `(samples, ...)`, or scores of shape `(samples, classes, ...)`.
        targets: Classes, of shape `(samples, ...)`.

    Returns:
        A boolean for each target.

    Raises:
        InvalidMetric: Predictions and targets have other shapes, or there is a single score per sample.

    Examples:
        >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        tensor([ True, False])
    """
    classes = predictions.argmax(1) if predictions.ndim > targets.ndim else predictions
    if classes.shape != targets.shape or (classes is not predictions and predictions.shape[1] == 1):
        message = (
            f"accuracy of predictions of shape {tuple(predictions.shape)} for targets of shape {tuple(targets.shape)}: "
            f"return classes of the same shape from fit and evaluate, or scores of (samples, 2 classes or more, ...)."
        )
        raise InvalidMetric(message)
    return classes == targets


class Measures:
    """The metrics of one split on its way through the batches: means over samples, the loss always among them.

    Args:
        metrics: By name, functions of predictions and targets that give a value per sample (or per element), the mean
            of which is reported; one value without dimensions is that of each sample of the batch. Or objects with
            `update`, `compute` and `reset`, such as those of torchmetrics. Of these it has copies of its own: what one
            split takes in is never mixed with another's.

    Raises:
        InvalidMetric: A name is taken by the loss, or has a `/`, which parts splits from metrics; or it is no metric.

    Examples:
        >>> measures = Measures({"accuracy": accuracy})
        >>> measures.update(torch.tensor([1, 0]), torch.tensor([1, 1]), torch.tensor(0.5), 2)
        >>> measures.update(torch.tensor([1]), torch.tensor([1]), torch.tensor(2.0), 1)
        >>> measures.compute()
        {'loss': 1.0, 'accuracy': 0.6666666666666666}
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        for name, metric in metrics.items():
            _check(name, metric)
        self._order = tuple(metrics)
        self._own = {name: Own(name, metric) for name, metric in metrics.items() if is_accumulator(metric)}
        self._functions: dict[str, Any] = {name: one for name, one in metrics.items() if name not in self._own}
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self._losses: list[Tensor] = []
        self._weights: list[int] = []
        self._kept: dict[str, list[Tensor]] = {name: [] for name in self._functions}
        self._keepers = [(metric, self._kept[name].append) for name, metric in self._functions.items()]
        self._until = 1  # so many batches are kept before anybody looks at how much that is
        self._sums: Tensor | None = None  # of the loss and each function, then of how many there were of each
        self._folded = 0
        self._bad: Tensor | None = None  # the number of the first folded batch whose loss was not finite, or -1
        for own in self._own.values():
            own.reset()
        self._updates = [own.update for own in self._own.values()]

    def update(self, predictions: Any, targets: Any, loss: Tensor, samples: int) -> None:
        """Take in a batch. Nothing is read from the device.

        Args:
            predictions: What the aggregate predicted.
            targets: What was to be predicted; not looked at without metrics.
            loss: The mean loss of the batch, a scalar.
            samples: How many samples the batch had: the weight of its loss.

        Raises:
            InvalidLoss: The loss is no tensor, or more than one number.
            InvalidMetric: What a metric gave is no tensor.
        """
        losses = self._losses
        try:
            losses.append(loss.detach())
        except AttributeError:
            message = f"the loss is {loss!r}, and no tensor. Return it as the criterion gives it, without .item()."
            raise InvalidLoss(message) from None
        self._weights.append(samples)
        if self._order:
            predictions = predictions.detach() if type(predictions) is Tensor else detached(predictions)
            try:
                for metric, keep in self._keepers:
                    keep(metric(predictions, targets))
                for update in self._updates:
                    update(predictions, targets)
            except Exception:
                if losses[-1].ndim:  # whoever returns the loss first gives metrics what they cannot know either
                    _refuse_shape(losses[-1])
                raise
        if len(losses) >= self._until:
            self._look()

    def check(self) -> None:
        """Refuse losses that are not finite, before anybody keeps what came of them: one read from the device.

        What was gathered stays as it is.

        Raises:
            NonFiniteLoss: The loss of a batch was infinite or not a number; the first such batch is named.
        """
        bad = self._first_bad(self._stacked() if self._losses else None)
        if bad is not None:
            _refuse(int(bad.item()))

    def compute(self) -> Computed:
        """Read what came of all since `reset`, in one read, and begin anew; empty if there were no batches.

        Returns:
            The numbers by name; what is more than one number is in its `details`.

        Raises:
            NonFiniteLoss: The loss of a batch was infinite or not a number; the first such batch is named.
            InvalidMetric: What a metric came to is neither a number nor a tensor, nor are there such by name.
        """
        self._fold()
        if self._sums is None or self._bad is None:
            return Computed({}, {})
        try:
            results = self._results()
        except Exception:
            self.check()  # which may be why
            raise
        numbers = {name: result for name, result in results.items() if is_number(result)}
        beside = {
            name: result.clone()  # or a reset in place would empty it
            for name, result in results.items()
            if isinstance(result, Tensor) and name not in numbers
        }
        (sums, (bad,), *values) = read(self._sums, self._bad, *numbers.values())
        self.reset()
        _refuse(int(bad))
        computed = {name: value for name, (value,) in zip(numbers, values, strict=True)}
        totals, counts = sums[: len(sums) // 2], sums[len(sums) // 2 :]
        means = (total / count if count else math.nan for total, count in zip(totals, counts, strict=True))
        computed |= zip(("loss", *self._functions), means, strict=True)
        return Computed(computed, beside)

    def _results(self) -> dict[str, Result]:
        """Return what all came to, in order, not read yet; where there are means, these have their place."""
        names = ("loss", *self._order)
        return merged(self._own[name].compute() if name in self._own else {name: math.nan} for name in names)

    def state_dict(self) -> dict[str, Any]:
        """Return what was gathered since `reset`, as tensors and plain values. Nothing is read, and nothing is folded.

        So one that takes it up computes, bit by bit, what this one would have.
        """
        return {
            "names": list(self._order),
            "losses": self._stacked() if self._losses else None,
            "weights": list(self._weights),
            "kept": {name: joined(kept, self._weights) if kept else None for name, kept in self._kept.items()},
            "until": self._until,
            "sums": self._sums,
            "folded": self._folded,
            "bad": self._bad,
            "accumulators": {name: own.state_dict() for name, own in self._own.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device | None = None) -> None:
        """Take up what another one of the same metrics had gathered.

        Args:
            state: What its `state_dict` returned.
            device: Where the losses to come will be; as the state is, by default.

        Raises:
            MetricMismatch: It has other metrics.
        """
        mine, theirs = list(self._order), list(state["names"])
        if theirs != mine or state["accumulators"].keys() != self._own.keys():
            message = (
                f"the state is of the metrics {', '.join(theirs) or 'none'}; these are {', '.join(mine) or 'none'}. "
                f"Go on with the same metrics in the same order, or begin at the start of an epoch."
            )
            raise MetricMismatch(message)
        here = {name: brought(state[name], device) for name in ("losses", "sums", "bad")}
        self.reset()
        self._losses.extend([] if here["losses"] is None else here["losses"].unbind())
        self._weights.extend(state["weights"])
        for name, kept in self._kept.items():
            value = brought(state["kept"][name], device)
            kept.extend([] if value is None else [value])
        self._until = state["until"]
        self._sums, self._folded, self._bad = here["sums"], state["folded"], here["bad"]
        for name, own in self._own.items():
            own.load_state_dict(state["accumulators"][name], device)

    def _look(self) -> None:
        """Fold what is kept, unless there is room for more of the same."""
        if self._losses[-1].ndim:
            _refuse_shape(self._losses[-1])
        for name, kept in self._kept.items():
            if not isinstance(kept[-1], Tensor):
                message = (
                    f"metric {name!r} gave {kept[-1]!r}, which is no tensor. Return the values of the samples of a "
                    f"batch as a tensor, or write an object with update, compute and reset."
                )
                raise InvalidMetric(message)
        count = len(self._losses)
        if count < FOLD:
            self._until = _fitting(count, sum(value.numel() for kept in self._kept.values() for value in kept))
        if count >= self._until:
            self._fold()

    def _stacked(self) -> Tensor:
        """Return the losses that are kept as one tensor; only where that cannot be, all shapes are looked at."""
        try:
            return torch.stack(together(self._losses))
        except RuntimeError:
            for loss in self._losses:
                if loss.ndim:
                    _refuse_shape(loss)
            raise

    @torch.no_grad()
    def _fold(self) -> None:
        if not self._losses:
            return
        losses = self._stacked()
        wide = torch.float32 if losses.device.type == "mps" else torch.float64  # Apple's have no doubles
        weights = torch.tensor(self._weights, dtype=wide).to(losses.device, non_blocking=True)
        gathered = [joined(kept, self._weights) for kept in self._kept.values()]
        numbers = [values.numel() for values in gathered]
        sums = [losses.to(wide) @ weights, *(values.sum(dtype=wide).to(losses.device) for values in gathered)]
        counts = torch.tensor([sum(self._weights), *numbers], dtype=wide)
        folded = torch.cat([torch.stack(sums), counts.to(losses.device, non_blocking=True)])
        self._bad = self._first_bad(losses)
        self._sums = folded if self._sums is None else self._sums.to(losses.device) + folded
        self._folded += len(self._losses)
        self._until = _fitting(len(self._losses), sum(numbers))
        self._losses.clear()
        self._weights.clear()
        for kept in self._kept.values():
            kept.clear()

    @torch.no_grad()
    def _first_bad(self, losses: Tensor | None) -> Tensor | None:
        """Return the number of the first batch whose loss was not finite, or -1; None if there were no batches."""
        if losses is None:
            return self._bad
        wrong = ~losses.isfinite()
        first = torch.where(wrong.any(), wrong.int().argmax() + self._folded, -1)
        if self._bad is None:
            return first
        before = self._bad.to(first.device)
        return torch.where(before >= 0, before, first)


def _check(name: str, metric: object) -> None:
    if name == "loss" or "/" in name:
        message = f"metric {name!r}: the name is the loss's, or has a '/'. Call it something else."
        raise InvalidMetric(message)
    if isinstance(metric, type) or not (is_accumulator(metric) or callable(metric)):
        message = (
            f"metric {name!r} is {metric!r}. Write a function of predictions and targets, or an object (not its class) "
            f"with update, compute and reset."
        )
        raise InvalidMetric(message)


def _fitting(count: int, values: int) -> int:
    """Say how many batches may be kept, if so many have so many values."""
    return max(1, min(FOLD, ROOM * count // max(values, 1)))


def _refuse_shape(loss: Tensor) -> NoReturn:
    message = (
        f"the loss has the shape {tuple(loss.shape)}, and should be the mean of its batch. Return predictions first, "
        f"the loss second; and leave reduction='none' out."
    )
    raise InvalidLoss(message)


def _refuse(bad: int) -> None:
    if bad >= 0:
        message = (
            f"the loss of batch {bad} (counted from 0 since the last report) is not finite. Look at its data, "
            f"lower the learning rate, or clip the gradients."
        )
        raise NonFiniteLoss(message)
