"""Journals: the contract, kept by both, and what only a file can get wrong."""

from __future__ import annotations

import math
import os
import pickle
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from tests.plans.fakes import Calls
from torchsystem.errors import InvalidPlan, UnreachableHandler, UnreadableJournal
from torchsystem.plans import Journal, JournalPort, MemoryJournal
from torchsystem.plans.ports import Lease
from torchsystem.testing import JournalContract
from torchsystem.testing.journals import a_step


class InMemory(JournalContract):
    """The journal for tests."""

    def __init__(self, _: Path) -> None:
        pass

    def make(self) -> JournalPort:
        return MemoryJournal()


class InFile(JournalContract):
    """The journal in a file, in a folder that is not there yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> JournalPort:
        return Journal(self.folder / "not" / "there" / "yet.db")


@pytest.mark.parametrize("kind", [InMemory, InFile])
@pytest.mark.parametrize("rule", [name for name in dir(JournalContract) if name.startswith("test_")])
def test_both_journals_keep_the_contract(kind: type[InMemory | InFile], rule: str, tmp_path: Path) -> None:
    """Each rule of the suite that is shipped for others holds for our own."""
    getattr(kind(tmp_path), rule)()


def test_what_was_written_is_there_for_others(tmp_path: Path) -> None:
    """Another journal of the same file, as in another process, knows it at once."""
    first = Journal(tmp_path / "plan.db")
    number = first.acquire("plan", "me", 1.0).number
    first.enroll("plan", number, [a_step("a/0", 0)])
    with pickle.loads(pickle.dumps(first)) as second:  # noqa: S301 - our own
        assert second.path == first.path
        assert second.start("plan", number, "a/0", "worker", 2.0).attempts == 1
    assert first.records("plan")[0].worker == "worker"


def test_every_transaction_reaches_the_disk(tmp_path: Path) -> None:
    """The log is ahead of the table, and synchronized at each commit."""
    journal = Journal(tmp_path / "plan.db")
    journal.acquire("plan", "me", 1.0)
    connection = journal._connect()  # noqa: SLF001 - the settings hold for one connection
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA fullfsync").fetchone() == (
        1,
    )  # through the cache of the disk, where macOS has that


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python warns of forks beside threads")
def test_a_child_of_a_fork_opens_the_file_itself(tmp_path: Path) -> None:
    """It neither uses nor closes what its parent has open."""
    journal = Journal(tmp_path / "plan.db")
    journal.acquire("plan", "parent", 1.0)
    child = os.fork()
    if not child:
        try:
            lease = journal.acquire("other", "child", 2.0)
            journal.close()
            os._exit(lease.number)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert journal.lease("other").owner == "child"
    assert journal.acquire("third", "parent", 3.0).owner == "parent"


def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Nothing is written into the file of another program."""
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE runs (name)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(UnreadableJournal, match=r"other\.db is a database of something else"):
        Journal(path).records("plan")
    assert path.read_bytes() == before


def test_several_may_make_a_journal_at_once(tmp_path: Path) -> None:
    """None takes what another is just writing for something else."""
    several = 4

    def acquire(path: Path, plan: str, together: Barrier) -> str | None:
        with Journal(path) as journal:
            together.wait(30)
            return journal.acquire(plan, plan, 1.0).owner

    plans = [f"plan {number}" for number in range(several)]
    with ThreadPoolExecutor(several) as pool:
        for number in range(40):
            together = Barrier(several)
            done = [pool.submit(acquire, tmp_path / f"{number}.db", plan, together) for plan in plans]
            assert [future.result() for future in done] == plans


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """By name."""
    path = tmp_path / "notes.txt"
    path.write_text("one line of text, and some more of it " * 20)
    with pytest.raises(UnreadableJournal, match=r"notes\.txt is no journal"):
        Journal(path).records("plan")


def test_a_journal_of_a_later_version_is_refused(tmp_path: Path) -> None:
    """It is not read as if it were of this one."""
    path = tmp_path / "plan.db"
    with Journal(path) as journal:
        journal.acquire("plan", "me", 1.0)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(UnreadableJournal, match="version 2, and this torchsystem knows 1"):
        Journal(path).records("plan")


