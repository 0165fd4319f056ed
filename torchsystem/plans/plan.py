"""Plans: ordered lists of steps, each done once, and continued after anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

from torchsystem.errors import ForeignReference, InvalidPlan, NoResult, UnknownJournalStep
from torchsystem.plans import seeding
from torchsystem.plans.drift import Match, words
from torchsystem.plans.engines import ExecutorFactory, check_factory, engine
from torchsystem.plans.events import PlanFinished, PlanStarted
from torchsystem.plans.failures import Failures, policies
from torchsystem.plans.handlers import Handlers, Root
from torchsystem.plans.holding import Hold, holding
from torchsystem.plans.options import check_functions, check_journal, check_lapse, check_name, check_producer
from torchsystem.plans.ports import JournalPort
from torchsystem.plans.runner import Runner, Setting
from torchsystem.plans.showing import table
from torchsystem.plans.steps import Reference, Step, refuse_words
from torchsystem.plans.values import found, plain, write
from torchsystem.services import Producer, Service

LAPSE = 60.0


class Plan:
    """An ordered list of steps, each the handler of an action with its arguments, whose results are kept in a journal.

    Args:
        name: What the journal knows it by.
        services: Whose handlers do the steps; or a function that puts the services together, which is then called in
            each process that does steps.
        producer: Where it tells what happens; one of its own by default.
        seed: What is called before each step with its seed, a number that is the same whenever it is run. By default
            it seeds Python's random numbers, and those of NumPy and torch where they are imported. None seeds nothing.
        versions: The versions of handlers, by action, where they are not to be told from the code.
        clock: What tells the seconds since 1970.
        sleep: What waits before a failed step is run again.

    Raises:
        InvalidPlan: An argument has no meaning.
        AmbiguousAction: Two services answer to one action.

    Examples:
        >>> from torchsystem.plans import MemoryJournal, Plan
        >>> from torchsystem.services import Service
        >>> evaluation = Service("evaluation")
        >>> @evaluation.handler
        ... def train_fold(fold: int) -> float:
        ...     return (90 + fold) / 100
        >>> @evaluation.handler
        ... def report(scores: list[float]) -> float:
        ...     return max(scores)
        >>> plan = Plan("digits-cv", services=[evaluation])
        >>> folds = [plan.add("train-fold", fold=fold) for fold in range(5)]
        >>> best = plan.add("report", scores=folds)
        >>> plan.run(MemoryJournal())
        0.94
    """

    def __init__(  # noqa: PLR0913 - by name but for two
        self,
        name: str,
        services: Iterable[Service] | Root,
        *,
        producer: Producer | None = None,
        seed: Callable[[int], object] | None = seeding.seed,
        versions: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        check_name(name)
        check_producer(name, producer)
        check_functions(name, seed=seed, clock=clock, sleep=sleep)
        self.name = name
        self.producer = Producer(name) if producer is None else producer
        self._handlers = Handlers(services, {} if versions is None else versions)
        self._seed = seed
        self._clock = clock
        self._sleep = sleep
        self._steps: list[Step] = []
        self._runs: set[Hold] = set()
        self._journal: JournalPort | None = None

    def __repr__(self) -> str:
        """Show its name, and how many steps it has."""
        return f"<Plan {self.name!r}, {len(self._steps)} steps>"

    def __len__(self) -> int:
        """Return how many steps it has."""
        return len(self._steps)

    def __bool__(self) -> bool:
        """Be true: a plan without steps is a plan."""
        return True

    def add(self, action: str, /, **arguments: Any) -> Reference:
        """Add a step.

        Args:
            action: The action whose handler does it.
            arguments: What the handler is called with: plain JSON, with references to steps before it anywhere inside.

        Returns:
            What stands for its result.

        Raises:
            UnknownAction: No service answers to the action.
            UnusableHandler: The handler does not take the arguments, or cannot be a step.
            NotPlain: An argument is no plain JSON.
            ForeignReference: An argument refers to a step of another plan.
            InvalidPlan: The plan is being run, or the action is no name.
        """
        if self._runs:
            message = (
                f"{self!r} is being run, and would not do what is added now. Add all steps before, or run it again."
            )
            raise InvalidPlan(message)
        actor = self._handlers.find(action)
        actor.check(arguments)
        kept = {
            name: plain(value, f"{actor.action}({name}=...): {name}", Reference) for name, value in arguments.items()
        }
        refuse_words(found(kept, str), repr(actor.action))
        references: list[Reference] = found(kept, Reference)
        for reference in references:
            if reference.owner is not self:
                message = (
                    f"{actor.action!r} refers to {reference!r} of another plan. Add that step to {self!r}, or pass "
                    f"what that plan's run returned."
                )
                raise ForeignReference(message)
        needs = tuple(dict.fromkeys(reference.number for reference in references))
        self._steps.append(Step(len(self._steps), actor, kept, needs, None if needs else write(kept)))
        return Reference(self, len(self._steps) - 1, actor.action)

    def run(  # noqa: PLR0913 - by name but for one
        self,
        journal: JournalPort,
        *,
        executor: ExecutorFactory | None = None,
        result: Reference | None = None,
        accept: str | Collection[str] = (),
        failures: Failures = "stop",
        lapse: float = LAPSE,
    ) -> Any:
        """Do all steps that are not finished yet, each when those it refers to are.

        Args:
            journal: Where it is written down. The same line with the same journal goes on where it was interrupted.
            executor: What makes a `concurrent.futures.Executor` that does the steps; by default they are done here, one
                after the other, in the order in which they were added.
            result: Whose result to return; the last step's by default.
            accept: Which differences to what the journal knows are accepted, so that results that are there stand:
                `"code"`, `"arguments"`, `"order"`.
            failures: What happens when a step fails: `"stop"`, `"skip"` (and what refers to it), or a `Retry`; or a
                dict of these by action, with `"stop"` for the others.
            lapse: After how many seconds a runner on another machine that is not heard of counts as dead.

        Returns:
            The result, as plain JSON.

        Raises:
            Exception: What a failing step has raised, as itself, with the step named in a note.
            InvalidPlan: There are no steps, or an option has no meaning; nothing was done or written then.
            ForeignReference: The result to return is that of another plan.
            PlanBusy: Another runner is at it.
            PlanDrift: The plan is no longer the one that the journal knows.
            UnreadableJournal: The journal is damaged, or something else.
            UnreachableHandler: A process that is to do a step does not find its handler, or another one.
            NoResult: The step whose result was to be returned has none, because a step was skipped.
            NotPlain: A step returned something else than plain JSON.
            EngineBroken: The executor breaks down again and again.
            PlanTakenOver: Another runner has taken over, because this one was not heard of.
        """
        accepted = words(accept)
        number = self._number(result)
        policy = policies(failures, {step.action for step in self._steps})
        self._handlers.check_versions()
        check_factory(executor)
        check_lapse(lapse)
        self._journal = check_journal(journal)
        with holding(journal, self.name, lapse, self._clock) as hold, self._fixed(hold):
            match = self._enroll(journal, hold, accepted)
            self._tell_start(match)
            setting = Setting(
                plan=self.name,
                journal=journal,
                hold=hold,
                producer=self.producer,
                policies=policy,
                seed=self._seed,
                clock=self._clock,
                sleep=self._sleep,
            )
            runner = Runner(self._steps, match.records, setting, engine(executor))
            runner.run()
        return self._conclude(runner, number)

    def show(self, journal: JournalPort | None = None) -> str:
        """Print, and return, what is done, under way, failed and left, with times.

        Args:
            journal: Where it is written down; that of the last run by default.
        """
        kept = self._journal if journal is None else check_journal(journal)
        text = table(self.name, self._steps, kept)
        print(text)  # noqa: T201 - what it is for
        return text

    def reset(self, step: Reference | str, journal: JournalPort | None = None) -> list[str]:
        """Forget the result of a step, and of all that refer to it, so that the next run does them anew.

        Steps that refer to it and are not in the plan now are forgotten as well: they may come back.

        Args:
            step: What `add` returned, or the key of a step, as `show` prints it.
            journal: Where it is written down; that of the last run by default.

        Returns:
            The keys of the steps that are left now.

        Raises:
            UnknownJournalStep: The plan has no such step.
            ForeignReference: It is a step of another plan.
            PlanBusy: The plan is being run.
            InvalidPlan: There is no journal, or there are no steps.

        Examples:
            >>> from torchsystem.plans import MemoryJournal, Plan
            >>> from torchsystem.services import Service
            >>> service, done = Service(), []
            >>> @service.handler
            ... def tune(size: int) -> int:
            ...     done.append(size)
            ...     return size * 2
            >>> plan = Plan("tuning", services=[service])
            >>> first = plan.add("tune", size=1)
            >>> second = plan.add("tune", size=first)
            >>> journal = MemoryJournal()
            >>> plan.run(journal)
            4
            >>> plan.reset(second)
            ['tune/1']
            >>> done.clear()
            >>> plan.run(journal)
            4
            >>> done
            [2]
        """
        kept = self._journal if journal is None else check_journal(journal)
        if kept is None:
            message = f"{self!r} was not run yet, so it knows no journal. Write plan.reset(step, journal)."
            raise InvalidPlan(message)
        with holding(kept, self.name, LAPSE, self._clock) as hold:
            known = kept.records(self.name)
            match = Match(self._steps, known)
            keys = [record.key for record in match.records]
            doomed = match.users(self._find(step, keys))
            kept.reset(self.name, hold.number, [one.key for one in known if one.key in doomed and one.state != "left"])
        return [key for key in keys if key in doomed]

    @contextmanager
    def _fixed(self, hold: Hold) -> Generator[None]:
        """Take no more steps for the length of a block."""
        self._runs.add(hold)
        try:
            yield
        finally:
            self._runs.discard(hold)

    def _find(self, step: Reference | str, keys: list[str]) -> int:
        if isinstance(step, Reference):
            return self._number(step)
        if step in keys:
            return keys.index(step)
        message = f"{self!r} has no step {step!r}. There are {', '.join(keys[:20])}{', ...' if len(keys) > 20 else ''}."  # noqa: PLR2004
        raise UnknownJournalStep(message)

    def _number(self, reference: Reference | None) -> int:
        """Return the number of a step; of the last one by default."""
        if not self._steps:
            message = f"{self!r} has nothing to do. Add steps: plan.add('train', ...)."
            raise InvalidPlan(message)
        if reference is None:
            return len(self._steps) - 1
        if not isinstance(reference, Reference) or reference.owner is not self:
            message = f"{reference!r} is no step of {self!r}. Write what plan.add(...) of this plan returned."
            raise ForeignReference(message)
        return reference.number

    def _enroll(self, journal: JournalPort, hold: Hold, accepted: set[str]) -> Match:
        """Write down what the steps are now, if that is accepted; return what is known of them."""
        match = Match(self._steps, journal.records(self.name))
        match.refuse(self.name, accepted)
        if match.other_work:
            journal.reset(self.name, hold.number, match.other_work)
            match = Match(self._steps, journal.records(self.name))
        journal.enroll(self.name, hold.number, match.new())
        return match

    def _tell_start(self, match: Match) -> None:
        if self.producer.wants(PlanStarted):
            done = sum(record.state == "finished" for record in match.records)
            self.producer.dispatch(PlanStarted(self.name, len(self._steps), done))

    def _conclude(self, runner: Runner, number: int) -> Any:
        """Tell of the end, and return the result."""
        keys = [record.key for record in runner.records]
        left = [step.number for step in self._steps if not runner.is_finished(step.number)]
        failed = [keys[one] for one in left if one in runner.failed]
        skipped = [keys[one] for one in left if one not in runner.failed]
        result = runner.result(number) if runner.is_finished(number) else None
        if self.producer.wants(PlanFinished):
            done = len(self._steps) - len(left)
            self.producer.dispatch(PlanFinished(self.name, result, done, tuple(failed), tuple(skipped)))
        if not runner.is_finished(number):
            message = (
                f"{keys[number]} of plan {self.name!r} has no result: {', '.join(failed)} failed and was skipped. "
                f"plan.show() tells how; the same line runs it again."
            )
            raise NoResult(message)
        return result
