"""The link between a handler and what its provider binds: made at the first call, and again after a change."""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Callable
from typing import Any, NoReturn

from torchsystem.depends import draw
from torchsystem.depends.generate import STALE, Generated, defaults, generate, makers, namespace
from torchsystem.depends.graph import Node, Plan
from torchsystem.depends.plan import is_hashable
from torchsystem.depends.signature import MISSING
from torchsystem.depends.solve import CallScope, named, raise_if_new, spread
from torchsystem.depends.unwind import Opened, close, refuse_second_yield, run, run_async


def _template(_state: Any) -> tuple[types.CodeType, types.CodeType]:
    """Hold the code of a handler that was never called: all it can do is have the real code written."""

    def handler(*args: Any, **kwargs: Any) -> Any:
        return _state[2].again(*args, **kwargs)

    async def async_handler(*args: Any, **kwargs: Any) -> Any:
        return await _state[2].again(*args, **kwargs)

    return handler.__code__, async_handler.__code__


_UNWRITTEN, _UNWRITTEN_ASYNC = _template(None)


class Linker:
    """Keeps one injected function in step with its provider.

    The generated code reads its binding from one cell, once. To change a binding is to replace what is in that cell;
    code that finds a binding of another tag comes back here (:meth:`again`), where the function gets the code for it.
    """

    __slots__ = ("__weakref__", "_cell", "_draw_up", "_lock", "_plan", "function", "generated", "keys")

    def __init__(self, plan: Plan, draw_up: Callable[[], Plan], lock: threading.RLock) -> None:
        self.function = self._make_function(plan)
        self.generated: Generated | None = None
        self._draw_up = draw_up
        self._lock = lock
        self._take(plan)

    def _make_function(self, plan: Plan) -> types.FunctionType:
        self._cell = types.CellType((STALE, (), self))
        if plan.kind.cleans_up:
            code = generate(plan, []).code
        else:
            code = _UNWRITTEN_ASYNC if plan.kind.is_async else _UNWRITTEN
        name = getattr(plan.handler, "__name__", type(plan.handler).__name__)
        function = types.FunctionType(code, namespace(plan), name, None, (self._cell,))
        if plan.kind.cleans_up:
            function.__defaults__, function.__kwdefaults__ = defaults(plan)
        functools.update_wrapper(function, plan.handler)
        return function

    def _take(self, plan: Plan) -> None:
        self._plan: Plan | None = plan
        self.keys = frozenset(key for key in plan.keys if is_hashable(key))

    def invalidate(self) -> None:
        """Have the binding made anew at the next call (the provider's lock is held)."""
        self._plan = None
        self._cell.cell_contents = (STALE, (), self)

    def plan(self) -> Plan:
        """Return the plan in force."""
        with self._lock:
            if self._plan is None:
                self._take(self._draw_up())
            assert self._plan is not None  # noqa: S101 - taken just now
            return self._plan

    def again(self, *args: Any, **kwargs: Any) -> Any:
        """Bind the function to the plan in force, and call it."""
        with self._lock:
            if self._cell.cell_contents[0] == STALE:  # else another thread was first
                self._link(self.plan())
        return self.function(*args, **kwargs)

    def _link(self, plan: Plan) -> None:
        nodes = plan.order()
        generated = self.generated = generate(plan, nodes)
        plan.lines = generated.lines
        called = makers(nodes, functools.partial(_refusal, plan))
        self.function.__defaults__, self.function.__kwdefaults__ = defaults(plan)
        self.function.__code__ = generated.code
        self._cell.cell_contents = (generated.tag, (plan.handler, *called, plan), self)

    def partly(self, plan: Plan, arguments: dict[str, object]) -> Any:
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
        arguments = _given(arguments)
        scope.enter(plan, arguments)
        return _prepared(plan, arguments)

    async def partly_async(self, plan: Plan, arguments: dict[str, object]) -> Any:
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
        scope, arguments = CallScope(), _given(arguments)
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

    @staticmethod
    def failed(plan: Plan, error: BaseException) -> None:
        """Name the failure of a dependency, if it has a name of its own."""
        raise_if_new(_named(plan, error), error)

    @staticmethod
    def ended(plan: Plan, error: BaseException, opened: tuple[Opened | None, ...]) -> None:
        """Close what was opened, after ``error``."""
        raise_if_new(run(close(filter(None, opened), _named(plan, error))), error)

    @staticmethod
    async def ended_async(plan: Plan, error: BaseException, opened: tuple[Opened | None, ...]) -> None:
        """Do the same where something must be awaited."""
        raise_if_new(await run_async(close(filter(None, opened), _named(plan, error))), error)

    @staticmethod
    def close(opened: tuple[Opened, ...]) -> None:
        """Close what was opened, after all went well."""
        raise_if_new(run(close(opened, None)), None)

    @staticmethod
    async def close_async(opened: tuple[Opened, ...]) -> None:
        """Do the same where something must be awaited."""
        raise_if_new(await run_async(close(opened, None)), None)

    @staticmethod
    def twice(opened: Opened) -> None:
        """Refuse a second yield."""
        raise_if_new(run(refuse_second_yield(opened)), None)

    def lacks(self, name: str) -> NoReturn:
        """Refuse a call without a required argument, in Python's words."""
        message = f"{self.function.__qualname__}() missing 1 required argument: {name!r}"
        raise TypeError(message)


def _given(arguments: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in arguments.items() if value is not MISSING}


def _prepared(plan: Plan, arguments: dict[str, object]) -> Callable[[], Any]:
    positional, keywords = spread(plan.parameters, arguments)
    return functools.partial(plan.handler, *positional, **keywords)


def _named(plan: Plan, error: BaseException) -> BaseException:
    """Name the failure of the dependency that is made in the line of the generated code that ``error`` left."""
    traceback = error.__traceback__
    node = None if traceback is None else plan.lines.get(traceback.tb_lineno)
    return error if node is None else named(plan, node, error)


def _refusal(plan: Plan, node: Node) -> Callable[[], object]:
    def refuse() -> object:
        raise draw.error(plan, node)

    return refuse
