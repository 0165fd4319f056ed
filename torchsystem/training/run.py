"""A run: what is trained, who hears of it, how long it may take, where it is, and what is done between batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from functools import partial
from weakref import WeakKeyDictionary

from torchsystem.domain import Aggregate
from torchsystem.domain.continuation import take
from torchsystem.domain.plain import Plain
from torchsystem.errors import MismatchedRun, NotAnAggregate
from torchsystem.progress import Progress
from torchsystem.services import Mailbox, Producer, Timers
from torchsystem.training.budget import Budget
from torchsystem.training.cursors import Cursors
from torchsystem.training.events import (
    EpochEnded,
    GradientsUpdated,
    Interrupted,
    Lifecycle,
    OptimizerStepped,
    ProcessStarted,
    TrainingEnded,
    TrainingFailed,
    TrainingStarted,
)
from torchsystem.training.gathered import Gathered
from torchsystem.training.held import generators_of_modules
from torchsystem.training.interrupts import notes
from torchsystem.training.leftover import freeze_again, frozen_of, gradients_of, put_back_gradients
from torchsystem.training.memories import ask_again, asked_for, remembered, remind
from torchsystem.training.owned import optimizations_of
from torchsystem.training.randomness import capture, put_back
from torchsystem.training.tracker import Clock, Tracker

VERSION = 2  # of the form of a run's state

_under_way: WeakKeyDictionary[Aggregate, Run] = WeakKeyDictionary()


class Run:
    """A run in this process.

    Args:
        aggregate: What is trained.
        producer: Who hears of it.
        budget: How long to train, in all.
        clock: What tells seconds.
        timers: What is due by the clock, handed out between batches.
        mailbox: What to let go of at the end of each epoch.
        accept: Names, or patterns with `*`, of what may differ from what an interrupted run began with.

    Attributes:
        split: The split under way.
        expected: How many batches of it there are, from its beginning; None if nobody knows.
        history: The metrics of each epoch.
        is_whole: Whether it is a run of epochs, and not a pass over one split alone.
        is_continued: Whether it goes on from a checkpoint.
    """

    def __init__(  # noqa: PLR0913 - each is one collaborator
        self,
        aggregate: Aggregate,
        producer: Producer,
        budget: Budget,
        *,
        clock: Clock = time.monotonic,
        timers: Timers | None = None,
        mailbox: Mailbox | None = None,
        accept: str | Iterable[str] = (),
    ) -> None:
        budget.check()
        check_aggregate(aggregate)
        self.aggregate = aggregate
        self.producer = producer
        self.budget = budget
        self.timers = timers
        self.mailbox = mailbox
        self.optimizations = optimizations_of(aggregate)
        self.tracker = Tracker(aggregate, clock, self.optimizations)
        self.history: list[dict[str, float]] = []
        self.split: str | None = None
        self.expected: int | None = None
        self.epoch: Gathered | None = None  # what is known of the one under way
        self.is_whole = False
        self.is_continued = False
        self.reason: str | None = None  # why the run is to end, as soon as the facts of the epoch are out
        self.asked: str | None = None  # the same, if somebody asked for it: then it holds for who continues the run
        self.is_cut = False  # the budget was used up between two batches
        self.has_failed = False
        self.has_left = False  # because of a signal
        self.is_in_batch = False  # so that nobody knows whether it was learned from
        self.is_half_told = False  # a listener has failed, so that others may not have heard of what it was told
        self.due: list[Callable[[], object]] = []  # what somebody wants done where it is safe
        self._preparations: list[Callable[[], object]] = []  # of those who keep the run
        self.cursors = Cursors(accept)

    @property
    def position(self) -> int | None:
        """How many batches of the split under way are done; None between splits."""
        return self.cursors.position(self.split)

    def tell(self, kind: type[Lifecycle], *facts: object) -> None:
        """Dispatch an event, if anybody hears it. A stop that a listener asks for is noted, and undone by nobody."""
        if not self.producer.wants(kind):
            return
        try:
            self.producer.dispatch(kind(self.aggregate, self.tracker.progress(), *facts))
        except StopIteration as stop:
            self.stop(stop)
        except BaseException:
            self.is_half_told = True
            raise

    def stop(self, stop: StopIteration) -> None:
        """Note that the run is to end after this epoch, and why; the first who asks is named.

        Raises:
            BaseException: What else failed when the stop was asked for: it is no reason, but a failure.
        """
        if stop.__cause__ is not None:
            raise stop.__cause__
        if self.reason is None:
            self.reason = self.asked = str(stop) or "a stop was asked for"

    def when_safe(self, action: Callable[[], object]) -> None:
        """Have something done at the next safe point: after a batch, or after an epoch, when nothing is under way."""
        self.due.append(action)

    def be_safe(self, split: str | None = None) -> None:
        """Do what is due: hand out timers, do what was asked for, and leave if a signal came.

        Within a batch of another split nothing is safe; what is due stays so until that is done.

        Args:
            split: Of which a batch was done; None between splits.

        Raises:
            InvalidSplit: The run is to go on exactly, and two splits are gone through at the same time.
            SystemExit: A signal came; its code is 128 and the signal's number.
        """
        if split is not None and self.epoch is not None and self.epoch.is_amid(split, exact=self.cursors.are_exact):
            return
        if self.timers is not None:
            for elapsed in self.timers.poll():
                self._hand_out(elapsed)
        leaves = notes.signal is not None and threading.current_thread() is threading.main_thread()
        if leaves:
            self.tell(Interrupted, notes.signal)
        actions = self.due[:]
        self.due.clear()  # the same list: loops look at it
        for action in actions:
            action()
        if leaves:
            self.has_left = True
            self.release()
            notes.leave()

    def keep(self, prepare: Callable[[], object], *, exact: bool = True) -> None:
        """Say, when the process starts, that `state` will be kept: what would not suffice to go on is refused then.

        Listeners that remember something have to be told apart by name, and, where the run is to go on exactly, all
        loaders have to allow that.

        Args:
            prepare: What to do before the first batch; what it raises ends the run.
            exact: Whether the run is to go on exactly.
        """
        self._preparations.append(prepare)
        if exact:
            self.cursors.require_exactness()

    def state(self) -> Plain:
        """Return the whole run, for whoever keeps it beside the aggregate's snapshot, which is to be taken after this.

        Messages that wait for listeners are delivered before.

        Raises:
            NonFiniteLoss: A loss was not finite; what it led to must not be kept.
            UnnamedListener: A listener that remembers something cannot be told apart.
        """
        try:
            self.producer.flush()
        except StopIteration as stop:
            self.stop(stop)
        epoch = self.epoch
        self.tracker.save()
        asking, lost = asked_for(self.aggregate.events.queue)
        return {
            "version": VERSION,
            "asked": self.asked,
            "asking": asking,
            "lost": lost,
            "at": _place(self.tracker.progress()),
            "history": [dict(metrics) for metrics in self.history],
            "randomness": capture(),
            "own": capture(generators_of_modules(self.aggregate)),
            "gradients": gradients_of(self.aggregate, self.optimizations),
            "frozen": frozen_of(self.aggregate),
            "listeners": remembered(self.producer),
            "epoch": None if epoch is None else epoch.state(),
            "loaders": self.cursors.state(() if epoch is None else epoch.entered),
        }

    def begin(self) -> Plain | None:
        """Take up the run that the aggregate was restored from, if there is one, and tell that the run begins.

        Returns:
            The state of the epoch that it was in the middle of; None if it was in none.

        Raises:
            UnnamedListener: The run is to be kept, and a listener that remembers something cannot be told apart.
        """
        state = take(self.aggregate)
        if state is not None:
            self.is_continued = True
            self._load(state)
        self.tell(ProcessStarted)
        if self._preparations:
            remembered(self.producer)
        for prepare in self._preparations:
            prepare()
        if self.aggregate.epoch == 0 and self.tracker.batch == 0:
            self.tell(TrainingStarted)
        if state is None:
            return None
        put_back(state["randomness"])
        put_back(state["own"], generators_of_modules(self.aggregate))
        put_back_gradients(self.aggregate, self.optimizations, state.get("gradients", {}))
        freeze_again(self.aggregate, state.get("frozen", frozen_of(self.aggregate)))
        return state["epoch"]

    def goes_on(self) -> bool:
        """Tell whether there is something left to do; note why not."""
        if self.reason is None:
            self.reason = self.budget.spent(self.tracker, self.aggregate.epoch)
        return self.reason is None

    def waits_for(self, metric: str, reported: Iterable[str]) -> bool:
        """Tell whether a metric may come later: it is of a split of this run that was not due when these came."""
        split = metric.rpartition("/")[0]
        known = split in self.cursors or (self.epoch is not None and split in self.epoch.waiting)
        return known and not any(name.rpartition("/")[0] == split for name in reported)

    def prepare_epoch(self) -> None:
        """Make ready for an epoch: let go of messages of the last one, and count its batches from 0."""
        if self.mailbox is not None and self.history:
            self.mailbox.end_of_epoch()
        self._look_again()
        self.tracker.batch_in_epoch = 0

    def finish(self, epoch: Gathered) -> None:
        """Count the epoch and make its facts known; only then may whoever asked for a stop have it."""
        try:
            self.aggregate.epoch += 1
        except StopIteration as stop:  # from `onepoch`; the epoch counts all the same
            self.stop(stop)
        for optimization in self.optimizations:
            optimization.epoch_ended(epoch.metrics, waiting=epoch.waiting)
        self.tracker.save()
        self.history.append(epoch.metrics)
        self.tell(EpochEnded, epoch.metrics)
        self._commit()
        self.epoch = None
        # What a loop of the user's own has left, or has gone on after, is part of an epoch that counts.
        self.is_in_batch = self.is_half_told = False
        self.be_safe()

    def end(self, reason: str | None) -> None:
        """Tell that the run is over."""
        self.tracker.save()
        self.tell(TrainingEnded, reason)
        if self.mailbox is not None:
            self.mailbox.end_of_epoch()
        self.be_safe()

    def leave(self) -> None:
        """End a loop of the user's own that was left.

        In the middle of a batch nobody knows whether it was learned from, and where a listener has failed, whether the
        others have heard: the run could not go on exactly from there. So nothing is done that waits for a safe point,
        and what was kept before stays the newest.
        """
        if not (self.is_in_batch or self.is_half_told):
            self.end(self.reason or "the loop was left")
            return
        where = "in the middle of a batch" if self.is_in_batch else "when a listener had failed"
        self.tell(TrainingEnded, self.reason or f"the loop was left {where}")
        self.due.clear()
        self.release()

    def fail(self, error: BaseException) -> None:
        """Say that the run failed, and close who listens; what they make of it does not hide the error.

        A run that leaves because of a signal has not failed, and has said so already.
        """
        if notes.is_leaving and isinstance(error, SystemExit):
            self.has_left = True  # a pass over one split, that a listener of this run asked for, said so
        if self.has_left or self.has_failed:
            return
        self.has_failed = True
        self.tracker.save()
        try:
            self.tell(TrainingFailed, error)
        except Exception as failure:  # noqa: BLE001 - the exception that is on its way is the one to see
            error.add_note(f"while saying that the training failed: {failure!r}")
        self.release(error)

    def release(self, error: BaseException | None = None) -> None:
        """Deliver what waits for listeners, and close what they have opened; failures are noted on the error."""
        for close in (self.producer.flush, *(listener.close for listener in self.producer.listeners())):
            try:
                close()
            except Exception as failure:
                if error is None:
                    raise
                error.add_note(f"while closing who listens: {failure!r}")

    @contextmanager
    def under_way(self) -> Generator[None]:
        """Let the run be found by its aggregate."""
        before = _under_way.get(self.aggregate)
        _under_way[self.aggregate] = self
        try:
            yield
        finally:
            self.cursors.clear()
            if before is None:
                _under_way.pop(self.aggregate, None)
            else:
                _under_way[self.aggregate] = before

    @contextmanager
    def learning(self, losses: int | None) -> Generator[None]:
        """Have the optimizations know how many losses are to come, be heard, and finish their last group.

        Args:
            losses: How many batches there are; None if nobody knows.
        """
        gradients = partial(self.tell, GradientsUpdated) if self.producer.wants(GradientsUpdated) else None
        steps = partial(self.tell, OptimizerStepped) if self.producer.wants(OptimizerStepped) else None
        self._look_again()
        for optimization in self.optimizations:
            optimization.listen(gradients, steps)
            optimization.begin(losses)
        try:
            yield
            if not self.is_cut:
                for optimization in self.optimizations:
                    optimization.finish()
        finally:
            for optimization in self.optimizations:
                optimization.listen()

    def _look_again(self) -> None:
        """Find the optimizations that there are now: an epoch may begin with others than the last one."""
        self.optimizations = optimizations_of(self.aggregate)
        self.tracker.follow(self.optimizations)

    def _load(self, state: Plain) -> None:
        if state.get("version") != VERSION:
            message = (
                f"the run that is to go on was kept in the form {state.get('version')!r}, and this version knows "
                f"{VERSION}. Go on with the version of torchsystem that kept it, or restore the aggregate alone."
            )
            raise MismatchedRun(message)
        here, there = _place(self.tracker.progress()), state["at"]
        if here != there:
            message = (
                f"the aggregate has changed since it was restored: the run that is to go on was at {there}, and the "
                f"aggregate is at {here}. Train it right after it was restored; or, to begin a new run with it as it "
                f"is, forget that run: torchsystem.domain.continuation.take(aggregate)."
            )
            raise MismatchedRun(message)
        remind(self.producer, state["listeners"])
        self.reason = self.asked = state["asked"]
        self.history = [dict(metrics) for metrics in state["history"]]
        self.cursors.load(state["loaders"], state["randomness"])
        ask_again(self.aggregate.events.queue, state["asking"], state["lost"])

    def _commit(self) -> None:
        """Let what happened inside the aggregate out; several may have asked for a stop, and none is left for later."""
        while self.aggregate.events.queue:
            try:
                self.aggregate.events.commit()
            except StopIteration as stop:
                self.stop(stop)

    def _hand_out(self, event: object) -> None:
        try:
            self.producer.dispatch(event)
        except StopIteration as stop:
            self.stop(stop)


def check_aggregate(aggregate: object) -> None:
    """Refuse what cannot be trained, nor asked.

    Raises:
        NotAnAggregate: It is something else, such as a network alone.
    """
    if not isinstance(aggregate, Aggregate):
        message = (
            f"a {type(aggregate).__qualname__} is no aggregate. Train Supervised(network, criterion, optimizer), "
            f"or a class of your own: class Model(Aggregate)."
        )
        raise NotAnAggregate(message)


def _place(progress: Progress) -> dict[str, int]:
    return {"epoch": progress.epoch, "batch": progress.batch, "samples": progress.samples}


def under_way(aggregate: Aggregate) -> Run | None:
    """Return the run that trains an aggregate now, for who needs more than its events say; None if none does."""
    return _under_way.get(aggregate)
