"""The modes of an aggregate's modules: training or evaluation, each for itself, kept over a question."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from torchsystem.domain import Aggregate


@contextmanager
def modes_kept(aggregate: Aggregate) -> Generator[None]:
    """Leave the phase of an aggregate, and the mode of each of its modules, as they were before the block.

    Examples:
        >>> from torchsystem import Aggregate
        >>> aggregate = Aggregate()
        >>> with modes_kept(aggregate):
        ...     aggregate.phase = "evaluation"
        >>> aggregate.phase
        'train'
    """
    phase, modes = aggregate.phase, [(module, module.training) for module in aggregate.modules()]
    try:
        yield
    finally:
        aggregate.phase = phase  # so that `onphase` hears of it
        for module, mode in modes:
            module.training = mode
