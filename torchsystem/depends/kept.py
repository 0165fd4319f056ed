"""What a provider keeps: values that are made once and live until it is closed."""

from __future__ import annotations

import threading
from types import AsyncGeneratorType
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from torchsystem.depends.graph import Node, Plan, in_order
from torchsystem.depends.mistakes import name_of
from torchsystem.depends.sentinels import MISSING
from torchsystem.depends.solve import CallScope, raise_if_new, solve
from torchsystem.depends.unwind import Opened, close, reraise, run, run_async
from torchsystem.errors import AsyncInSync

if TYPE_CHECKING:
    import asyncio


class Kept:
    """The one value of a node: made when first asked for, by one thread or task, whoever else asks meanwhile."""

    __slots__ = ("_keep", "_lock", "_node", "_task_locks", "value")

    def __init__(self, node: Node, keep: Keep) -> None:
        self.value: object = MISSING
        self._node = node
        self._keep = keep
        self._lock = threading.RLock()
        self._task_locks: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}

    def get(self) -> object:
        """Return the value, made if nobody did."""
        if (value := self.value) is not MISSING:
            return value
        with self._lock:
            if self.value is MISSING:
                scope = CallScope()
                error = run(solve(scope, self._plan(), self._nodes(), {}, self._node))
                if error is not None:
                    scope.exit(error)
                    reraise(error)
                self._keep.add(self, scope)
            return self.value

    async def get_async(self) -> object:
        """Return the value, made if no other task of this event loop did."""
        if (value := self.value) is not MISSING:
            return value
        async with self._task_lock():
            if self.value is MISSING:
                scope = CallScope()
                error = await run_async(solve(scope, self._plan(), self._nodes(), {}, self._node))
                if error is not None:
                    await scope.exit_async(error)
                    reraise(error)
                self._keep.add(self, scope)
            return self.value

    def take(self, scope: CallScope) -> None:
        """Take the value over from the scope in which it was made."""
        self.value = scope.values[self._node]

    def _nodes(self) -> list[Node]:
        return [*in_order(self._node.nodes), self._node]

    def _plan(self) -> Plan:
        """Draw a plan with this node at its root, for the tree in an error."""
        plan = Plan(self._node.implementation, self._node.kind, ())
        plan.needs[name_of(self._node.declared)] = self._node
        return plan

    def _task_lock(self) -> asyncio.Lock:
        import asyncio  # noqa: PLC0415 - 26 ms that sync users do not pay; here it is loaded already

        return self._task_locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())


class Keep:
    """All that one provider keeps."""

    def __init__(self) -> None:
        self.nodes: WeakValueDictionary[tuple[object, ...], Node] = WeakValueDictionary()
        self._lock = threading.RLock()
        self._made: list[Kept] = []
        self._opened: list[Opened] = []

    def make(self, node: Node) -> Kept:
        """Make the place where the value of ``node`` is kept."""
        return Kept(node, self)

    def add(self, kept: Kept, scope: CallScope) -> None:
        """Take over a value and all that was opened for it."""
        with self._lock:
            self._opened += scope.opened
            self._made.append(kept)
            kept.take(scope)

    @property
    def open_names(self) -> list[str]:
        """Name the generators that are still open, in the order of opening."""
        return [generator.__qualname__ for generator in self._opened]

    def close(self, error: BaseException | None = None) -> None:
        """Close all in reverse, and forget all values: the next use makes them anew.

        Raises:
            AsyncInSync: An async generator is open, whose end must be awaited.
        """
        if waits := [g.__qualname__ for g in self._opened if isinstance(g, AsyncGeneratorType)]:
            message = (
                f"{', '.join(waits)}: closing an async generator must be awaited. Write `await provider.aclose()`."
            )
            raise AsyncInSync(message)
        raise_if_new(run(close(self._forget(), error)), error)

    async def close_async(self, error: BaseException | None = None) -> None:
        """Do the same where something must be awaited."""
        raise_if_new(await run_async(close(self._forget(), error)), error)

    def _forget(self) -> list[Opened]:
        with self._lock:
            made, self._made = self._made, []
            opened, self._opened = self._opened, []
            for kept in made:
                kept.value = MISSING
        return opened[::-1]
