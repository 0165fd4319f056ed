"""The contract of what a journal writes itself, its transactions and pages, as tests."""

# ruff: noqa: S101 - these are tests
# ruff: noqa: PLR2004 - the numbers in an assertion are the example

from __future__ import annotations

import json
import pickle
from threading import Barrier, BrokenBarrierError, Thread

from torchsystem.errors import UnreachableHandler
from torchsystem.plans import JournalPort
from torchsystem.plans.ports import Lease, Record

NOW = 1_790_000_000.123456  # seconds since 1970


class TransactionContract:
    """What the transactions of every journal keep, and what is read and written inside them.

    Attributes:
        meeting: How many seconds a transaction stays open for another to come in, which it must not.
    """

    meeting = 0.2

    def make(self) -> JournalPort:
        """Make an empty journal."""
        raise NotImplementedError

    def reopen(self, journal: JournalPort) -> JournalPort | None:
        """Open a journal once more, as another process does; None where no other process can."""
        try:
            return pickle.loads(pickle.dumps(journal))  # type: ignore[no-any-return]  # noqa: S301 - written in this line
        except UnreachableHandler:
            return None
        except Exception as error:
            message = (
                f"{journal!r} cannot be sent to another process ({error!r}), where steps would write it. Write "
                f"__reduce__, or let reopen(journal) open it anew; of one process alone it returns None."
            )
            raise AssertionError(message) from error

    def test_a_step_comes_back_in_every_field(self) -> None:
        """As it was written: nothing is cut off, written anew, or taken for nothing because it is empty."""
        journal = self.make()
        steps = [_full_step("a/0", 0), _full_step("a/1", 1, result="null", error="", note="", version="", worker="")]
        with journal.transaction() as pages:
            pages.put("plan", iter(steps))
        found = journal.records("plan")
        assert [type(record) for record in found] == [Record, Record]
        assert found == steps

    def test_a_step_is_moved_in_every_field(self) -> None:
        """To nothing as well as to something; what the step is stays as it was."""
        journal = self.make()
        full, bare = _full_step("a/0", 0), a_step("a/1", 1)
        empty = _full_step("a/2", 2, result="null", error="", worker="")
        moved = [_moved(full, bare), _moved(bare, empty), _moved(empty, full)]
        with journal.transaction() as pages:
            pages.put("plan", [full, bare, empty])
            for record in moved:
                pages.move("plan", record)
        assert journal.records("plan") == moved

    def test_steps_come_in_the_order_of_the_plan(self) -> None:
        """By position, as a number; those that the plan no longer has come last."""
        journal = self.make()
        steps = [a_step("a/0", None), a_step("b/0", 10), a_step("c/0", 2), a_step("a/1", 9), a_step("d/0", 0)]
        with journal.transaction() as pages:
            pages.put("plan", steps)
        assert [record.key for record in journal.records("plan")] == ["d/0", "c/0", "a/1", "b/0", "a/0"]

    def test_many_steps_are_written_at_once(self) -> None:
        """A plan may have thousands."""
        journal = self.make()
        steps = [a_step(f"a/{number}", number) for number in range(3000)]
        with journal.transaction() as pages:
            pages.put("plan", steps)
        assert journal.records("plan") == steps

    def test_plans_with_the_same_steps_do_not_meet(self) -> None:
        """A step is told by its plan and its key, and both exactly."""
        journal = self.make()
        places = [(plan, key) for plan in ("plan", "Plan", "plan ") for key in ("a/0", "A/0", "a/0 ")]
        with journal.transaction() as pages:
            for number, (plan, key) in enumerate(places):
                pages.put(plan, [a_step(key, number)])
                pages.put_lease(plan, Lease(number, plan, 1.0, 1.0))
            for number, (plan, key) in enumerate(places):
                pages.move(plan, a_step(key, number)._replace(state="finished", result=str(number)))
        with journal.transaction() as pages:
            found = [pages.record(plan, key) for plan, key in places]
            assert [record and (record.position, record.result) for record in found] == [
                (number, str(number)) for number in range(len(places))
            ]
            assert [pages.lease(plan).number for plan in ("plan", "Plan", "plan ", "another")] == [2, 5, 8, 0]
            assert pages.record("another", "a/0") is None
            assert pages.record("plan", "a/1") is None

    def test_times_are_kept_to_the_microsecond(self) -> None:
        """They are seconds since 1970, too many for a float of 32 bits."""
        journal = self.make()
        lease = Lease(1, "me", NOW, NOW + 0.5)
        with journal.transaction() as pages:
            pages.put_lease("plan", lease)
            pages.put("plan", [a_step("a/0", 0)])
            pages.move("plan", a_step("a/0", 0)._replace(state="failed", started=NOW, finished=NOW + 0.25))
        found, (step,) = journal.lease("plan"), journal.records("plan")
        times = [found.since, found.heartbeat, step.started or 0.0, step.finished or 0.0]
        wrong = [time - NOW - more for time, more in zip(times, (0.0, 0.5, 0.0, 0.25), strict=True)]
        assert max(map(abs, wrong)) < 2e-6, wrong

    def test_a_transaction_sees_what_it_has_written(self) -> None:
        """Before others do."""
        journal = self.make()
        done = a_step("a/0", 0)._replace(state="finished", result="1")
        with journal.transaction() as pages:
            pages.put("plan", [a_step("a/0", 0)])
            assert pages.record("plan", "a/0") == a_step("a/0", 0)
            pages.move("plan", done)
            pages.put_lease("plan", Lease(1, "me", 1.0, 2.0))
            assert pages.record("plan", "a/0") == done
            assert pages.records("plan") == [done]
            assert pages.lease("plan") == Lease(1, "me", 1.0, 2.0)

    def test_a_transaction_is_whole_or_nothing(self) -> None:
        """What was written in a block that fails, or is interrupted, was not; the exception goes on."""
        journal = self.make()
        before = a_step("a/0", 0), Lease(1, "me", 1.0, 1.0)
        with journal.transaction() as pages:
            pages.put("plan", [before[0]])
            pages.put_lease("plan", before[1])
        for error in (LookupError(), KeyboardInterrupt()):
            caught = None
            try:
                with journal.transaction() as pages:
                    pages.put("plan", [a_step("b/0", 1)])
                    pages.move("plan", before[0]._replace(state="finished", result="1"))
                    pages.put_lease("plan", Lease(9, "nobody"))
                    raise error
            except (LookupError, KeyboardInterrupt) as raised:
                caught = raised
            assert caught is error, f"{error!r} is not what came out of the transaction, but {caught!r}"
            assert (journal.records("plan"), journal.lease("plan")) == ([before[0]], before[1])

    def test_transactions_take_turns(self) -> None:
        """No two are open at once, in threads or where the journal was opened once more; none writes over another."""
        journal = self.make()
        with journal.transaction() as pages:
            pages.put("plan", [a_step("a/0", 0)])
        for other in (self.reopen(journal), journal):
            if other is not None:
                assert not _meet(journal, other, self.meeting), "two transactions were open at the same time"
        (record,) = journal.records("plan")
        assert record.attempts in {2, 4}

    def test_others_see_at_once_what_was_written(self) -> None:
        """Where it was opened once more, before and after it is closed, and the other way round."""
        journal = self.make()
        other = self.reopen(journal)
        if other is None:
            return
        with journal.transaction() as pages:
            pages.put("plan", [a_step("a/0", 0)])
        assert other.records("plan") == [a_step("a/0", 0)]
        with other.transaction() as pages:
            pages.put("plan", [a_step("b/0", 1)])
            pages.put_lease("plan", Lease(1, "other", 1.0, 1.0))
        assert journal.records("plan") == [a_step("a/0", 0), a_step("b/0", 1)]
        other.close()
        assert journal.lease("plan").owner == "other"

    def test_it_can_be_closed_and_used_again(self) -> None:
        """Closing lets go of what is open, and forgets nothing."""
        journal = self.make()
        with journal.transaction() as pages:
            pages.put("plan", [a_step("a/0", 0)])
        journal.close()
        journal.close()
        assert journal.records("plan") == [a_step("a/0", 0)]


