"""The link between a handler and what its provider binds: made at registration, and again after a change."""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Callable
from typing import Any, TypeAlias

from torchsystem.depends import draw
from torchsystem.depends.bound import BoundCall
from torchsystem.depends.generate import defaults, makers, namespace
from torchsystem.depends.graph import Factory, Node, Plan
from torchsystem.depends.plan import is_hashable
from torchsystem.depends.recipes import Recipe
from torchsystem.depends.sentinels import MISSING, NEEDED
from torchsystem.depends.solve import CallScope, spread

FindRecipe: TypeAlias = Callable[[], "Recipe"]
Enlist: TypeAlias = Callable[["Linker"], None]


class Linker:
    """Keeps one injected function in step with its provider.

    The binding in force is the content of the function's one cell. To change it is to replace it there; a call that
    comes with another one comes back here (`other`), where the function gets the code for the new one.

    Args:
        recipe: What is to be injected, and how, under the overrides in force.
        find: Finds the recipe again after a change.
        enlist: Takes note of the keys a change of which concerns it.
        lock: The provider's, held where a binding is made or unmade.
    """

    __slots__ = (
        "__weakref__", "_cell", "_defaults", "_enlist", "_find", "_lock", "_plan",
        "_stale", "function", "generated", "keys",
    )  # fmt: skip

    def __init__(self, recipe: Recipe, find: FindRecipe, enlist: Enlist, lock: threading.RLock) -> None:
        handler, parameters = recipe.plan.handler, recipe.plan.parameters
        self.keys: set[Factory] = set()
        self._enlist = enlist
        self._defaults = defaults(parameters)
        self._find = find
        self._lock = lock
        self._stale = (self,)
        self._cell = types.CellType(self._stale)
        name = getattr(handler, "__name__", type(handler).__name__)
        names = namespace(parameters)
        self.function = _dressed(types.FunctionType(recipe.generated.code, names, name, None, (self._cell,)), handler)
        self._link(recipe)

    def invalidate(self) -> None:
        """Have the binding made anew at the next call (the lock is held)."""
        self._cell.cell_contents = self._stale

    def other(self, values: tuple[object, ...]) -> Any:
        """Call the handler where the call is not the usual one: bound anew, or with dependencies passed by hand."""
        plan, binding = self._in_force()
        arguments = _by_name(plan, values)
        if all(self._is_mark(arguments[name]) for name in plan.needs):
            positional, keywords = spread(plan.parameters, arguments | dict.fromkeys(plan.needs, binding))
            return self.function(*positional, **keywords)
        return self._partly_async(plan, arguments) if plan.kind.is_async else self._partly(plan, arguments)

    def _in_force(self) -> tuple[Plan, tuple[object, ...]]:
        with self._lock:
            if self._cell.cell_contents is self._stale:
                self._link(self._find())
            return self._plan, self._cell.cell_contents

    def _link(self, recipe: Recipe) -> None:
        """Give the function the code and the binding for ``recipe``.

        The order keeps other threads whole. The cell is stale until the end, so that they come here and wait; at no
        moment does old code stand with new defaults; and old defaults never pass for the new binding.
        """
        plan, nodes, self.generated, _ = recipe
        self._plan = plan
        keys = set(filter(is_hashable, plan.keys))
        if keys != self.keys:
            self.keys = keys
            self._enlist(self)
        call = BoundCall(plan, nodes, self.generated.lines, self)
        binding = (plan.handler, *makers(nodes, functools.partial(_refusal, plan)), call)
        self.function.__code__ = self.generated.code
        mark = MISSING if plan.kind.cleans_up else binding
        positional, keywords = self._defaults
        self.function.__defaults__ = tuple([mark if value is NEEDED else value for value in positional])
        if keywords:
            self.function.__kwdefaults__ = {n: mark if value is NEEDED else value for n, value in keywords.items()}
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

    def enter(self, values: tuple[object, ...]) -> tuple[CallScope, Any]:
        """Open what a generator handler needs; return the scope to close, and the handler's generator."""
        scope, plan = CallScope(), self._in_force()[0]
        return scope, self._entered(scope, plan, _by_name(plan, values))()

    async def enter_async(self, values: tuple[object, ...]) -> tuple[CallScope, Any]:
        """Do the same for an async generator handler."""
        plan = self._in_force()[0]
        scope, call = await self._entered_async(plan, _by_name(plan, values))
        return scope, call()


def _dressed(function: types.FunctionType, handler: Any) -> types.FunctionType:
    """Give ``function`` the looks of ``handler``: `functools.update_wrapper`, in a third of its time."""
    function.__module__ = getattr(handler, "__module__", None) or function.__module__
    function.__qualname__ = getattr(handler, "__qualname__", function.__name__)
    function.__doc__ = getattr(handler, "__doc__", None)
    function.__annotations__ = getattr(handler, "__annotations__", {})
    if isinstance(handler, types.FunctionType | types.MethodType):
        function.__dict__.update(handler.__dict__)
    function.__dict__["__wrapped__"] = handler
    return function


def _by_name(plan: Plan, values: tuple[object, ...]) -> dict[str, object]:
    return {parameter.name: value for parameter, value in zip(plan.parameters, values, strict=True)}


def _prepared(plan: Plan, arguments: dict[str, object]) -> Callable[[], Any]:
    positional, keywords = spread(plan.parameters, arguments)
    return functools.partial(plan.handler, *positional, **keywords)


def _refusal(plan: Plan, node: Node) -> Callable[[], object]:
    def refuse() -> object:
        raise draw.error(plan, node)

    return refuse
