"""What the generated code turns to when something ends otherwise than it should."""

from __future__ import annotations

from typing import Any, Protocol

from torchsystem.depends.graph import Plan
from torchsystem.depends.solve import named, raise_if_new
from torchsystem.depends.unwind import Opened, close, refuse_second_yield, run, run_async


class Unusual(Protocol):
    """Takes over the calls that the generated code does not carry out."""

    def first(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the handler for which no code was written when the call began."""

    def other(self, arguments: dict[str, object]) -> Any:
        """Call the handler where the call is not the usual one, with all arguments by name."""


class BoundCall:
    """The last part of a binding: knows the plan for which the code was written."""

    __slots__ = ("_plan", "first", "linker", "other")

    def __init__(self, plan: Plan, linker: Unusual) -> None:
        self._plan = plan
        self.linker = linker
        self.first = linker.first  # a call may have begun before there was any code
        self.other = linker.other

    def failed(self, error: BaseException) -> None:
        """Raise the failure of a dependency by its own name, if it has one."""
        raise_if_new(self._named(error), error)

    def ended(self, error: BaseException, opened: tuple[Opened | None, ...]) -> None:
        """Close what was opened, after ``error``; return for that to go on."""
        raise_if_new(run(close(filter(None, opened), self._named(error))), error)

    async def ended_async(self, error: BaseException, opened: tuple[Opened | None, ...]) -> None:
        """Do the same where something must be awaited."""
        raise_if_new(await run_async(close(filter(None, opened), self._named(error))), error)

    def close(self, opened: tuple[Opened, ...]) -> None:
        """Close what was opened, after all went well."""
        raise_if_new(run(close(opened, None)), None)

    async def close_async(self, opened: tuple[Opened, ...]) -> None:
        """Do the same where something must be awaited."""
        raise_if_new(await run_async(close(opened, None)), None)

    def twice(self, opened: Opened) -> None:
        """Refuse a second yield."""
        raise_if_new(run(refuse_second_yield(opened)), None)

    def _named(self, error: BaseException) -> BaseException:
        """Name the failure of the dependency that is made in the line of the generated code that ``error`` left."""
        traceback = error.__traceback__
        node = None if traceback is None else self._plan.lines.get(traceback.tb_lineno)
        return error if node is None else named(self._plan, node, error)
