"""The keeper of a run: whoever sees to it that its folder stays its own, and its mailbox is emptied in time."""

from __future__ import annotations

import logging
from collections.abc import Callable

from torchsystem.services import Consumer, Mailbox, handler
from torchsystem.training.events import EpochEnded, EpochStarted
from torchsystem.training.run import under_way

logger = logging.getLogger(__name__)

FIRST = -10_000  # before anybody writes


class Keeper(Consumer):
    """Whoever sees to it that a run keeps its folder, and that its mailbox is emptied in time.

    Args:
        check: What raises when the folder is lost.
        box: The mailbox.
    """

    def __init__(self, check: Callable[[], None], box: Mailbox) -> None:
        super().__init__("experiment")
        self._check = check
        self._box = box
        self._is_epoch_over = False

    @handler(order=FIRST)
    def end_epoch(self, event: EpochEnded) -> None:
        """Make sure that the folder is still ours; a run does so where it is safe, and fails with the very error."""
        self._is_epoch_over = True
        run = under_way(event.aggregate)
        if run is None:
            self._look()
        else:
            run.when_safe(self._look)

    @handler(order=FIRST)
    def begin_epoch(self, event: EpochStarted) -> None:  # noqa: ARG002 - that it begins
        """Let go of messages of the epoch before."""
        if self._is_epoch_over:
            self._is_epoch_over = False
            self._box.end_of_epoch()

    def _look(self) -> None:
        try:
            self._check()
        except OSError as error:  # a disk that is away for a while is no reason for a run to end
            logger.warning("Whether the folder is still ours cannot be told: %s", error)
