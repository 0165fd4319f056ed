"""Tasks: what is done of a step wherever it is done, the writing of the journal included."""

from __future__ import annotations

import inspect
import logging
import os
import pickle
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torchsystem.errors import NotPlain, PlanTakenOver, StepFailure
from torchsystem.plans.context import Current, enter, leave
from torchsystem.plans.failures import name_of
from torchsystem.plans.handlers import Actor, ByName, ByRoot
from torchsystem.plans.ports import JournalPort, Record
from torchsystem.plans.seeding import imported
from torchsystem.plans.values import plain, read, write
from torchsystem.plans.workers import Worker, acting

PAUSE = 0.05  # between two looks at a step that another process is still doing

ELSEWHERE = "raised in another process"

logger = logging.getLogger("torchsystem.plans")


@dataclass(slots=True)
class Task:
    """A step, as it is handed to whoever does it.

    Attributes:
        plan: The name of the plan.
        lease: The number of the lease under which it may be started.
        key: The key of the step.
        generation: How often it was reset.
        number: Its seed.
        arguments: What it is called with, as JSON, results in the place of references.
        actor: Who does it.
        journal: Where it is written down.
        seed: What seeds random numbers; None to leave them alone.
    """

    plan: str
    lease: int
    key: str
    generation: int
    number: int
    arguments: str
    actor: Actor | ByName | ByRoot
    journal: JournalPort
    seed: Callable[[int], object] | None

    @property
    def full_key(self) -> str:
        """What `step_key` returns: the key, told from those of other plans and of before a reset."""
        return f"{self.plan}/{self.key}" + (f"~{self.generation}" if self.generation else "")


class Outcome:
    """What came of a task: the record of the step, and the exception if it failed."""

    def __init__(self, record: Record, error: Exception | None = None) -> None:
        self.record = record
        self.error = error

    def __reduce__(self) -> tuple[object, ...]:
        """Be sent to another process, with an error that arrives there."""
        return Outcome, (self.record, None if self.error is None else _portable(self.error))


def perform(task: Task, hand_over: int = 0) -> Outcome:  # noqa: ARG001 - it is looked at before it comes here
    """Do a step, unless it is done; write down that it starts, and what came of it.

    Args:
        task: The step.
        hand_over: A number of its own each time that it is handed over: engines take a function that is called with the
            same arguments for the same call, as Dask does, and would give back what came of the step before.
    """
    journal, process = task.journal, os.getpid()
    with acting() as worker:
        record = _claim(task, worker)
        if record.state == "finished":
            return Outcome(record)
        try:
            result = _call(task)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is written down and handed on
            _refuse_child(task, process)
            record = journal.fail(task.plan, task.key, task.generation, told(error), time.time(), worker=worker)
            return Outcome(record) if record.state == "finished" else Outcome(record, error)
        _refuse_child(task, process)
        return Outcome(_kept(task, journal.finish(task.plan, task.key, task.generation, result, time.time())))


def told(error: BaseException) -> str:
    """Say how a step failed, in text that any journal can keep: paths of files may hold what is no Unicode."""
    text = "".join(traceback.format_exception_only(error)).strip().replace("\0", "\\x00")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _refuse_child(task: Task, process: int) -> None:
    """Refuse to go on in a child that the step has forked: its parent comes to the same end.

    Raises:
        PlanTakenOver: This is such a child.
    """
    if os.getpid() != process:
        message = f"a child that {task.full_key} has forked came back from it. End such a child with os._exit()."
        raise PlanTakenOver(message)


def _claim(task: Task, worker: str) -> Record:
    """Start a step; wait for whoever is still doing it, and begin when it is dead."""
    warned, instead_of = False, None
    while True:
        record = task.journal.start(task.plan, task.lease, task.key, worker, time.time(), instead_of=instead_of)
        if record.state == "finished" or record.worker == worker or record.worker is None:
            return record
        other = Worker.read(record.worker)
        if other.is_alive() is not True:
            instead_of = record.worker
            continue
        if not warned:
            logger.warning("%s is still being done by %s: waiting for it", task.full_key, other.describe())
            warned = True
        time.sleep(PAUSE)


def _kept(task: Task, record: Record) -> Record:
    """Refuse a record that does not hold a result.

    Raises:
        PlanTakenOver: The step was reset while it was done.
    """
    if record.state != "finished" or record.generation != task.generation:
        message = f"{task.full_key} was reset while it was being done: its result counts no more. Run the plan again."
        raise PlanTakenOver(message)
    return record


def _call(task: Task) -> str:
    """Call the handler, and return its result as JSON.

    Raises:
        NotPlain: The result is none.
    """
    actor = task.actor.find()
    before = imported()
    token = enter(Current(task.full_key, task.number))
    try:
        if task.seed is not None:
            task.seed(task.number)
        result = actor.handler(**read(task.arguments))
    finally:
        leave(token)
    if task.seed is not None and imported() != before:
        logger.warning(
            "%s imported %s, whose random numbers were not seeded before it: import that where the handler is defined",
            task.full_key,
            " and ".join(name for name in imported() if name not in before),
        )
    if inspect.iscoroutine(result):
        result.close()
    try:
        return write(plain(result, "the result"))
    except NotPlain as error:
        message = f"{task.full_key}: {error}"
        raise NotPlain(message) from None


def _portable(error: Exception) -> Exception:
    """Return an exception that can be sent: itself, with where it was raised, or one that tells of it."""
    text = "".join(traceback.format_exception(error))
    sent: Any
    try:
        if not any(note.startswith(ELSEWHERE) for note in getattr(error, "__notes__", ())):
            error.add_note(f"{ELSEWHERE}:\n{text}")
        sent = pickle.loads(pickle.dumps(error))  # noqa: S301 - what was written in the same line
    except Exception:  # noqa: BLE001 - what exceptions of others raise when they are copied
        sent = None
    if type(sent) is type(error):
        return error
    failure = StepFailure(f"the step failed with an exception that cannot be sent from its process:\n{text}")
    failure.kinds = tuple(map(name_of, type(error).__mro__))
    return failure
