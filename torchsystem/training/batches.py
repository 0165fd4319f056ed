"""Batches: tuples, mappings or objects, and what a loop has to know of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from torchsystem.errors import InvalidBatch, InvalidLoss

R = TypeVar("R")
_SEQUENCES = (tuple, list)


def call(function: Callable[..., R], batch: Any) -> R:
    """Call an aggregate's `fit` or `evaluate`: with `*batch`, with `**batch` for a mapping, or with the batch."""
    if type(batch) in _SEQUENCES or isinstance(batch, tuple | list):
        return function(*batch)
    return function(**batch) if isinstance(batch, Mapping) else function(batch)


def refuse_outcome(method: str, outcome: object) -> NoReturn:
    """Refuse what an aggregate's `fit` or `evaluate` returned, which is not predictions and loss.

    Raises:
        InvalidLoss: Always.
    """
    message = f"{method} returned a {type(outcome).__qualname__}. Let it return two things: predictions, loss."
    raise InvalidLoss(message) from None


def samples_in(batch: Any) -> int:
    """Count the samples of a batch: the length of the first tensor in it.

    Raises:
        InvalidBatch: There is no tensor in it, and it has no length either.
    """
    if type(batch) in _SEQUENCES and type(batch[0]) is Tensor and batch[0].ndim:
        return batch[0].size(0)  # the usual batch, in a fraction of the time that `len` takes
    first: Any = batch
    while not isinstance(first, Tensor):
        if isinstance(first, tuple | list) and first:
            first = first[0]
        elif isinstance(first, Mapping) and first:
            first = next(iter(first.values()))
        elif hasattr(first, "__len__"):
            return len(first)
        else:
            message = f"{type(batch).__qualname__}: nobody can tell how many samples it has. Give it a `__len__`."
            raise InvalidBatch(message)
    return len(first) if first.ndim else 1


def count(loader: Any, limit: int | None) -> int | None:
    """Count the batches that a loader will give; None if nobody knows before."""
    try:
        length = len(loader)
    except TypeError:
        return None
    return length if limit is None else min(length, limit)


def targets_of(aggregate: Any) -> Callable[[Any], Any]:
    """Return what tells what was to be predicted: the aggregate, else the last item of a sequence, else None."""
    tells = getattr(aggregate, "targets", None)
    return tells if callable(tells) else _last


def _last(batch: Any) -> Any:
    return batch[-1] if isinstance(batch, tuple | list) else None


def inputs_of(batch: Any, targets: Any) -> Any:
    """Return a batch without its targets: what is predicted from. A sequence of one item has no targets."""
    if isinstance(batch, Mapping):
        return {key: value for key, value in batch.items() if value is not targets or targets is None}
    if isinstance(batch, tuple | list) and len(batch) > 1:
        if batch[-1] is targets:
            return tuple(batch[:-1])  # an autoencoder's may be the inputs too
        return tuple(item for item in batch if item is not targets or targets is None)
    return batch


def joined(values: Sequence[Any]) -> Any:
    """Join what came of each batch: tensors along their first dimension, tuples and mappings part by part.

    Anything else stays a list.

    Examples:
        >>> joined([torch.tensor([1, 2]), torch.tensor([3])])
        tensor([1, 2, 3])
    """
    first: Any = values[0] if values else None
    if isinstance(first, Tensor):
        return torch.cat(list(values)) if first.ndim else torch.stack(list(values))
    if isinstance(first, Mapping):
        return {key: joined([value[key] for value in values]) for key in first}
    if isinstance(first, tuple):
        return tuple(joined(parts) for parts in zip(*values, strict=True))
    return list(values)


def to_device(batch: Any, device: torch.device) -> Any:
    """Bring a batch to a device; what is there already stays the same object.

    Copies from pinned memory do not wait. What is neither a tensor nor made of them stays as it is, unless it has a
    `to` of its own.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        made: Any = type(batch)
        return made({key: to_device(value, device) for key, value in batch.items()})
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*_all_to(batch, device))
    if isinstance(batch, tuple | list):
        return type(batch)(_all_to(batch, device))
    moves = getattr(batch, "to", None)
    return moves(device) if callable(moves) else batch


def _all_to(items: Iterable[Any], device: torch.device) -> Iterable[Any]:
    return [to_device(item, device) for item in items]
