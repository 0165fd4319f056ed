"""Drift: how a plan differs from what its journal knows of it.

Steps are found in the journal by what they do: by action and arguments, those of the steps they refer to included;
then by action alone, in order. What counts is what has been done: a step that is left, or failed, is simply run as it
is now; one that failed and is given something else, under another key.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from torchsystem.errors import InvalidPlan, PlanDrift
from torchsystem.plans.ports import Record
from torchsystem.plans.steps import Reference, Step
from torchsystem.plans.values import fill, read, write

WORDS = {"code", "arguments", "order"}
DONE = {"finished", "started"}


class Match:
    """The steps of a plan, each with what the journal knows of it.

    Attributes:
        records: What is known of each step, as the plan is now; by number.
        stale: What is known of steps that the plan no longer has.
        changes: What is different, by key: pairs of a word and what it stands for.
        other_work: The keys of steps that have failed, and are given something else now. What they have left behind
            under their keys, as checkpoints, belongs to what they were given before.
    """

    def __init__(self, steps: Sequence[Step], known: Sequence[Record]) -> None:
        self._steps = steps
        self._known = known
        self._keys: list[str] = []
        self._counts: dict[str, int] = defaultdict(int)
        for record in known:
            action, _, count = record.key.rpartition("/")
            self._counts[action] = max(self._counts[action], int(count) + 1)
        found = self._found_in_place()
        if found is None:
            found = self._found_by_content()
        self.changes: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.other_work: list[str] = []
        self.records = [self._record(step, record) for step, record in zip(steps, found, strict=True)]
        kept = {record.key for record in self.records}
        gone = [record for record in known if record.key not in kept]
        self.stale = [record._replace(position=None) for record in gone if record.position is not None]
        self._compare_order(found, self.stale)

    def refuse(self, plan: str, accept: Collection[str]) -> None:
        """Refuse what is different and is not accepted.

        Raises:
            PlanDrift: Something is.
        """
        changes = {key: [text for word, text in changes if word not in accept] for key, changes in self.changes.items()}
        changes = {key: texts for key, texts in changes.items() if texts}
        if not changes:
            return
        words = {word for found in self.changes.values() for word, _ in found if word not in accept}
        lines = [f"  {key}: {text}" for key, texts in changes.items() for text in texts]
        more = [f"  ... and {len(lines) - 10} more"] if len(lines) > 10 else []  # noqa: PLR2004 - lines of a message
        first = f"plan {plan!r} is no longer the one that its journal knows:"
        last = (
            f"To go on with the results that are there, run it with accept={sorted({*words, *accept})}; to have a step "
            f"done anew, reset it: plan.reset(step, journal)."
        )
        message = "\n".join([first, *lines[:10], *more, last])
        raise PlanDrift(message, changes=changes)

    def new(self) -> Iterator[Record]:
        """Yield what is to be written down: what is new or different."""
        known = {record.key: record for record in self._known}
        for record in (*self.records, *self.stale):
            if known.get(record.key) != record:
                yield record

    def users(self, number: int) -> set[str]:
        """Return the keys of a step and of all that refer to it, at any depth.

        What the journal knows counts as well: a step that the plan no longer has may come back, with its result.
        """
        users: dict[str, list[str]] = defaultdict(list)
        for step in self._steps:
            for need in step.needs:
                users[self._keys[need]].append(self._keys[step.number])
        for record in self._known:
            for key in _needs(read(record.arguments)):
                users[key].append(record.key)
        doomed, waiting = set[str](), [self._keys[number]]
        while waiting:
            key = waiting.pop()
            if key not in doomed:
                doomed.add(key)
                waiting.extend(users[key])
        return doomed

    def _found_in_place(self) -> list[Record | None] | None:
        """Find each step where it was; nothing if something is different."""
        there = [record for record in self._known if record.position is not None]
        if len(there) > len(self._steps):
            return None
        found: list[Record | None] = []
        for step, record in zip(self._steps, there, strict=False):
            self._keys.append(record.key)
            if record.action != step.action or record.arguments != self._arguments(step):
                self._keys.clear()
                return None
            found.append(record)
        found.extend(None for _ in self._steps[len(there) :])
        if len(there) < len(self._known) and None in found:  # a step may be one that the plan had before
            self._keys.clear()
            return None
        self._keys.extend(self._new_key(step) for step in self._steps[len(there) :])
        return found

    def _found_by_content(self) -> list[Record | None]:
        """Find each step by what it does, wherever it was."""
        by_content = _by(self._known, _contents_of_records(self._known))
        found: list[Record | None] = [
            by_content[content].pop(0) if by_content[content] else None for content in _contents(self._steps)
        ]
        taken = {record.key for record in found if record is not None}
        rest = [record for record in self._known if record.key not in taken]
        free = _by(rest, [record.action for record in rest])
        for step in self._steps:
            mine = found[step.number] or self._similar(step, free[step.action])
            found[step.number] = mine
            self._keys.append(self._new_key(step) if mine is None else mine.key)
        return found

    def _similar(self, step: Step, free: list[Record]) -> Record | None:
        """Take the record of a step that does the same thing, or of one that the plan has in its place."""
        arguments = self._arguments(step)
        same = [record for record in free if record.arguments == arguments]
        rest = [record for record in free if record.position is not None]
        record = next(iter(same or rest), None)
        if record is not None:
            free.remove(record)
        return record

    def _new_key(self, step: Step) -> str:
        count = self._counts[step.action]
        self._counts[step.action] += 1
        return f"{step.action}/{count}"

    def _arguments(self, step: Step) -> str:
        """Write the arguments of a step down, references by key."""

        def key(reference: Reference) -> dict[str, str]:
            return {"$step": self._keys[reference.number]}

        return write(fill(step.arguments, Reference, key) if step.needs else step.arguments, in_order=True)

    def _record(self, step: Step, found: Record | None) -> Record:
        """Return what is known of a step, as it is now; note what is different."""
        key, version, arguments = self._keys[step.number], step.actor.version, self._arguments(step)
        if found is None:
            return Record(
                key=key, position=step.number, action=step.action, arguments=arguments, version=version, state="left"
            )
        if found.state == "failed" and found.arguments != arguments:
            self.other_work.append(key)
        notes = []
        if found.state in DONE and found.arguments != arguments:
            notes.append(("arguments", f"its arguments were {_short(found.arguments)}, and are {_short(arguments)}"))
        if found.state in DONE and found.version != version:
            notes.append(("code", f"its code was of version {found.version}, and is of {version}"))
        if notes:
            self.changes[key].extend(notes)
        note = "; ".join([*filter(None, [found.note]), *(text for _, text in notes)]) or None
        same = (found.position, found.arguments, found.version, found.note) == (step.number, arguments, version, note)
        if same:
            return found
        return found._replace(position=step.number, arguments=arguments, version=version, note=note)

    def _compare_order(self, found: Sequence[Record | None], gone: Iterable[Record]) -> None:
        """Note steps that are elsewhere than they were, and steps that came in between or are gone."""
        for lost in gone:
            self.changes[lost.key].append(("order", "the plan no longer has it"))
        last = max((number for number, record in enumerate(found) if record and record.position is not None), default=0)
        before = -1
        for number, record in enumerate(found):
            if record is None or record.position is None:
                if number < last:
                    text = f"it is new, and stands before {self._keys[last]}, which the plan had before"
                    self.changes[self._keys[number]].append(("order", text))
            elif record.position < before:
                self.changes[record.key].append(("order", f"it was step {record.position}, and is step {number}"))
            else:
                before = record.position


def words(accept: str | Iterable[str]) -> set[str]:
    """Return which differences are accepted.

    Raises:
        InvalidPlan: A word means nothing.
    """
    if not isinstance(accept, Iterable):
        message = f"accept={accept!r} means nothing. Write one or several of {sorted(WORDS)}."
        raise InvalidPlan(message)
    given = {accept} if isinstance(accept, str) else set(accept)
    if not given <= WORDS:
        message = f"accept={sorted(given)}: {sorted(given - WORDS)} means nothing. There are {sorted(WORDS)}."
        raise InvalidPlan(message)
    return given


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."  # noqa: PLR2004 - of a message


def _by(records: Sequence[Record], names: Sequence[str]) -> defaultdict[str, list[Record]]:
    """Sort records by a name; those that the plan had last come before those that it had dropped."""
    found: defaultdict[str, list[Record]] = defaultdict(list)
    for record, name in zip(records, names, strict=True):
        found[name].append(record)
    return found


def _contents(steps: Sequence[Step]) -> list[str]:
    """Say what each step does: its action and arguments, with what a step does in the place of a reference to it."""
    contents: list[str] = []
    for step in steps:
        arguments = fill(step.arguments, Reference, lambda reference: {"$step": contents[reference.number]})
        contents.append(_digest(step.action, arguments))
    return contents


def _contents_of_records(records: Sequence[Record]) -> list[str]:
    """Say the same of records, which refer only to those before them."""
    contents: dict[str, str] = {}
    for record in records:
        contents[record.key] = _digest(record.action, _with(read(record.arguments), contents))
    return list(contents.values())


def _with(value: Any, contents: dict[str, str]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"$step"} and isinstance(value["$step"], str):
            return {"$step": contents.get(value["$step"], value["$step"])}
        return {key: _with(item, contents) for key, item in value.items()}
    return [_with(item, contents) for item in value] if isinstance(value, list) else value


def _needs(value: Any) -> Iterator[str]:
    """Yield the keys of the steps that written arguments refer to."""
    if isinstance(value, dict):
        if value.keys() == {"$step"} and isinstance(value["$step"], str):
            yield value["$step"]
            return
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _needs(item)


def _digest(action: str, arguments: object) -> str:
    return hashlib.sha256(f"{action} {write(arguments, in_order=True)}".encode()).hexdigest()
