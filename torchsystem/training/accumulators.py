"""Accumulators: metrics that are no means over samples, and remember what they have to, such as torchmetrics' own.

torchmetrics is nowhere imported: whatever has `update`, `compute` and `reset` is meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor

from torchsystem.domain.plain import Plain, like, plain
from torchsystem.errors import InvalidMetric, MetricMismatch, UnkeepableValue
from torchsystem.training.batches import to_device
from torchsystem.training.computed import Result, flat
from torchsystem.training.remade import method_of, remade


@runtime_checkable
class Accumulator(Protocol):
    """What takes in batches, and computes from all of them what is to be reported.

    What it gives is a number, a tensor of more than one, or a mapping or a sequence of such. What it remembers is in
    its `state_dict` (torchmetrics' states are found without), or else in its attributes. If it has a `to`, it is
    brought to where the predictions are.
    """

    def update(self, predictions: Any, targets: Any, /) -> object:
        """Take in a batch."""

    def compute(self) -> Any:
        """Return what came of all batches since `reset`."""

    def reset(self) -> object:
        """Forget all batches."""


def is_accumulator(metric: object) -> TypeGuard[Accumulator]:
    """Tell an accumulator from a function (and from a class of accumulators, which is neither)."""
    return isinstance(metric, Accumulator) and not isinstance(metric, type)


class Own:
    """One split's own copy of an accumulator: two splits that use the same never mix what they take in.

    Args:
        name: What the metric is called.
        accumulator: What to copy. It is left alone.

    Raises:
        InvalidMetric: What it remembers cannot be kept, so that a run could not go on where it was.
    """

    def __init__(self, name: str, accumulator: Accumulator) -> None:
        self._name = name
        self._one: Any = deepcopy(accumulator)
        self._device: torch.device | None = None
        self._is_taken_up = False
        self.reset()
        try:
            self.state_dict()
        except (UnkeepableValue, TypeError) as error:
            message = (
                f"metric {name!r}: nobody can keep what {type(accumulator).__qualname__} remembers: {error} "
                f"Give it a state_dict and a load_state_dict."
            )
            raise InvalidMetric(message) from error

    def reset(self) -> None:
        """Forget all batches."""
        self._one.reset()

    def update(self, predictions: Any, targets: Any) -> None:
        """Take in a batch, where it is."""
        device = _device_of(predictions)
        if device is not None and device != self._device:
            self._move(device)
        self._one.update(predictions, targets)

    def compute(self) -> dict[str, Result]:
        """Return what came of it by name, not read yet.

        Raises:
            InvalidMetric: Some of it is neither a number nor a tensor.
        """
        return flat(self._name, self._one.compute())

    def state_dict(self) -> Plain:
        """Return a copy of what it remembers."""
        parts = _parts(self._one)
        if parts:
            return {
                path: {"state": plain(part.metric_state, self._name), "updates": part.update_count}
                for path, part in parts.items()
            }
        return plain(self._one.state_dict() if _has_state_dict(self._one) else vars(self._one), self._name)

    def load_state_dict(self, state: Plain, device: torch.device | None) -> None:
        """Take up what another one remembered.

        Raises:
            MetricMismatch: It was another kind of metric.
        """
        state = state if device is None else to_device(state, device)
        one, parts = self._one, _parts(self._one)
        if parts:
            self._compare(parts, state)
            for path, part in parts.items():
                self._take_up(part, part.metric_state, state[path]["state"])
                vars(part)["_update_count"] = state[path]["updates"]
        elif _has_state_dict(one):
            one.load_state_dict(like(state, one.state_dict()))
        else:
            self._take_up(one, vars(one), state)
        self._device, self._is_taken_up = None, True
        if device is not None:
            self._move(device)

    def _take_up(self, one: Any, mine: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        self._compare(mine, state)
        for name, old in list(mine.items()):
            setattr(one, name, like(state[name], old))

    def _compare(self, mine: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        if mine.keys() != state.keys():
            message = (
                f"metric {self._name!r}: the state has {', '.join(state) or 'nothing'}; a "
                f"{type(self._one).__qualname__} remembers {', '.join(mine) or 'nothing'}. Go on with the same metric."
            )
            raise MetricMismatch(message)

    def _move(self, device: torch.device) -> None:
        move = getattr(self._one, "to", None)
        if callable(move):
            moved = move(device)
            self._one = self._one if moved is None else moved
        elif self._is_taken_up and not _has_state_dict(self._one):
            vars(self._one).update(to_device(vars(self._one), device))
        self._device = device


def detached(value: Any) -> Any:
    """Return predictions without what it would take to differentiate them, which nobody does who measures or listens.

    What has a `detach` of its own is detached by that; containers and dataclasses part by part.
    """
    detach = method_of(value, "detach")
    return remade(value, detached) if detach is None else detach()


def _parts(one: Any) -> dict[str, Any]:
    """Find torchmetrics' metrics in one, by path: itself, those of a collection, those that one wraps."""
    if not callable(getattr(one, "named_modules", None)):
        return {}
    parts = dict(_modules(one))
    return {path: part for path, part in parts.items() if hasattr(part, "update_count")}


def _modules(one: Any) -> Iterator[tuple[str, Any]]:
    for path, module in one.named_modules():
        if hasattr(module, "compute_groups"):  # of a collection: those of a group share what the first one remembers
            module.items()
        yield path, module


def _has_state_dict(one: Any) -> bool:
    return callable(getattr(one, "state_dict", None)) and callable(getattr(one, "load_state_dict", None))


def _device_of(predictions: Any) -> torch.device | None:
    """Say where predictions are: the first tensor in them."""
    if isinstance(predictions, Tensor):
        return predictions.device
    parts = predictions.values() if isinstance(predictions, Mapping) else predictions
    if not isinstance(predictions, Mapping | tuple | list):
        return None
    return next((device for device in map(_device_of, parts) if device is not None), None)
