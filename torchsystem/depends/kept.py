"""What a provider keeps: values that are made once and live until it is closed."""

from __future__ import annotations

import atexit
import sys
import threading
import warnings
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, NoReturn
from weakref import WeakSet, WeakValueDictionary

from torchsystem.depends.graph import Node, Plan, in_order
from torchsystem.depends.mistakes import name_of
from torchsystem.depends.sentinels import MISSING
from torchsystem.depends.solve import CallScope, raise_if_new, solve
from torchsystem.depends.unwind import Opened, close, reraise, run, run_async
from torchsystem.errors import AsyncInSync, CyclicDependency

if TYPE_CHECKING:
    from concurrent.futures import Future


class Kept:
    """The one value of a node: made when first asked for, by one thread or task, whoever else asks meanwhile."""

    __slots__ = ("_generator", "_keep", "_lock", "_maker", "_making", "_node", "value")

    def __init__(self, node: Node, keep: Keep) -> None:
        self.value: object = MISSING
        self._node = node
        self._keep = keep
        self._lock = threading.RLock()
        self._maker: object = None  # the thread or task that is making the value
        self._making: Future[None] | None = None
        self._generator: Opened | None = None

    def get(self) -> object:
        """Return the value, made if nobody did."""
        if (value := self.value) is not MISSING:
            return value
        with self._lock:
            if (value := self.value) is not MISSING:
                return value
            if self._maker is not None:  # this very thread, or the lock would be another's
                self._refuse_itself()
            self._maker = threading.get_ident()
            try:
                scope = CallScope()
                error = run(solve(scope, self._plan(), self._nodes(), {}, self._node))
                if error is not None:
                    scope.exit(error)
                    reraise(error)
                return self._keep.add(self, scope)
            finally:
                self._maker = None

    async def get_async(self) -> object:
        """Return the value, made if no other task did, of whatever event loop."""
        import asyncio  # noqa: PLC0415 - 26 ms that sync users do not pay; here it is loaded already
        from concurrent.futures import Future  # noqa: PLC0415

        task = asyncio.current_task()
        while True:
            with self._lock:
                if (value := self.value) is not MISSING and not self._is_over():
                    return value
                making = self._making
                if making is None:
                    self._making, self._maker = Future(), task
                    break
                if self._maker is task:
                    self._refuse_itself()
            await asyncio.wrap_future(making)
        try:
            scope = CallScope()
            error = await run_async(solve(scope, self._plan(), self._nodes(), {}, self._node))
            if error is not None:
                await scope.exit_async(error)
                reraise(error)
            return self._keep.add(self, scope)
        finally:
            with self._lock:
                making, self._making, self._maker = self._making, None, None
            making.set_result(None)  # whoever waits looks again

    def take(self, scope: CallScope) -> object:
        """Take the value over from the scope in which it was made."""
        self.value = value = scope.values[self._node]
        self._generator = scope.opened[-1] if self._node.kind.cleans_up else None
        return value

    def _is_over(self) -> bool:
        """Tell whether an event loop that ended has closed the generator behind our back."""
        return isinstance(self._generator, AsyncGeneratorType) and self._generator.ag_frame is None

    def _refuse_itself(self) -> NoReturn:
        name = name_of(self._node.implementation)
        message = f"{name} is kept, and needs itself while it is made. Let it do without the handler that asks for it."
        raise CyclicDependency(message)

    def _nodes(self) -> list[Node]:
        return [*in_order(self._node.nodes), self._node]

    def _plan(self) -> Plan:
        """Draw a plan with this node at its root, for the tree in an error."""
        plan = Plan(self._node.implementation, self._node.kind, ())
        plan.needs[name_of(self._node.declared)] = self._node
        return plan


class Keep:
    """All that one provider keeps."""

    def __init__(self) -> None:
        self._nodes: WeakValueDictionary[tuple[object, ...], Node] = WeakValueDictionary()
        self._lock = threading.RLock()
        self._made: list[Kept] = []
        self._opened: list[Opened] = []

    def intern(self, node: Node) -> Node:
        """Return the one node that is made as ``node`` is, in all plans of the provider."""
        with self._lock:
            known = self._nodes.setdefault(node.structure, node)
            if known.kept is None:
                known.kept = Kept(known, self)
            return known

    def add(self, kept: Kept, scope: CallScope) -> object:
        """Take over a value and all that was opened for it; return the value."""
        with self._lock:
            self._opened += scope.opened
            self._made.append(kept)
            if self._opened:
                _warn_at_exit(self)
            return kept.take(scope)

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

    def warn_if_open(self) -> None:
        """Say what was never closed."""
        if self._opened:
            message = (
                f"a provider was never closed: {', '.join(g.__qualname__ for g in self._opened)} still open. "
                f"Write `with provider:` around the run, or call `provider.close()`."
            )
            warnings.warn(message, ResourceWarning, stacklevel=1)

    def _forget(self) -> list[Opened]:
        with self._lock:
            made, self._made = self._made, []
            opened, self._opened = self._opened, []
            for kept in made:
                kept.value = MISSING
        return opened[::-1]

    def __del__(self) -> None:
        if not sys.is_finalizing():  # at exit it was said already
            self.warn_if_open()


_open_at_exit: WeakSet[Keep] = WeakSet()


def _warn_at_exit(keep: Keep) -> None:
    if not _open_at_exit:
        atexit.unregister(_say_what_is_open)
        atexit.register(_say_what_is_open)
    _open_at_exit.add(keep)


def _say_what_is_open() -> None:
    for keep in list(_open_at_exit):
        keep.warn_if_open()
