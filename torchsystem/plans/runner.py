"""The runner: it hands over what the references allow, hears what came of it, and decides what follows."""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torchsystem.errors import EngineBroken, PlanTakenOver
from torchsystem.plans.engines import Engine
from torchsystem.plans.events import StepFailed, StepFinished, StepStarted
from torchsystem.plans.failures import Policy, decide
from torchsystem.plans.holding import Hold
from torchsystem.plans.ports import JournalPort, Record
from torchsystem.plans.seeding import seed_of
from torchsystem.plans.steps import Reference, Step
from torchsystem.plans.tasks import Outcome, Task, told
from torchsystem.plans.values import fill, read, write
from torchsystem.services import Producer

LOOK = 1.0  # how often, in seconds, a runner that waits looks whether it still holds its lease

logger = logging.getLogger("torchsystem.plans")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a run works with, beside its steps."""

    plan: str
    journal: JournalPort
    hold: Hold
    producer: Producer
    policies: Mapping[str, Policy]
    seed: Callable[[int], object] | None
    clock: Callable[[], float]
    sleep: Callable[[float], object]


@dataclass(slots=True)
class Runner:
    """One run of a plan, from what the journal knows to where nothing is left to do.

    Attributes:
        steps: The steps of the plan.
        records: What is known of each.
        setting: What else it works with.
        engine: What does the steps.
    """

    steps: Sequence[Step]
    records: list[Record]
    setting: Setting
    engine: Engine
    failed: set[int] = field(default_factory=set)
    _failures: dict[int, int] = field(default_factory=dict)
    _missing: dict[int, int] = field(default_factory=dict)
    _users: dict[int, list[int]] = field(default_factory=dict)
    _ready: list[int] = field(default_factory=list)
    _later: list[tuple[float, int]] = field(default_factory=list)
    _seen: float = -math.inf
    _under_way: set[int] = field(default_factory=set)
    _error: BaseException | None = None

    def run(self) -> None:
        """Do all that is left; raise the first failure that is to stop the plan, when nothing is under way any more."""
        self._count()
        try:
            while self._go_on():
                pass
        except EngineBroken:
            if self._error is None:  # a step that failed before is what there is to mend
                raise
        finally:
            self.engine.close()
        if self._error is not None:
            raise self._error

    def result(self, number: int) -> Any:
        """Return the result of a step that is finished."""
        return read(self.records[number].result or "null")

    def is_finished(self, number: int) -> bool:
        """Tell whether a step has a result."""
        return self.records[number].state == "finished"

    def _count(self) -> None:
        """Find out what each step that is left waits for."""
        for step in self.steps:
            if self.is_finished(step.number):
                continue
            missing = [need for need in step.needs if not self.is_finished(need)]
            self._missing[step.number] = len(missing)
            for need in missing:
                self._users.setdefault(need, []).append(step.number)
            if not missing:
                self._ready.append(step.number)  # in order, and so a heap

    def _go_on(self) -> bool:
        """Hand over what can be done, and hear of one step; tell whether something is left."""
        self.setting.hold.check()
        if self._later:
            self._wake()
        while self._ready and self.engine.is_free and self._error is None:
            self._hand_over(heapq.heappop(self._ready))
        if self._under_way:
            heard = self.engine.wait(self._patience())
            if heard is not None:
                self._hear(*heard)
        elif self._later and self._error is None:
            self.setting.sleep(self._patience())
        return bool(self._under_way) or (self._error is None and bool(self._ready or self._later))

    def _wake(self) -> None:
        """Let steps be run again whose wait is over."""
        now = self._now()
        while self._later and self._later[0][0] <= now:
            heapq.heappush(self._ready, heapq.heappop(self._later)[1])

    def _patience(self) -> float:
        if not self._later:
            return LOOK
        now = self._now()
        return min(LOOK, max(0.0, self._later[0][0] - now))

    def _now(self) -> float:
        """Return the time; where the clock was set back, no step waits longer for that."""
        now = self.setting.clock()
        if now < self._seen:
            self._later = [(due - (self._seen - now), number) for due, number in self._later]
        self._seen = now
        return now

    def _hand_over(self, number: int) -> None:
        setting, step, record = self.setting, self.steps[number], self.records[number]
        if setting.producer.wants(StepStarted):
            attempt = self._failures.get(number, 0) + 1
            setting.producer.dispatch(StepStarted(setting.plan, record.key, step.action, attempt))
        self._under_way.add(number)
        task = Task(
            plan=setting.plan,
            lease=setting.hold.number,
            key=record.key,
            generation=record.generation,
            number=seed_of(setting.plan, record.key),
            arguments=self._arguments(step) if step.text is None else step.text,
            actor=step.actor,
            journal=setting.journal,
            seed=setting.seed,
        )
        self.engine.hand_over(number, task)

    def _arguments(self, step: Step) -> str:
        """Write the arguments of a step, with results in the place of references."""
        return write(fill(step.arguments, Reference, lambda reference: self.result(reference.number)))

    def _hear(self, number: int, heard: Outcome | BaseException) -> None:
        """Take in what came of a step."""
        self._under_way.discard(number)
        if isinstance(heard, Outcome):
            self.records[number] = heard.record
            if heard.error is None:
                self._finish(number)
            else:
                self._fail(number, heard.error)
        elif isinstance(heard, Exception) and not isinstance(
            heard, PlanTakenOver
        ):  # of the engine, or of the way to the step and back
            self._fail_outside(number, heard)
        else:
            self._stop(heard)

    def _finish(self, number: int) -> None:
        setting, record = self.setting, self.records[number]
        for user in self._users.get(number, ()):
            self._missing[user] -= 1
            if not self._missing[user]:
                heapq.heappush(self._ready, user)
        if setting.producer.wants(StepFinished):
            seconds = max(0.0, (record.finished or 0.0) - (record.started or 0.0))  # the clock may have been set back
            setting.producer.dispatch(
                StepFinished(setting.plan, record.key, record.action, self.result(number), seconds)
            )

    def _fail_outside(self, number: int, error: Exception) -> None:
        """Write down a failure that the step itself could not."""
        setting, record = self.setting, self.records[number]
        setting.hold.check()
        record = setting.journal.fail(setting.plan, record.key, record.generation, told(error), setting.clock())
        self.records[number] = record
        if record.state == "finished":  # what went wrong was only to tell of it
            self._finish(number)
        else:
            self._fail(number, error)

    def _fail(self, number: int, error: Exception) -> None:
        """Decide what follows a failure, and tell of it."""
        setting, record = self.setting, self.records[number]
        failures = self._failures[number] = self._failures.get(number, 0) + 1
        decision = decide(setting.policies[record.action], failures, error)
        then: Literal["stop", "retry", "skip"] = "retry" if isinstance(decision, float | int) else decision
        logger.warning("%s/%s failed (attempt %d, %s): %r", setting.plan, record.key, failures, then, error)
        if isinstance(decision, float | int):
            now = self._now()
            heapq.heappush(self._later, (now + decision, number))
        elif decision == "skip":
            self.failed.add(number)
        else:
            self.failed.add(number)
            error.add_note(f"step {record.key} of plan {setting.plan!r} failed, in attempt {failures} of this run")
            self._stop(error)
        if setting.producer.wants(StepFailed):
            failure = StepFailed(setting.plan, record.key, record.action, error, failures, then)
            try:
                setting.producer.dispatch(failure)
            except BaseException as other:
                if other is not error:
                    other.add_note(f"raised by a listener, when step {record.key} had failed with {error!r}")
                raise

    def _stop(self, error: BaseException) -> None:
        """Begin nothing more; what is under way comes to its end."""
        if self._error is None:
            self._error = error
        self._under_way.difference_update(self.engine.cancel())
