"""Batches: tuples, mappings or objects, and what a loop has to know of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from torchsystem.errors import InvalidBatch, InvalidLoss
from torchsystem.training.remade import method_of, remade

R = TypeVar("R")
_SEQUENCES = (tuple, list)
_CONTAINERS = (tuple, list, Mapping)


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
    """Count the samples of a batch: its own length, if it is an object that has one, else that of what is in it.

    That is the length of the first tensor or array; a tensor without dimensions has none, and is one sample where no
    other says more. Where there is no tensor, it is the length of the first list in it, such as one of texts.

    Raises:
        InvalidBatch: Nothing in it has a length.
    """
    if type(batch) in _SEQUENCES and batch and type(batch[0]) is Tensor and batch[0].ndim:
        return batch[0].size(0)  # the usual batch, in a fraction of the time that looking for it takes
    if not isinstance(batch, (Tensor, *_CONTAINERS)) and hasattr(batch, "__len__"):
        return len(batch)
    parts = batch if isinstance(batch, (Tensor, *_CONTAINERS)) else _attributes(batch)
    length = next(_lengths(parts), None)
    if length is None:
        message = f"{type(batch).__qualname__}: nobody can tell how many samples it has. Give it a `__len__`."
        raise InvalidBatch(message)
    return length


def _lengths(value: Any) -> Iterator[int]:
    """Yield what may be the number of samples, the best first."""
    leaves = [*_leaves(value)]
    yield from (length for length in map(_length, leaves) if length is not None)
    yield from (1 for leaf in leaves if isinstance(leaf, Tensor))
    yield from (len(part) for part in _parts(value) if isinstance(part, tuple | list) and part)


def _length(leaf: Any) -> int | None:
    if isinstance(leaf, Tensor):
        return leaf.size(0) if leaf.dim() else None  # nested ones have no `len`
    return len(leaf) if hasattr(leaf, "__len__") and getattr(leaf, "shape", None) != () else None


def _leaves(value: Any) -> Iterator[Any]:
    """Yield what is in a batch and has a length of its own: tensors, arrays, objects; no texts, which have letters."""
    if isinstance(value, PackedSequence):
        yield range(int(value.batch_sizes[0]))  # these are on the CPU always
    elif isinstance(value, _CONTAINERS):
        for part in _parts(value):
            yield from _leaves(part)
    elif not isinstance(value, str | bytes):
        yield value


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, Mapping) else value


def _attributes(value: Any) -> list[Any]:
    if is_dataclass(value):
        return [getattr(value, field.name) for field in fields(value)]  # some have slots
    return [*getattr(value, "__dict__", {}).values()]


def count(loader: Any, limit: int | None) -> int | None:
    """Count the batches that a loader will give; None if nobody knows before."""
    try:
        length = len(loader)
    except (TypeError, NotImplementedError):
        return None
    return length if limit is None else min(length, limit)


def targets_of(aggregate: Any) -> Callable[[Any], Any]:
    """Return what tells what was to be predicted: the aggregate, else the last item of a sequence, else None."""
    tells = getattr(aggregate, "targets", None)
    return tells if callable(tells) else _last


def _last(batch: Any) -> Any:
    return batch[-1] if isinstance(batch, tuple | list) else None


def inputs_of(batch: Any, targets: Any) -> Any:
    """Return a batch without its targets: what is predicted from. A sequence of one item has no targets.

    Args:
        batch: The batch.
        targets: What is in it as targets: an item, or several of them in a sequence or a mapping; None for nothing.
    """
    if targets is None and isinstance(batch, _CONTAINERS):
        return dict(batch) if isinstance(batch, Mapping) else tuple(batch)
    several = _parts(targets) if isinstance(targets, _CONTAINERS) else ()
    left_out = {id(targets), *map(id, several)}
    if isinstance(batch, Mapping):
        return {key: value for key, value in batch.items() if id(value) not in left_out}
    if isinstance(batch, tuple | list) and len(batch) > 1:
        if batch[-1] is targets:
            return tuple(batch[:-1])  # an autoencoder's may be the inputs too
        return tuple(item for item in batch if id(item) not in left_out)
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

    Copies from pinned memory do not wait. What has a `to` of its own is brought by that; containers and dataclasses
    part by part. Anything else stays as it is.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    moves = method_of(batch, "to")
    return remade(batch, lambda part: to_device(part, device)) if moves is None else moves(device)
