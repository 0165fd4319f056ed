"""Holding a plan: one runner at a time, which is heard of as long as it lives."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from torchsystem.errors import PlanBusy, PlanTakenOver
from torchsystem.plans.ports import JournalPort, Lease
from torchsystem.plans.workers import Worker, acting

BEATS = 4  # in the time after which a runner that is not heard of counts as dead

logger = logging.getLogger("torchsystem.plans")


class Hold:
    """A lease that is held: its number, and whether it still is."""

    def __init__(self, journal: JournalPort, plan: str, number: int) -> None:
        self.number = number
        self._journal = journal
        self._plan = plan
        self._lost: str | None = None

    def check(self) -> None:
        """Refuse to go on without the lease.

        Raises:
            PlanTakenOver: It is lost.
        """
        if self._lost is not None:
            message = f"the runner of plan {self._plan!r} lost its lease: {self._lost}. Steps under way are not lost."
            raise PlanTakenOver(message)

    def beat(self, now: float) -> None:
        """Be heard of once."""
        if not self._journal.beat(self._plan, self.number, now):
            self._lost = "another runner has taken over"

    @property
    def is_lost(self) -> bool:
        """Whether another has taken over."""
        return self._lost is not None


@contextmanager
def holding(journal: JournalPort, plan: str, lapse: float, clock: Callable[[], float]) -> Generator[Hold]:
    """Hold the lease of a plan for the length of a block.

    Raises:
        PlanBusy: Another runner holds it.
    """
    process = os.getpid()
    with acting() as owner:
        hold = Hold(journal, plan, _take(journal, plan, owner, lapse, clock))
        ended = threading.Event()
        beating = threading.Thread(
            target=_beat, args=(hold, ended, lapse / BEATS, clock), name=f"heartbeat of plan {plan}", daemon=True
        )
        try:
            beating.start()
            yield hold
        finally:
            ended.set()
            if os.getpid() == process:  # a child that a step has forked does not give back what is its parent's
                beating.join()
                journal.release(plan, hold.number)


def _beat(hold: Hold, ended: threading.Event, pause: float, clock: Callable[[], float]) -> None:
    while not ended.wait(pause) and not hold.is_lost:
        try:
            hold.beat(clock())
        except Exception as error:  # noqa: BLE001 - a full disk, or others that write: the next beat may come through
            logger.warning("the heartbeat of %s failed: %s", threading.current_thread().name, error)


def _take(journal: JournalPort, plan: str, owner: str, lapse: float, clock: Callable[[], float]) -> int:
    """Take the lease of a plan, also from who is dead."""
    lease = journal.acquire(plan, owner, clock())
    while lease.owner is not None and lease.owner != owner:
        if not _is_over(lease, lapse, clock()):
            raise PlanBusy(_busy(plan, lease, lapse, clock()))
        lease = journal.acquire(plan, owner, clock(), instead_of=lease.number)
    return lease.number


def _is_over(lease: Lease, lapse: float, now: float) -> bool:
    """Tell whether the owner of a lease is dead, or is to be taken for it."""
    alive = Worker.read(lease.owner or "").is_alive()
    return now - lease.heartbeat > lapse if alive is None else not alive


def _busy(plan: str, lease: Lease, lapse: float, now: float) -> str:
    owner = Worker.read(lease.owner or "")
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(lease.since))
    until = "that is done, or end it" if owner.is_alive() else f"it was not heard of for {lapse:g} seconds"
    return (
        f"plan {plan!r} is being run by {owner.describe()} since {since}, last heard of {now - lease.heartbeat:.0f} "
        f"seconds ago. Wait until {until}; or give this run a journal of its own."
    )
