"""A unit of work: a change of an aggregate and the events that tell of it, together or not at all.

It is the pattern of "Patterns of Enterprise Application Architecture" by Martin Fowler. Leaving the block commits;
an error drops all.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, cast

import torch
from torch import Tensor
from torch.nn import Module

from torchsystem.domain import Aggregate
from torchsystem.errors import InvalidUnit, UnitOver
from torchsystem.services import Producer
from torchsystem.storage.description import unwrapped


class Unit:
    """Hold back the events of a change until its state is stored.

    At a commit the state is stored first; then the events leave, in the order in which they were dispatched; then the
    aggregate's own are committed. An error inside the block, or in storing, puts the aggregate back into the state, and
    its queue of events into the order, that they had at the last commit, and drops the events. What is stored is not
    undone by a listener that fails afterwards.

    Leaving the block commits what was not committed yet. Units do not nest: what one inside another has stored stays
    stored, whatever becomes of the outer one.

    Args:
        aggregate: What changes.
        producer: Where events go.
        store: Stores the aggregate.

    Raises:
        InvalidUnit: These are no aggregate, or no producer.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from torchsystem import Aggregate
        >>> from torchsystem.services import Producer
        >>> from torchsystem.storage import Repository
        >>> aggregate, producer = Aggregate(), Producer()
        >>> with TemporaryDirectory() as folder, Repository(folder) as repository:
        ...     with repository.unit(aggregate, producer) as unit:
        ...         aggregate.epoch += 1
        ...         unit.dispatch("the epoch is over")
        ...     print(len(repository.checkpoints(aggregate)))
        1
    """

    def __init__(self, aggregate: Aggregate, producer: Producer, store: Callable[[], object]) -> None:
        aggregate = cast("Aggregate", unwrapped(aggregate)) if isinstance(aggregate, Module) else aggregate
        if not isinstance(aggregate, Aggregate) or not callable(getattr(producer, "dispatch", None)):
            message = f"repository.unit({aggregate!r}, {producer!r}): write an aggregate, and a producer of events."
            raise InvalidUnit(message)
        self._aggregate = aggregate
        self._producer = producer
        self._store = store
        self._events: list[object] = []
        self._baseline: dict[str, Any] | None = None
        self._queue: list[object] = []
        self._committed = False

    def dispatch(self, event: object, /) -> None:
        """Dispatch an event when the unit is committed.

        Raises:
            UnitOver: The block was not entered, or is over.
        """
        self._inside()
        self._events.append(event)

    def commit(self) -> None:
        """Store the state, then let the events go; the unit goes on from here.

        Raises:
            UnitOver: The block was not entered, or is over.
            BaseException: What storing raises, when all is as it was; or what a listener raises, when it is stored.
        """
        self._inside()
        try:
            self._store()
        except BaseException:
            self.rollback()
            raise
        events, self._events = self._events, []
        self._begin()
        self._committed = True
        try:
            for event in events:
                self._producer.dispatch(event)
            self._aggregate.events.commit()
        finally:
            self._queue = list(self._aggregate.events.queue)

    def rollback(self) -> None:
        """Drop the events, and put the aggregate back to where it was at the last commit, or at the beginning.

        Raises:
            UnitOver: The block was not entered, or is over.
        """
        baseline = self._inside()
        self._events.clear()
        queue = self._aggregate.events.queue
        queue.clear()
        queue.extend(self._queue)
        self._aggregate.restore(baseline)

    def __enter__(self) -> Self:
        """Remember the state to go back to.

        Raises:
            UnitOver: It was entered before.
        """
        if self._baseline is not None:
            message = "this unit of work has begun already. Make another: repository.unit(aggregate, producer)."
            raise UnitOver(message)
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self.rollback()
            elif not self._committed or self._has_changed():
                self.commit()
        finally:
            self._baseline = None

    def _begin(self) -> None:
        self._baseline = self._aggregate.snapshot()
        self._queue = list(self._aggregate.events.queue)

    def _has_changed(self) -> bool:
        queue = list(self._aggregate.events.queue)
        if self._events or len(queue) != len(self._queue):
            return True
        return not _equal(self._aggregate.snapshot(), self._baseline)

    def _inside(self) -> dict[str, Any]:
        if self._baseline is None:
            message = "a unit of work is used in its block: `with repository.unit(aggregate, producer) as unit:`."
            raise UnitOver(message)
        return self._baseline


def _equal(one: Any, other: Any) -> bool:
    """Compare plain data, to the bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other) and bool(one == other)