def test_a_file_that_is_taken_away_is_noticed(tmp_path: Path) -> None:
    """SQLite would go on writing into what nobody will ever read."""
    journal = Journal(tmp_path / "plan.db")
    journal.acquire("plan", "me", 1.0)
    journal.path.unlink()
    with pytest.raises(UnreadableJournal, match="taken away while it was in use"):
        journal.beat("plan", 1, 2.0)
    journal.close()


def test_what_is_sent_after_a_journal_was_begun_anew_is_the_new_one(tmp_path: Path) -> None:
    """A process that outlives a run, as a worker of Dask does, has the old file open when the next plan comes."""
    path = tmp_path / "plan.db"
    for owner in ("first", "second"):
        with Journal(path) as journal:
            assert journal.acquire("plan", owner, 1.0) == Lease(1, owner, 1.0, 1.0)
            sent = pickle.loads(pickle.dumps(journal))  # noqa: S301 - our own
            assert sent.lease("plan").owner == owner
            for file in tmp_path.iterdir():
                file.unlink()
    sent.close()


@pytest.mark.parametrize("path", ["", ":memory:", "file:x?mode=memory", b"x", None])
def test_a_journal_that_is_no_file_is_refused(path: object) -> None:
    """What vanishes at the end is no journal."""
    with pytest.raises(InvalidPlan, match=r"MemoryJournal\(\)"):
        Journal(path)  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [-1, math.nan, math.inf, "1", None, True])
def test_a_journal_that_waits_for_no_time_is_refused(timeout: Any, tmp_path: Path) -> None:
    """When it is made."""
    with pytest.raises(InvalidPlan, match=r"timeout=.*write a number of seconds"):
        Journal(tmp_path / "plan.db", timeout=timeout)


def test_a_journal_keeps_its_place_when_the_folder_changes(tmp_path: Path) -> None:
    """A relative path is that of where it was made."""
    with chdir(tmp_path):
        journal = Journal("plan.db")
    journal.acquire("plan", "me", 1.0)
    assert (tmp_path / "plan.db").exists()


def test_a_journal_in_memory_is_not_sent_elsewhere() -> None:
    """A copy in another process would be written, and never read."""
    with pytest.raises(UnreachableHandler, match=r"Write Journal\(path\)"):
        pickle.dumps(MemoryJournal())


def test_a_damaged_journal_is_refused_by_its_path(tmp_path: Path) -> None:
    """Also where the damage is found only when a step is read."""
    path = tmp_path / "plan.db"
    graph: list[list[int]] = [[] for _ in range(200)]
    with Journal(path) as journal:
        Calls().plan(graph).run(journal)
    content = bytearray(path.read_bytes())
    content[8192:16384] = b"U" * 8192
    path.write_bytes(content)
    with Journal(path) as journal, pytest.raises(UnreadableJournal, match=r"plan\.db is damaged: "):
        Calls().plan(graph).run(journal)


@pytest.mark.parametrize("left", [50, 5000])
def test_a_journal_that_was_cut_off_is_damaged(left: int, tmp_path: Path) -> None:
    """And not called something else, for which a new one would be begun."""
    path = tmp_path / "plan.db"
    with Journal(path) as journal:
        Calls().plan([[]]).run(journal)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(UnreadableJournal, match=r"plan\.db is damaged: .*Put back a copy of it"):
        Journal(path).records("graph")


def test_an_error_of_the_disk_says_in_which_journal(tmp_path: Path) -> None:
    """There may be many, and SQLite names none."""
    with pytest.raises(sqlite3.OperationalError) as caught:
        Calls().plan([[]]).run(Journal(tmp_path))
    assert caught.value.__notes__ == [f"in the journal {tmp_path}"]


def test_an_error_that_is_no_unicode_is_kept(tmp_path: Path) -> None:
    """As of a file whose name is in another encoding: the exception of the step is raised, not one of the journal."""
    calls, journal = Calls(), Journal(tmp_path / "plan.db")

    def fail() -> None:
        raise FileNotFoundError("no file \udcff\0.png")

    calls.behaviour[0] = fail
    with pytest.raises(FileNotFoundError):
        calls.plan([[]]).run(journal)
    assert journal.records("graph")[0].error == r"FileNotFoundError: no file \udcff\x00.png"
