"""What the generated code turns to when something ends otherwise than it should."""

from __future__ import annotations

from typing import Any, Protocol

from torchsystem.depends.graph import Node, Plan
from torchsystem.depends.solve import CallScope, named, raise_if_new
from torchsystem.depends.unwind import Opened, close, refuse_second_yield, run, run_async


class Unusual(Protocol):
    """Takes over the calls that the generated code does not carry out."""

    def other(self, values: tuple[object, ...]) -> Any:
        """Call the handler where the call is not the usual one, with the values of all parameters."""

    def enter(self, values: tuple[object, ...]) -> tuple[CallScope, Any]:
        """Open what a generator handler needs."""
        ...

    async def enter_async(self, values: tuple[object, ...]) -> tuple[CallScope, Any]:
        """Do the same for an async generator handler."""
        ...


class BoundCall:
    """The last part of a binding: knows the plan for which the code was written, and which line makes which node."""

    __slots__ = ("_lines", "_nodes", "_plan", "enter", "enter_async", "linker", "other")

    def __init__(self, plan: Plan, nodes: list[Node], lines: dict[int, int], linker: Unusual) -> None:
        self._plan = plan
        self._nodes = nodes
        self._lines = lines
        self.linker = linker
        self.other = linker.other
        self.enter, self.enter_async = linker.enter, linker.enter_async

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
        number = None if traceback is None else self._lines.get(traceback.tb_lineno)
        return error if number is None else named(self._plan, self._nodes[number], error)