def a_step(
    key: str, position: int | None, *, arguments: str = "{}", generation: int = 0, note: str | None = None
) -> Record:
    """Return a step that is left."""
    return Record(
        key=key,
        position=position,
        action=key.partition("/")[0],
        arguments=arguments,
        version="1",
        generation=generation,
        note=note,
    )


def _full_step(key: str, position: int, **changes: str) -> Record:
    """Return a step of which everything is known, in texts that are long and in many letters."""
    text = "é 中 🦊 'quoted' \"twice\" \\ %s ? \n\t" * 1000
    plain = json.dumps({"b": text, "a": 1.0}, separators=(",", ":"))
    record = Record(
        key=key,
        position=position,
        action="some/action",
        arguments=plain,
        version=f"v {text}",
        state="failed",
        generation=3,
        attempts=70_000,
        worker=f"w {text}",
        result=plain,
        error=f"e {text}",
        started=2.5,
        finished=3.5,
        note=f"n {text}",
    )
    return record._replace(**changes)  # type: ignore[arg-type]


def _moved(record: Record, to: Record) -> Record:
    """Return a step that is as far as another."""
    state, attempts, worker, result = to.state, to.attempts, to.worker, to.result
    return record._replace(
        state=state,
        attempts=attempts,
        worker=worker,
        result=result,
        error=to.error,
        started=to.started,
        finished=to.finished,
    )


def _meet(first: JournalPort, second: JournalPort, seconds: float) -> bool:
    """Open transactions of both at once, each of which counts an attempt; tell whether both were open together."""
    ready, inside, met = Barrier(2), Barrier(2), list[bool]()

    def enter(journal: JournalPort) -> None:
        ready.wait()
        with journal.transaction() as pages:
            record = pages.records("plan")[0]
            try:
                inside.wait(seconds)
                met.append(True)
            except BrokenBarrierError:  # as it must be: the other one waits outside
                pass
            pages.move("plan", record._replace(attempts=record.attempts + 1))

    threads = [Thread(target=enter, args=(journal,)) for journal in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return bool(met)
