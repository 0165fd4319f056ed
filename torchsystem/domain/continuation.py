"""What waits for an aggregate that was restored: where the run that it was in the middle of goes on.

An aggregate knows nothing of runs. Whoever restores it puts the other half of the checkpoint here, beside the object
and not into it, so that it is no part of its state, nor of its copies; whoever trains it next takes it.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from torchsystem.domain.aggregate import Aggregate
from torchsystem.domain.plain import Plain

_waiting: WeakKeyDictionary[Aggregate, Plain] = WeakKeyDictionary()


def attach(aggregate: Aggregate, run: Plain) -> None:
    """Let the state of a run wait for whoever trains the aggregate next, in place of what waited before.

    Args:
        aggregate: What was restored.
        run: The state of its run, in tensors and plain values; None if there is none.

    Examples:
        >>> from torchsystem import Aggregate
        >>> from torchsystem.domain.continuation import attach, take
        >>> aggregate = Aggregate()
        >>> attach(aggregate, {"position": 3})
        >>> take(aggregate)
        {'position': 3}
        >>> take(aggregate) is None
        True
    """
    if run is None:
        _waiting.pop(aggregate, None)
    else:
        _waiting[aggregate] = run


def take(aggregate: Aggregate) -> Plain | None:
    """Return the state of the run that waits for the aggregate, which is taken once; None if none does."""
    return _waiting.pop(aggregate, None)
