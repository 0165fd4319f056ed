"""Where a run is in all of its loaders."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torchsystem.domain.plain import Plain
from torchsystem.training.cursor import Cursor


class Cursors:
    """A cursor for each split, made when its loader is first seen, and put where an interrupted run was.

    Args:
        accept: Names, or patterns with `*`, of what may differ from what an interrupted run began with.

    Attributes:
        are_exact: Whether loaders are refused over which a run cannot be continued exactly.
    """

    def __init__(self, accept: str | Iterable[str]) -> None:
        self._accept = (accept,) if isinstance(accept, str) else tuple(accept)
        self._cursors: dict[str, Cursor] = {}
        self._waiting: dict[str, Plain] = {}  # where loaders were that were not seen yet in this process
        self._randomness: Plain | None = None
        self._put_back: list[Any] = []  # generators that are where they were, of loaders that share them
        self.are_exact = False

    def require_exactness(self) -> None:
        """Refuse, from now on, loaders over which a run cannot be continued exactly."""
        self.are_exact = True

    def __contains__(self, split: str) -> bool:
        """Tell whether a split has a cursor."""
        return split in self._cursors

    def over(self, loader: Iterable[Any], split: str) -> Cursor:
        """Return the cursor over a loader.

        Raises:
            InexactLoader: A run over it cannot be continued exactly, and that is required.
            MismatchedRun: The run goes on, and the loader has other data than it began with.
        """
        known = self._cursors.get(split)
        if known is not None:
            if known.loader is loader:
                return known
            known.close()
        cursor = Cursor(loader, split)
        if self.are_exact:
            cursor.check()
        if split in self._waiting:
            self._put_back += cursor.load(self._waiting.pop(split), self._randomness, self._accepts, self._put_back)
        self._cursors[split] = cursor
        return cursor

    def position(self, split: str | None) -> int | None:
        """Say how many batches of a split are done; None if its loader was not seen."""
        cursor = None if split is None else self._cursors.get(split)
        return None if cursor is None else cursor.position

    def state(self, under_way: Collection[str]) -> dict[str, Plain]:
        """Return where all are, those of the splits under way in the middle of it."""
        seen = {split: cursor.state(under_way=split in under_way) for split, cursor in self._cursors.items()}
        return self._waiting | seen

    def load(self, states: Mapping[str, Plain], randomness: Plain) -> None:
        """Put each where it was, when its loader is seen, with the random numbers that were in use then."""
        self._waiting, self._randomness = dict(states), randomness

    def clear(self) -> None:
        """Let go of the loaders, and with them of workers that stay from epoch to epoch."""
        for cursor in self._cursors.values():
            cursor.close()
        self._cursors.clear()

    def _accepts(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._accept)
