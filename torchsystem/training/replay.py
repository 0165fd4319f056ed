"""The order of an epoch: drawn for the first time, or drawn again from the random numbers as they were then."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

from torch import Tensor

from torchsystem.domain.plain import Plain
from torchsystem.training.randomness import capture, put_back
from torchsystem.training.twin import Draw

MARGIN = 1000  # batches, by which the length that a sampler tells may be wrong


class Moment(NamedTuple):
    """The states of all generators that may be drawn from: those in use, and those that a loader holds."""

    common: Plain
    own: Plain

    @classmethod
    def now(cls, own: Mapping[str, Any]) -> Moment:
        """Take it, of the generators in use and of these."""
        return cls(capture(), capture(own))

    def put_back(self, own: Mapping[str, Any]) -> None:
        """Let them be as they were."""
        put_back(self.common)
        put_back(self.own, own)


class Replay:
    """Draw an epoch when a loader wants it, and leave random numbers as the next batch is to find them.

    Args:
        own: The generators that the loader holds.
        kept: Where the loader was, if a run goes on with it.
        label: What parts the seed of this epoch from those of others that begin with the same random numbers.
        expected: How many batches the sampler says it has. One may have a few more; one that gives far more may have
            no end, and is drawn from while it is gone through.

    Attributes:
        opening: The random numbers when the epoch was begun, and when it was drawn; None until then.
        drawn_at: Those in use when it was drawn, and the next batch not yet fetched; None until then.
        is_endless: Whether the sampler gave so many batches that it was not drawn to its end.
    """

    def __init__(self, own: Mapping[str, Any], kept: Plain, label: str, expected: int) -> None:
        self._own = own
        self._label = label
        self._bound = 2 * expected + MARGIN
        self.is_endless = False
        self._then: Plain = kept["opening"] if "position" in kept else None  # of an epoch that another process opened
        self._now: Moment | None = kept.get("now") if "position" in kept else None
        self._undone = Moment.now(own) if self._then is None and kept.get("workers_stay") else None
        self.opening: Plain = None
        self.drawn_at: Plain = None

    def begin(self, sampler: Iterable[Any]) -> Draw:
        """Begin to iterate over a sampler as when the epoch was opened; it may draw already."""
        if self._then is not None:
            Moment(**self._then["begun"]).put_back(self._own)
        elif self._undone is not None:
            self._undone.put_back(self._own)  # workers that stay draw no seed for themselves, as new ones do
        begun = Moment.now(self._own)
        order = iter(sampler)
        after = None if self._undone is None else Moment.now(self._own)
        return partial(self._draw, order, begun, after)

    def _draw(self, order: Iterator[Any], begun: Moment, after: Moment | None) -> tuple[Iterable[Any], int]:
        """Draw the epoch as then."""
        if self._then is not None:
            Moment(**self._then["drawing"]).put_back(self._own)
        elif after is not None:
            after.put_back(self._own)
        drawing = Moment.now(self._own)
        self.opening = {"begun": begun._asdict(), "drawing": drawing._asdict()}
        drawn = list(islice(order, self._bound))
        self.is_endless = len(drawn) == self._bound
        if self._now is not None:
            self._now.put_back(self._own)
        self.drawn_at = capture()
        return chain(drawn, order), _seed_from(drawing, self._label)


def _seed_from(moment: Moment, label: str) -> int:
    """Return a seed that is as random as a moment, without drawing one; another for each label."""
    digest = hashlib.sha256(label.encode())
    _digest(moment, digest.update)
    return int.from_bytes(digest.digest()[:8], "little")


def _digest(state: Plain, update: Callable[[bytes], object]) -> None:
    if isinstance(state, Tensor):
        update(state.numpy().tobytes())
    elif isinstance(state, dict):
        for name in sorted(state):
            _digest(state[name], update)
    elif isinstance(state, list | tuple):
        for value in state:
            _digest(value, update)
    else:
        update(repr(state).encode())
