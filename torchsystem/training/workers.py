"""What a loader's workers do so that nobody can tell how many there are: they seed for each batch.

A worker fetches whatever batches it is given. If its random numbers went on from one to the next, they would depend on
which those were; so they begin anew with each, from the seed of the epoch and the number of the batch in it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from torch.utils.data import get_worker_info

from torchsystem.training.randomness import seed_quickly

_ODD = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: neighbours are far apart when multiplied by it


class Numbered(list[Any]):
    """The indices of one batch, with the seed to fetch it by."""

    def __init__(self, indices: Any, seed: int) -> None:
        super().__init__(indices)
        self.seed = seed

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self), self.seed)


def seed_of(epoch_seed: int, number: int) -> int:
    """Return the seed of one batch."""
    return (epoch_seed + number * _ODD) % 2**64


class Seeded:
    """A data set that seeds before it gives a batch.

    Args:
        dataset: The data set.
        is_batched: Whether it is asked for batches, or for one sample at a time.

    Attributes:
        look: What to do when the first batch of a worker is there, with the data set in this process.
    """

    def __init__(self, dataset: Any, *, is_batched: bool) -> None:
        self.dataset = dataset
        self.is_batched = is_batched
        self.look: Callable[[Any], object] | None = None

    def __getitems__(self, batch: Numbered) -> Any:
        """Fetch a batch as torch does: at once if the data set can, else one by one."""
        seed_quickly(batch.seed)
        fetched = self._fetch(batch)
        if self.look is not None:
            self.look(self.dataset)
            self.look = None
        return fetched

    def _fetch(self, batch: Numbered) -> Any:
        if not self.is_batched:
            return self.dataset[batch[0]]
        at_once = getattr(self.dataset, "__getitems__", None)
        return at_once(list(batch)) if at_once else [self.dataset[index] for index in batch]

    __getitem__ = __getitems__  # what torch calls where a loader makes no batches

    def __len__(self) -> int:
        return len(self.dataset)


class Prepared:
    """What runs in a worker before its first batch: the user's own preparation, which sees the user's own data set."""

    def __init__(self, prepare: Callable[[int], object] | None) -> None:
        self._prepare = prepare

    def __call__(self, number: int) -> None:
        """Leave the terminal's interrupt to the main process, which decides; then do what the user wants done."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        info: Any = get_worker_info()
        seeded = info.dataset
        object.__setattr__(info, "dataset", seeded.dataset)  # torch refuses to assign it
        if self._prepare is not None:
            self._prepare(number)
            seeded.dataset = info.dataset
