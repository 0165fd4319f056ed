"""The contract of journals of plans, as tests: whoever writes another kind of journal runs them on it."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

from torchsystem.errors import PlanTakenOver
from torchsystem.plans import JournalPort
from torchsystem.plans.ports import Lease, Record
from torchsystem.testing.transactions import TransactionContract, a_step

__all__ = ["JournalContract", "a_step"]


class JournalContract(TransactionContract):
    """What every journal keeps. Subclass it where pytest looks, and say how to make one.

    Other processes open a journal that is sent to them, by pickling: where one is opened in another way, `reopen` says
    how.

    Attributes:
        meeting: How many seconds a transaction stays open for another to come in, which it must not.

    Examples:
        >>> from torchsystem.plans import JournalPort, MemoryJournal
        >>> from torchsystem.testing import JournalContract
        >>> class TestMemoryJournal(JournalContract):
        ...     def make(self) -> JournalPort:
        ...         return MemoryJournal()
    """

    def _enrolled(self, *records: Record) -> tuple[JournalPort, int]:
        journal = self.make()
        number = journal.acquire("plan", "me", 1.0).number
        journal.enroll("plan", number, records)
        return journal, number

    def test_it_begins_empty(self) -> None:
        """A plan that was never run has no lease and no steps."""
        journal = self.make()
        assert journal.lease("plan") == Lease()
        assert journal.records("plan") == []

    def test_one_holds_the_lease(self) -> None:
        """Who comes second gets to know who came first; a lease that was given back can be taken, with a new number."""
        journal = self.make()
        first = journal.acquire("plan", "me", 1.0)
        assert (first.owner, first.number, first.since, first.heartbeat) == ("me", 1, 1.0, 1.0)
        assert journal.acquire("plan", "you", 2.0) == first
        assert journal.acquire("another", "you", 2.0).owner == "you"
        journal.release("plan", first.number)
        assert journal.acquire("plan", "you", 3.0) == Lease(2, "you", 3.0, 3.0)

    def test_a_lease_is_taken_over_once(self) -> None:
        """Of two who want to replace the same owner, the second finds the first."""
        journal = self.make()
        dead = journal.acquire("plan", "dead", 1.0)
        assert journal.acquire("plan", "me", 2.0, instead_of=dead.number).owner == "me"
        assert journal.acquire("plan", "you", 2.0, instead_of=dead.number).owner == "me"

    def test_a_heartbeat_is_that_of_the_holder(self) -> None:
        """Who lost the lease learns it at the next beat, and can no more give it back."""
        journal = self.make()
        old = journal.acquire("plan", "old", 1.0).number
        assert journal.beat("plan", old, 5.0)
        assert journal.lease("plan") == Lease(1, "old", 1.0, 5.0)
        new = journal.acquire("plan", "new", 6.0, instead_of=old)
        assert not journal.beat("plan", old, 7.0)
        journal.release("plan", old)
        assert journal.lease("plan") == new

    def test_steps_come_back_as_they_were_written(self) -> None:
        """In the order of the plan, those that it no longer has last; other plans are other plans."""
        steps = [a_step("b/0", 1, arguments='{"text":"\\u00e9\\n"}'), a_step("a/0", 0), a_step("c/0", None)]
        journal, _ = self._enrolled(*steps)
        assert journal.records("plan") == [steps[1], steps[0], steps[2]]
        assert journal.records("another") == []

    def test_enrolling_again_leaves_what_is_done(self) -> None:
        """What a step is may change; how far it is does not by that."""
        journal, number = self._enrolled(a_step("a/0", 0))
        journal.start("plan", number, "a/0", "worker", 2.0)
        done = journal.finish("plan", "a/0", 0, "7", 3.0)
        journal.enroll("plan", number, [a_step("a/0", 4, arguments='{"b":2}', note="accepted")])
        expected = done._replace(position=4, arguments='{"b":2}', note="accepted")
        assert journal.records("plan") == [expected]

    def test_a_step_is_started_and_finished(self) -> None:
        """Start, worker, result and times are written down."""
        journal, number = self._enrolled(a_step("a/0", 0))
        started = journal.start("plan", number, "a/0", "worker", 2.0)
        assert (started.state, started.worker, started.attempts, started.started) == ("started", "worker", 1, 2.0)
        assert journal.records("plan") == [started]
        finished = journal.finish("plan", "a/0", 0, "[1,2]", 3.0)
        assert (finished.state, finished.result, finished.finished) == ("finished", "[1,2]", 3.0)
        assert journal.records("plan") == [finished]

    def test_a_finished_step_stays_finished(self) -> None:
        """It is not started again, its first result counts, and it cannot fail any more."""
        journal, number = self._enrolled(a_step("a/0", 0))
        journal.start("plan", number, "a/0", "worker", 2.0)
        done = journal.finish("plan", "a/0", 0, "1", 3.0)
        assert journal.start("plan", number, "a/0", "other", 4.0, instead_of="worker") == done
        assert journal.finish("plan", "a/0", 0, "2", 4.0) == done
        assert journal.fail("plan", "a/0", 0, "too late", 4.0) == done
        assert journal.records("plan") == [done]

    def test_a_step_under_way_is_not_started_by_another(self) -> None:
        """Unless the other says whom it replaces; and that is only who still does it."""
        journal, number = self._enrolled(a_step("a/0", 0))
        first = journal.start("plan", number, "a/0", "first", 2.0)
        assert journal.start("plan", number, "a/0", "second", 3.0) == first
        second = journal.start("plan", number, "a/0", "second", 4.0, instead_of="first")
        assert (second.worker, second.attempts) == ("second", 2)
        assert journal.start("plan", number, "a/0", "third", 5.0, instead_of="first") == second

    def test_the_first_result_counts_whoever_brings_it(self) -> None:
        """A worker that was taken for dead may still be the first to be done."""
        journal, number = self._enrolled(a_step("a/0", 0))
        journal.start("plan", number, "a/0", "first", 2.0)
        journal.start("plan", number, "a/0", "second", 3.0, instead_of="first")
        assert journal.fail("plan", "a/0", 0, "of the first", 4.0, worker="first").state == "started"
        assert journal.finish("plan", "a/0", 0, "1", 4.0).result == "1"
        assert journal.finish("plan", "a/0", 0, "2", 5.0).result == "1"

    def test_a_failed_step_can_be_started_again(self) -> None:
        """Its failure is kept until then."""
        journal, number = self._enrolled(a_step("a/0", 0))
        journal.start("plan", number, "a/0", "worker", 2.0)
        failed = journal.fail("plan", "a/0", 0, "ValueError: no", 3.0, worker="worker")
        assert (failed.state, failed.error, failed.finished) == ("failed", "ValueError: no", 3.0)
        assert journal.records("plan") == [failed]
        again = journal.start("plan", number, "a/0", "other", 4.0)
        assert (again.state, again.error, again.attempts) == ("started", None, 2)
        assert journal.records("plan") == [again]

    def test_a_reset_step_is_as_new_and_another_generation(self) -> None:
        """What is brought for the old one does not count."""
        journal, number = self._enrolled(a_step("a/0", 0), a_step("b/0", 1))
        journal.start("plan", number, "a/0", "worker", 2.0)
        journal.reset("plan", number, ["a/0"])
        assert journal.records("plan") == [a_step("a/0", 0, generation=1), a_step("b/0", 1)]
        assert journal.finish("plan", "a/0", 0, "1", 3.0).result is None
        assert journal.fail("plan", "a/0", 0, "no", 3.0).state == "left"
        started = journal.start("plan", number, "a/0", "worker", 4.0)
        assert journal.fail("plan", "a/0", 0, "no", 4.5, worker="worker") == started
        assert journal.finish("plan", "a/0", 0, "1", 4.5) == started
        journal.finish("plan", "a/0", 1, "2", 5.0)
        journal.reset("plan", number, ["a/0"])
        assert journal.records("plan") == [a_step("a/0", 0, generation=2), a_step("b/0", 1)]

    def test_without_the_lease_nothing_begins(self) -> None:
        """Who lost it can neither enroll, nor reset, nor start; what was under way may still be finished."""
        journal, old = self._enrolled(a_step("a/0", 0))
        journal.start("plan", old, "a/0", "worker", 2.0)
        journal.acquire("plan", "new", 3.0, instead_of=old)
        _refused(lambda: journal.enroll("plan", old, [a_step("b/0", 1)]))
        _refused(lambda: journal.reset("plan", old, ["a/0"]))
        _refused(lambda: journal.start("plan", old, "a/0", "other", 4.0, instead_of="worker"))
        assert [record.key for record in journal.records("plan")] == ["a/0"]
        assert journal.finish("plan", "a/0", 0, "1", 5.0).result == "1"

    def test_a_step_that_is_not_there_is_refused(self) -> None:
        """As where somebody has put an older journal in its place: no step is made up."""
        journal, number = self._enrolled(a_step("a/0", 0))
        _refused(lambda: journal.start("plan", number, "b/0", "worker", 2.0))
        _refused(lambda: journal.reset("plan", number, ["b/0"]))
        _refused(lambda: journal.finish("plan", "b/0", 0, "1", 2.0))
        _refused(lambda: journal.fail("another", "a/0", 0, "no", 2.0))
        assert journal.records("plan") == [a_step("a/0", 0)]

    def test_threads_take_turns(self) -> None:
        """Of many that start a step at once, one does."""
        journal, number = self._enrolled(a_step("a/0", 0))
        workers = [f"worker {count}" for count in range(8)]
        found: list[str | None] = []

        def start(worker: str) -> None:
            found.append(journal.start("plan", number, "a/0", worker, 2.0).worker)

        threads = [Thread(target=start, args=(worker,)) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == len(workers)
        assert len(set(found)) == 1
        assert journal.records("plan")[0].attempts == 1


def _refused(act: Callable[[], object]) -> None:
    """See that something is refused."""
    try:
        act()
    except PlanTakenOver:
        return
    raise AssertionError(act)
