"""Which checkpoints to keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torchsystem.errors import InvalidRetention
from torchsystem.storage.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Retention:
    """Keep the last checkpoints, and the best one.

    Nothing is removed before its successor was read back and found whole; that one always stays.

    Args:
        keep_last: How many of the newest to keep; None keeps all.
        keep_best: A metric and its direction, `("validation/accuracy", "max")`: the checkpoint with the best value is
            kept besides. Its value is that of its own epoch, the one it was saved with. Of equals the oldest is the
            best; one without a value, or with one that is not a number, is not.

    Raises:
        InvalidRetention: It has no meaning.

    Examples:
        >>> from torchsystem.storage import Retention
        >>> retention = Retention(keep_last=3, keep_best=("validation/accuracy", "max"))
    """

    keep_last: int | None = None
    keep_best: tuple[str, Literal["min", "max"]] | None = None

    def __post_init__(self) -> None:
        last, best = self.keep_last, self.keep_best
        if last is not None and (isinstance(last, bool) or not isinstance(last, int) or last < 1):
            message = f"keep_last={last!r} has no meaning. Write a whole number, 1 or more, or None to keep all."
            raise InvalidRetention(message)
        if best is not None and not _is_rule(best):
            message = f"keep_best={best!r} has no meaning. Write ('validation/accuracy', 'max'), or 'min'."
            raise InvalidRetention(message)

    def superfluous(self, checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
        """Return those that are not to be kept, of all there are, from the oldest to the newest."""
        if self.keep_last is None:
            return []
        best = self.best(checkpoints)
        return [checkpoint for checkpoint in checkpoints[: -self.keep_last] if checkpoint != best]

    def best(self, checkpoints: Sequence[Checkpoint]) -> Checkpoint | None:
        """Return the one with the best value of the metric; None if none has any, or none is asked for."""
        if self.keep_best is None:
            return None
        metric, direction = self.keep_best
        sign = 1 if direction == "max" else -1
        values = [
            (sign * checkpoint.metrics[metric], -checkpoint.number, checkpoint)
            for checkpoint in checkpoints
            if not math.isnan(checkpoint.metrics.get(metric, math.nan))
        ]
        return max(values, key=lambda value: value[:2])[2] if values else None


def _is_rule(best: object) -> bool:
    return isinstance(best, tuple) and len(best) == 2 and isinstance(best[0], str) and best[1] in ("min", "max")  # noqa: PLR2004
