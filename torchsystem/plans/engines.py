"""Engines: what runs the steps of a plan, behind one way to hand them over and to hear what came of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from torchsystem.errors import EngineBroken, InvalidPlan
from torchsystem.plans.tasks import Outcome, Task, perform

ExecutorFactory: TypeAlias = Callable[[], Executor]

BREAKS = 3  # how often an engine may break down before any step is done

logger = logging.getLogger("torchsystem.plans")


class Inline:
    """Do each step at once, where the plan is run."""

    def __init__(self) -> None:
        self._done: list[tuple[int, Outcome]] = []

    @property
    def is_free(self) -> bool:
        """Whether it takes another step."""
        return not self._done

    def hand_over(self, number: int, task: Task) -> None:
        """Do a step."""
        self._done.append((number, perform(task)))

    def wait(self, timeout: float | None) -> tuple[int, Outcome | BaseException] | None:  # noqa: ARG002 - nothing to wait for
        """Return what came of it."""
        return self._done.pop(0)

    def cancel(self) -> list[int]:
        """Return the numbers of the steps that will not be done: none is ever waiting."""
        return []

    def close(self) -> None:
        """Do nothing."""


class Pool:
    """Hand steps over to an executor, and make a new one where it has broken down.

    Args:
        factory: What makes the executor.
    """

    is_free = True

    def __init__(self, factory: ExecutorFactory) -> None:
        self._factory = factory
        self._executor = self._make()
        self._tasks: dict[int, Task] = {}
        self._futures: dict[Future[Outcome], int] = {}
        self._done: SimpleQueue[Future[Outcome]] = SimpleQueue()
        self._breaks = 0
        self._cancelled = False
        self._hand_overs = count()

    def hand_over(self, number: int, task: Task) -> None:
        """Let the executor do a step.

        Raises:
            EngineBroken: It breaks down again and again.
        """
        self._tasks[number] = task
        error = self._submit(number)
        if error is not None:
            self._make_anew(error)

    def wait(self, timeout: float | None) -> tuple[int, Outcome | BaseException] | None:
        """Return what came of the next step that is done; None if it takes too long.

        Raises:
            EngineBroken: The executor breaks down again and again.
        """
        try:
            future = self._done.get(timeout=timeout)
        except Empty:
            return None
        number = self._futures.pop(future, None)
        if number is None:  # of an executor that has broken down, or cancelled
            return None
        try:
            outcome: Outcome | BaseException = future.result()
        except (BrokenExecutor, CancelledError) as error:
            self._make_anew(error)
            return None
        except BaseException as error:  # noqa: BLE001 - it is handed on
            outcome = error
        else:
            self._breaks = 0
            if not isinstance(outcome, Outcome):
                message = f"the executor says of step {self._tasks[number].key} that {outcome!r} came of it"
                outcome = EngineBroken(f"{message}: return what the function that was submitted has returned.")
        del self._tasks[number]
        return number, outcome

    def cancel(self) -> list[int]:
        """Take back what has not begun; return the numbers of those steps."""
        self._cancelled = True
        taken = [future for future in list(self._futures) if future.cancel()]
        numbers = [self._futures.pop(future) for future in taken]
        for number in numbers:
            del self._tasks[number]
        return numbers

    def close(self) -> None:
        """Wait for what is under way, and let the executor go."""
        self.cancel()
        self._executor.shutdown(wait=True)

    def _make(self) -> Executor:
        executor: Any = self._factory()
        if not callable(getattr(executor, "submit", None)) or not callable(getattr(executor, "shutdown", None)):
            message = (
                f"executor={self._factory!r} makes {executor!r}, which is no executor. Write what makes one: "
                f"executor=lambda: ThreadPoolExecutor(4), or executor=client.get_executor."
            )
            raise InvalidPlan(message)
        return executor  # type: ignore[no-any-return]

    def _make_anew(self, error: BaseException) -> None:
        """Make another executor, and hand over to it what the broken one had.

        Raises:
            EngineBroken: It was of no use so often.
        """
        broken: BaseException | None = error
        while broken is not None:
            self._breaks += 1
            keys = ", ".join(task.key for task in self._tasks.values())
            self._futures.clear()
            self._executor.shutdown(wait=False)
            if self._cancelled or self._breaks > BREAKS:
                message = (
                    f"the executor broke down {self._breaks} times before any step was done: {broken!r}. One of these "
                    f"steps may have ended its process, as when memory is short: {keys}."
                )
                raise EngineBroken(message) from broken
            logger.warning("the executor broke down (%r): a new one gets %s", broken, keys)
            self._executor = self._make()
            broken = next(filter(None, map(self._submit, self._tasks)), None)

    def _submit(self, number: int) -> BrokenExecutor | None:
        """Give the executor a step; return how it broke down, if it has."""
        try:
            future = self._executor.submit(perform, self._tasks[number], next(self._hand_overs))
        except BrokenExecutor as error:
            return error
        except RuntimeError as error:  # as of an executor that was shut down after another run
            error.add_note("executor= is to make a new executor each time that it is called")
            raise
        if not callable(getattr(future, "add_done_callback", None)):
            message = (
                f"executor={self._factory!r}: {self._executor!r}.submit(...) returned {future!r}, which is no Future."
            )
            raise InvalidPlan(message)
        self._futures[future] = number
        future.add_done_callback(self._done.put)
        return None


Engine: TypeAlias = Inline | Pool


def engine(executor: ExecutorFactory | None) -> Engine:
    """Return what runs the steps.

    Raises:
        InvalidPlan: What was given makes no executor.
    """
    return Inline() if executor is None else Pool(executor)


def check_factory(executor: object) -> None:
    """Refuse what can make no executor.

    Raises:
        InvalidPlan: It cannot.
    """
    if executor is not None and (isinstance(executor, Executor) or not callable(executor)):
        message = (
            f"executor={executor!r}: write what makes one, so that another can be made where it breaks down: "
            f"executor=lambda: ThreadPoolExecutor(4), or executor=client.get_executor."
        )
        raise InvalidPlan(message)
