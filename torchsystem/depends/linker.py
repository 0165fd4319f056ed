"""The link between a handler and what its provider binds: made at the first call, and again after a change."""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Callable
from typing import Any

from torchsystem.depends import draw
from torchsystem.depends.bound import BoundCall
from torchsystem.depends.generate import Generated, defaults, generate, makers, namespace
from torchsystem.depends.graph import Node, Plan
from torchsystem.depends.plan import is_hashable
from torchsystem.depends.signature import MISSING
from torchsystem.depends.solve import CallScope, spread


def _template(_bound: Any) -> tuple[types.CodeType, types.CodeType]:
    """Hold the code of a handler that was never called: all it can do is have the real code written."""

    def injected(*args: Any, **kwargs: Any) -> Any:
        return _bound[-1].first(args, kwargs)

    async def injected_async(*args: Any, **kwargs: Any) -> Any:
        return await _bound[-1].first(args, kwargs)

    return injected.__code__, injected_async.__code__


_UNWRITTEN, _UNWRITTEN_ASYNC = _template(None)


class Linker:
    """Keeps one injected function in step with its provider.

    The binding in force is the content of the function's one cell. To change it is to replace it there; a call that
    comes with another one comes back here (:meth:`other`), where the function gets the code for the new one.
    """

    __slots__ = ("__weakref__", "_cell", "_draw_up", "_lock", "_plan", "_stale", "function", "generated", "keys")

    def __init__(self, plan: Plan, draw_up: Callable[[], Plan], lock: threading.RLock) -> None:
        self._stale = (self,)
        self._cell = types.CellType(self._stale)
        self._draw_up = draw_up
        self._lock = lock
        self.generated: Generated | None = None
        self.function = self._make_function(plan)
        self._take(plan)

    def _make_function(self, plan: Plan) -> types.FunctionType:
        if plan.kind.cleans_up:
            self.generated = generate(plan, [])
            code = self.generated.code
        else:
            code = _UNWRITTEN_ASYNC if plan.kind.is_async else _UNWRITTEN
        name = getattr(plan.handler, "__name__", type(plan.handler).__name__)
        function = types.FunctionType(code, namespace(plan), name, None, (self._cell,))
        if plan.kind.cleans_up:
            function.__defaults__, function.__kwdefaults__ = defaults(plan, MISSING)
        functools.update_wrapper(function, plan.handler)
        return function

    def _take(self, plan: Plan) -> None:
        self._plan: Plan | None = plan
        self.keys = frozenset(key for key in plan.keys if is_hashable(key))

    def invalidate(self) -> None:
        """Have the binding made anew at the next call (the provider's lock is held)."""
        self._plan = None
        self._cell.cell_contents = self._stale

    def plan(self) -> Plan:
        """Return the plan in force."""
        with self._lock:
            if self._plan is None:
                self._take(self._draw_up())
            assert self._plan is not None  # noqa: S101 - taken just now
            return self._plan

    def first(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Bind the function to the plan in force, and call it."""
        self._binding()
        return self.function(*args, **kwargs)

    def other(self, arguments: dict[str, object]) -> Any:
        """Call the handler where the call is not the usual one: bound anew, or with dependencies passed by hand."""
        with self._lock:
            binding = self._binding()
            plan = self.plan()
        needs = plan.needs
        if all(self._is_mark(arguments[name]) for name in needs):
            positional, keywords = spread(plan.parameters, arguments | dict.fromkeys(needs, binding))
            return self.function(*positional, **keywords)
        return self._partly_async(plan, arguments) if plan.kind.is_async else self._partly(plan, arguments)

    def _binding(self) -> tuple[object, ...]:
        with self._lock:
            if self._cell.cell_contents is self._stale:
                self._link(self.plan())
            binding: tuple[object, ...] = self._cell.cell_contents
            return binding

    def _link(self, plan: Plan) -> None:
        """Write the code for ``plan`` and bind it.

        The order keeps other threads whole. The cell is stale until the end, so that they come here and wait; at no
        moment does old code stand with new defaults; and old defaults never pass for the new binding.
        """
        nodes = plan.order()
        generated = self.generated = generate(plan, nodes)
        plan.lines = generated.lines
        binding = (plan.handler, *makers(nodes, functools.partial(_refusal, plan)), BoundCall(plan, self))
        self.function.__code__ = generated.code
        self.function.__defaults__, self.function.__kwdefaults__ = defaults(plan, binding)
        self._cell.cell_contents = binding

    def _is_mark(self, value: object) -> bool:
        """Tell whether ``value`` is one of our bindings, and not something that the caller gave."""
        return value is MISSING or (
            type(value) is tuple and bool(value) and isinstance(value[-1], BoundCall) and value[-1].linker is self
        )

    def _given(self, arguments: dict[str, object]) -> dict[str, object]:
        return {name: value for name, value in arguments.items() if not self._is_mark(value)}

    def _partly(self, plan: Plan, arguments: dict[str, object]) -> Any:
        """Call the handler with some of its dependencies passed by hand: those are not made."""
        scope = CallScope()
        call = self._entered(scope, plan, arguments)
        try:
            result = call()
        except BaseException as error:
            scope.exit(error)
            raise
        scope.exit(None)
        return result

    def _entered(self, scope: CallScope, plan: Plan, arguments: dict[str, object]) -> Callable[[], Any]:
        arguments = self._given(arguments)
        scope.enter(plan, arguments)
        return _prepared(plan, arguments)

    async def _partly_async(self, plan: Plan, arguments: dict[str, object]) -> Any:
        """Do the same for an async handler."""
        scope, call = await self._entered_async(plan, arguments)
        try:
            result = await call()
        except BaseException as error:
            await scope.exit_async(error)
            raise
        await scope.exit_async(None)
        return result

    async def _entered_async(self, plan: Plan, arguments: dict[str, object]) -> tuple[CallScope, Callable[[], Any]]:
        scope, arguments = CallScope(), self._given(arguments)
        await scope.enter_async(plan, arguments)
        return scope, _prepared(plan, arguments)

    def enter(self, arguments: dict[str, object]) -> tuple[CallScope, Any]:
        """Open what a generator handler needs; return the scope to close, and the handler's generator."""
        scope = CallScope()
        return scope, self._entered(scope, self.plan(), arguments)()

    async def enter_async(self, arguments: dict[str, object]) -> tuple[CallScope, Any]:
        """Do the same for an async generator handler."""
        scope, call = await self._entered_async(self.plan(), arguments)
        return scope, call()


def _prepared(plan: Plan, arguments: dict[str, object]) -> Callable[[], Any]:
    positional, keywords = spread(plan.parameters, arguments)
    return functools.partial(plan.handler, *positional, **keywords)


def _refusal(plan: Plan, node: Node) -> Callable[[], object]:
    def refuse() -> object:
        raise draw.error(plan, node)

    return refuse
