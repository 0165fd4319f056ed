"""Showing a plan: what is done, under way, failed and left, with times."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torchsystem.plans.drift import Match
from torchsystem.plans.ports import JournalPort, Record
from torchsystem.plans.workers import Worker

if TYPE_CHECKING:
    from torchsystem.plans.steps import Step

LONG = 200  # characters of an error
STATES = ("done", "under way", "interrupted", "failed", "left")


def table(plan: str, steps: Sequence[Step], journal: JournalPort | None) -> str:
    """Write the steps of a plan as a table.

    Args:
        plan: The name of the plan.
        steps: Its steps.
        journal: Where it is written down; None if it was not run yet.
    """
    match = Match(steps, [] if journal is None else journal.records(plan))
    rows = [_row(record) for record in match.records]
    counts = Counter(row[0] for row in rows)
    total = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    lines = [f"plan {plan}: {total or 'no steps'}"]
    if journal is None:
        lines.append("(no journal: nothing is known of earlier runs)")
    else:
        lines.extend(_runner(journal, plan))
    widths = [max(len(row[column]) for row in rows) if rows else 0 for column in range(4)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join(["", *cells, row[4]]).rstrip())
    lines.extend(f"  {key}: {text}" for key, changes in match.changes.items() for _, text in changes)
    return "\n".join(lines)


def _row(record: Record) -> tuple[str, str, str, str, str]:
    """Write the state of a step, its key, when it began, how long it took, and what there is to say."""
    began = "" if record.started is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.started))
    end = time.time() if record.state == "started" else record.finished
    took = "" if record.started is None or end is None else _duration(max(0.0, end - record.started))
    state, said = _state(record)
    attempts = f"attempt {record.attempts}" if record.attempts > 1 else ""
    return state, record.key, began, took, "; ".join(filter(None, [attempts, said, record.note]))


def _state(record: Record) -> tuple[str, str]:
    if record.state == "finished":
        return "done", ""
    if record.state == "failed":
        return "failed", _line(record.error or "")
    if record.state == "left" or record.worker is None:
        return "left", ""
    worker = Worker.read(record.worker)
    return ("interrupted" if worker.is_alive() is False else "under way"), worker.describe()


def _line(text: str) -> str:
    """Keep what fits into a line: the rest is in the journal."""
    first, *more = text.splitlines() or [""]
    return f"{first[:LONG]} ..." if more or len(first) > LONG else first


def _runner(journal: JournalPort, plan: str) -> list[str]:
    lease = journal.lease(plan)
    if lease.owner is None or Worker.read(lease.owner).is_alive() is False:
        return []
    return [f"being run by {Worker.read(lease.owner).describe()}"]


def _duration(seconds: float) -> str:
    if seconds < 60:  # noqa: PLR2004 - of a minute
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - where tenths end to matter
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"
