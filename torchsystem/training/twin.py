"""A shallow copy of a `DataLoader` that draws the order of an epoch at once, and may begin anywhere in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from copy import copy
from itertools import islice
from typing import Any, TypeAlias

from torch.utils.data import DataLoader, IterableDataset

from torchsystem.training.workers import Numbered, Prepared, Seeded, seed_of

# Draws an epoch; returns it, and the seed of what is random when it is fetched.
Draw: TypeAlias = Callable[[], tuple[Iterable[Any], int]]
# Begins to iterate over a sampler, which may draw already or only when it is asked for the first batch.
Begin: TypeAlias = Callable[[Iterable[Any]], Draw]


class Twin:
    """Go through the data of a loader, with its workers, its collation and its sampler, from any batch on.

    Args:
        loader: The loader, which is left as it is.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        is_batched = loader.batch_sampler is not None
        self._has_workers = loader.num_workers > 0
        sampler = loader.batch_sampler if is_batched else loader.sampler
        self._sampler = _Drawn(sampler, numbered=self._has_workers, is_batched=is_batched)
        self._loader: DataLoader[Any] = copy(loader)
        changed = vars(self._loader)  # torch refuses to assign these to a loader that is made
        changed["_iterator"] = None
        changed["batch_sampler" if is_batched else "sampler"] = self._sampler
        self._seeded = Seeded(loader.dataset, is_batched=is_batched)
        if self._has_workers:
            changed["dataset"] = self._seeded
            changed["worker_init_fn"] = Prepared(loader.worker_init_fn)

    @property
    def has_workers(self) -> bool:
        """Whether other processes fetch."""
        return self._has_workers

    @property
    def keeps_workers(self) -> bool:
        """Whether workers stay from one epoch to the next."""
        return self._has_workers and self._loader.persistent_workers

    @property
    def batches(self) -> int:
        """How many batches an epoch has."""
        return len(self._loader) + self._sampler.start

    @property
    def is_running(self) -> bool:
        """Whether workers stay from the last epoch, and so will not draw a seed for themselves in the next."""
        return vars(self._loader)["_iterator"] is not None

    def look(self, look: Callable[[Any], object]) -> None:
        """Have each worker look at its data set, when its first batch is there; what that raises, the loop raises."""
        self._seeded.look = look

    def close(self) -> None:
        """Let go of workers that stay, now and not when garbage is collected, which may be in any thread."""
        self._sampler.begin = _all_at_once
        vars(self._loader)["_iterator"] = None

    def open(self, begin: Begin, position: int) -> Iterator[Any]:
        """Return the batches of an epoch from a position on.

        Args:
            begin: Begins to draw the epoch, at the moment when a plain loop would.
            position: How many of its batches are left out; they are not fetched.
        """
        self._sampler.begin, self._sampler.start = begin, position
        return iter(self._loader)


def can_replay(loader: object) -> bool:
    """Tell whether a loader has an order that can be drawn whole, and kept."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return False
    if loader.num_workers and not loader.in_order:
        return False
    return has_length(loader.sampler if loader.batch_sampler is None else loader.batch_sampler)


def has_length(sampler: object) -> bool:
    """Tell whether a sampler ends, as far as one can ask."""
    try:
        return isinstance(sampler, Sized) and len(sampler) >= 0
    except (TypeError, NotImplementedError):  # a batch sampler has a length only if what it samples from has one
        return False


def _all_at_once(sampler: Iterable[Any]) -> Draw:
    return lambda: (list(sampler), 0)


class _Drawn:
    """Stand in for a sampler: draw all it gives, and hand out what comes from some position on."""

    def __init__(self, sampler: Any, *, numbered: bool, is_batched: bool) -> None:
        self._sampler = sampler
        self._numbered = numbered
        self._is_batched = is_batched
        self.begin: Begin = _all_at_once
        self.start = 0

    def __iter__(self) -> Iterator[Any]:
        return self._from(self.begin(self._sampler))  # samplers may draw now, or when they are asked

    def __len__(self) -> int:
        return max(0, len(self._sampler) - self.start)

    def _from(self, draw: Draw) -> Iterator[Any]:
        drawn, seed = draw()
        for number, indices in islice(enumerate(drawn), self.start, None):
            if self._numbered:
                yield Numbered(indices if self._is_batched else [indices], seed_of(seed, number))
            else:
                yield indices
