"""Showing a plan: what is done, under way, interrupted, failed and left, with times."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.plans.fakes import Calls
from torchsystem.plans import MemoryJournal

if TYPE_CHECKING:
    from pathlib import Path


def test_every_step_is_shown_with_its_state_and_times(capsys: pytest.CaptureFixture[str]) -> None:
    """It is printed, and returned; so it can be asked while the plan is run, in this process or another."""
    calls, journal = Calls(), MemoryJournal()
    plan = calls.plan([[], [], [0, 1], [2]])
    seen: list[str] = []

    def fail() -> None:
        raise LookupError("no luck")

    calls.behaviour = {1: fail, 2: lambda: seen.append(plan.show())}
    with pytest.raises(LookupError):
        plan.run(journal)
    after = plan.show()
    assert re.search(r"^plan graph: 1 done, 1 failed, 2 left$", after, re.MULTILINE)
    day = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.search(rf"^  done +work/0 +{day} +0\.\d s$", after, re.MULTILINE)
    assert re.search(rf"^  failed +work/1 +{day} +0\.\d s +LookupError: no luck$", after, re.MULTILINE)
    assert re.search(r"^  left +work/2$", after, re.MULTILINE)
    assert capsys.readouterr().out == f"{after}\n"

    calls.behaviour[1] = int
    plan.run(journal)
    assert re.search(r"^plan graph: 2 done, 1 under way, 1 left\nbeing run by process \d+ on ", seen[0])
    assert re.search(rf"^  under way +work/2 +{day} +0\.\d s +process \d+ on ", seen[0], re.MULTILINE)
    assert re.search(rf"^  done +work/1 +{day} +0\.\d s +attempt 2$", plan.show(), re.MULTILINE)


def test_without_a_journal_nothing_is_known() -> None:
    """And that is said: there may be one on the disk."""
    plan = Calls().plan([[]])
    assert "(no journal: nothing is known of earlier runs)" in plan.show()
    plan.run(MemoryJournal())
    assert "1 done" in plan.show()


def test_the_doors_do_not_import_torch(tmp_path: Path) -> None:
    """Plans of steps that need no torch start at once."""
    program = "import sys, torchsystem.plans; print('torch' in sys.modules or 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "False"


def test_a_long_error_takes_one_line() -> None:
    """What is left of it is in the journal."""
    calls, journal = Calls(), MemoryJournal()

    def fail() -> None:
        raise LookupError("no luck\n" + "x" * 1000)

    calls.behaviour = {0: fail}
    plan = calls.plan([[], []])
    with pytest.raises(LookupError):
        plan.run(journal)
    lines = plan.show().splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("LookupError: no luck ...")
    assert "xxx" in (journal.records("graph")[0].error or "")


def test_no_time_is_negative() -> None:
    """Also where the clock of the machine was set back meanwhile."""
    journal, calls = MemoryJournal(), Calls()
    plan = calls.plan([[]])
    plan.run(journal)
    with journal.transaction() as pages:
        record = pages.records("graph")[0]
        pages.move("graph", record._replace(finished=(record.started or 0.0) - 3600))
    assert re.search(r" 0\.0 s$", plan.show(), re.MULTILINE)
