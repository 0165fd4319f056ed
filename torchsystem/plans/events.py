"""What a plan tells while it is run, in the process that runs it, through `plan.producer`.

    PlanStarted
    │   StepStarted             for each step that is not finished; with an executor, when it is handed over
    │   ├── StepFinished        its result is in the journal
    │   └── StepFailed          its failure is in the journal; `then` says what follows
    └── PlanFinished            no step is left that could be run; not when a failure stops the plan

A step that was finished before is not told of again. Events are told once at most: a listener that must not miss a
result reads it from the journal.
"""

from __future__ import annotations

from typing import Literal

from torchsystem.plans.values import Plain
from torchsystem.services import event


@event
class PlanStarted:
    """A plan begins, or goes on.

    Attributes:
        plan: Its name.
        steps: How many steps it has.
        finished: How many of them are finished already.
    """

    plan: str
    steps: int
    finished: int


@event
class StepStarted:
    """A step begins.

    Attributes:
        plan: The name of the plan.
        step: The key of the step.
        action: What is done.
        attempt: Which attempt of this run it is, from 1.
    """

    plan: str
    step: str
    action: str
    attempt: int


@event
class StepFinished:
    """A step is done, and its result is in the journal.

    Attributes:
        plan: The name of the plan.
        step: The key of the step.
        action: What was done.
        result: What came of it.
        seconds: How long that took.
    """

    plan: str
    step: str
    action: str
    result: Plain
    seconds: float


@event
class StepFailed:
    """A step failed, and its failure is in the journal.

    Attributes:
        plan: The name of the plan.
        step: The key of the step.
        action: What was to be done.
        error: How it failed.
        attempt: Which attempt of this run it was, from 1.
        then: What follows: the plan stops, the step is run again, or it is skipped.
    """

    plan: str
    step: str
    action: str
    error: BaseException
    attempt: int
    then: Literal["stop", "retry", "skip"]


@event
class PlanFinished:
    """Nothing is left to do.

    Attributes:
        plan: The name of the plan.
        result: What `run` returns; None if there is no such result, and `run` raises.
        finished: How many steps are finished.
        failed: The keys of steps that failed and were skipped.
        skipped: The keys of steps that could not be run because of those.
    """

    plan: str
    result: Plain
    finished: int
    failed: tuple[str, ...]
    skipped: tuple[str, ...]
