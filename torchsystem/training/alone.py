"""Who learns now: an aggregate can be trained by one at a time, for two would count and step over one another."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from weakref import WeakSet

from torchsystem.domain import Aggregate
from torchsystem.errors import AlreadyTraining

_lock = threading.Lock()
_learning: WeakSet[Aggregate] = WeakSet()


@contextmanager
def learning_alone(aggregate: Aggregate) -> Generator[None]:
    """Let nobody else train an aggregate for a block, be it one of its own listeners or another thread.

    Raises:
        AlreadyTraining: Somebody does.

    Examples:
        >>> from torchsystem import Aggregate
        >>> aggregate = Aggregate()
        >>> with learning_alone(aggregate), learning_alone(aggregate):
        ...     pass
        Traceback (most recent call last):
        ...
        torchsystem.errors.AlreadyTraining: this Aggregate is being trained already. A listener may validate or \
predict with it; to train in parallel, give each thread a copy.deepcopy of its own.
    """
    with _lock:
        if aggregate in _learning:
            message = (
                f"this {type(aggregate).__qualname__} is being trained already. A listener may validate or predict "
                f"with it; to train in parallel, give each thread a copy.deepcopy of its own."
            )
            raise AlreadyTraining(message)
        _learning.add(aggregate)
    try:
        yield
    finally:
        with _lock:
            _learning.discard(aggregate)
