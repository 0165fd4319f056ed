"""Which loaders a run over them can be continued exactly with, and what stands in the way of the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch.utils.data import DataLoader, IterableDataset

from torchsystem.training.twin import can_replay


def obstacle(loader: object, held: Iterable[str]) -> str:
    """Say why a run over a loader cannot be continued exactly, and what to do; nothing if it can.

    Args:
        loader: The loader.
        held: The paths of the generators of random numbers that it holds.
    """
    if has_state(loader) or has_items(loader):
        return ""
    if not isinstance(loader, DataLoader):
        kind = type(loader).__qualname__
        return f"nobody can tell where a {kind} goes on. Give it state_dict and load_state_dict, or use a DataLoader"
    return _of_data_loader(loader, held)


def made_while_fetching(held: Iterable[str]) -> str:
    """Say that generators were made when the first batch was fetched, where nobody can put them back; or nothing.

    Args:
        held: The paths of the generators that were not there before.
    """
    fetching = _fetching(held)
    if not fetching:
        return ""
    return (
        f"what fetches its batches makes generators of its own when it is first asked ({fetching}), which nobody can "
        f"put back. Draw from the global ones, which are seeded for each batch in workers, or make it in __init__ and "
        f"use num_workers=0"
    )


def inexact(split: str, why: str) -> str:
    """Say that a run over a loader cannot be continued exactly, and what else can be done about it."""
    return (
        f"the loader of {split!r} cannot be continued exactly: {why}. Or accept that a run that "
        f"goes on may differ from one left alone: Checkpoints(..., exact=False)."
    )


def has_items(loader: object) -> bool:
    """Tell whether any of its batches can be asked for."""
    return isinstance(loader, Sequence) and not isinstance(loader, str | bytes)


def has_state(loader: object) -> bool:
    """Tell whether it knows itself where it is, as torchdata's `StatefulDataLoader` does."""
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def _of_data_loader(loader: DataLoader[object], held: Iterable[str]) -> str:
    if isinstance(loader.dataset, IterableDataset):
        return "its data set can only be iterated. Use torchdata's StatefulDataLoader, which keeps its state"
    if loader.num_workers and not loader.in_order:
        return "its workers hand out batches in any order. Leave in_order=False out"
    if not can_replay(loader):
        return "its sampler has no length. Give it a __len__"
    fetching = _fetching(held)
    if loader.num_workers and fetching:
        return (
            f"what fetches its batches holds generators ({fetching}), of which each worker has a copy. Draw from the "
            f"global ones, which are seeded for each batch, or use num_workers=0"
        )
    return ""


def _fetching(held: Iterable[str]) -> str:
    """Name those of the paths that lead into what fetches batches."""
    return ", ".join(sorted(name for name in held if name.startswith(("dataset.", "collate_fn."))))
