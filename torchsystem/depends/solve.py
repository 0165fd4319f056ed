"""How a plan is carried out, step by step: the simple version, on which the generated one is tested.

It serves wherever the way to a value is not the common one: a dependency passed by hand, a handler that is itself a
generator, values that are kept, and several functions that share one call.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from torchsystem.depends import draw
from torchsystem.depends.graph import Argument, Node, Plan, Problem
from torchsystem.depends.kinds import Kind, unwrapped
from torchsystem.depends.mistakes import name_of
from torchsystem.depends.signature import KEYWORD_ONLY, VAR_KEYWORD, VAR_POSITIONAL, Parameters
from torchsystem.depends.unwind import Opened, Steps, close, raise_if_failed, reraise, run, run_async
from torchsystem.errors import NeverYielded, UnboundInterface


class CallScope:
    """The values made for one call, and what has to be closed after it."""

    __slots__ = ("opened", "values")

    def __init__(self) -> None:
        self.values: dict[Node, object] = {}
        self.opened: list[Opened] = []

    def enter(self, plan: Plan, arguments: dict[str, object]) -> None:
        """Make what ``plan`` needs beside ``arguments``, and add it to them; on failure, close what was opened."""
        try:
            self.make(plan, arguments)
        except BaseException as error:
            self.exit(error)
            raise

    def make(self, plan: Plan, arguments: dict[str, object]) -> None:
        """Do the same, and leave open what was opened, whatever fails."""
        error = run(solve(self, plan, plan.order(arguments), arguments))
        if error is not None:
            reraise(error)
        self._add(plan, arguments)

    async def enter_async(self, plan: Plan, arguments: dict[str, object]) -> None:
        """Do the same where something must be awaited."""
        error = await run_async(solve(self, plan, plan.order(arguments), arguments))
        if error is not None:
            await self.exit_async(error)
            reraise(error)
        self._add(plan, arguments)

    def exit(self, error: BaseException | None) -> None:
        """Close everything; raise what section "clean-up" of the guide says, unless it is ``error`` itself."""
        opened, self.opened = self.opened[::-1], []
        raise_if_new(run(close(opened, error)), error)

    async def exit_async(self, error: BaseException | None) -> None:
        """Do the same where something must be awaited."""
        opened, self.opened = self.opened[::-1], []
        raise_if_new(await run_async(close(opened, error)), error)

    def _add(self, plan: Plan, arguments: dict[str, object]) -> None:
        arguments.update((name, self.values[node]) for name, node in plan.needs.items() if name not in arguments)


def raise_if_new(outcome: BaseException | None, error: BaseException | None) -> None:
    """Raise what closing came to, unless it is nothing or the ``error`` that is on its way already."""
    if outcome is not None and outcome is not error:
        reraise(outcome)


def solve(
    scope: CallScope, plan: Plan, nodes: Iterable[Node], arguments: Mapping[str, object], root: Node | None = None
) -> Steps[BaseException | None]:
    """Make the values of ``nodes`` that ``scope`` does not have yet.

    Args:
        scope: Where the values go, and what is opened on the way.
        plan: Whose nodes they are, for the tree in an error.
        nodes: What to make, dependencies first.
        arguments: What was passed to the handler, by name.
        root: The node whose value is kept and is being made now; others that are kept are asked for theirs.

    Returns:
        The exception that ended it, None if all went well. (Raised in here, a ``StopIteration`` would change.)
    """
    for node in nodes:
        if node in scope.values:
            continue
        try:
            if node.kept is not None and node is not root:
                value: Any = raise_if_failed((yield node.kept.get_async())) if node.waits else node.kept.get()
            else:
                value = _call(node, plan, scope, arguments)
                if node.kind.cleans_up:
                    scope.opened.append(value)
                if node.kind is Kind.GENERATOR:
                    value = next(value)
                elif node.kind is Kind.ASYNC_GENERATOR:
                    value = raise_if_failed((yield value.__anext__()))
                elif node.kind is Kind.COROUTINE:
                    value = raise_if_failed((yield value))
        except BaseException as error:  # noqa: BLE001 - returned, to be raised outside of this generator
            return named(plan, node, error)
        scope.values[node] = value
    return None


def _call(node: Node, plan: Plan, scope: CallScope, arguments: Mapping[str, object]) -> Any:
    if node.problem is not None:
        raise draw.error(plan, node)
    positional: list[object] = []
    keywords: dict[str, object] = {}
    for name, by_keyword, source in node.inputs:
        value = _value(source, scope, arguments)
        if by_keyword:
            keywords[name] = value
        else:
            positional.append(value)
    return node.target(*positional, **keywords)


def _value(source: Node | Argument, scope: CallScope, arguments: Mapping[str, object]) -> object:
    if isinstance(source, Node):
        return scope.values[source]
    if source.node is None or source.name in arguments:
        return arguments[source.name]
    return scope.values[source.node]


def named(plan: Plan, node: Node, error: BaseException) -> BaseException:
    """Give the two failures that have a name of their own that name: never yielded, and not implemented."""
    problem = None
    ended = StopAsyncIteration if node.kind is Kind.ASYNC_GENERATOR else StopIteration
    if node.kind.cleans_up and isinstance(error, ended):
        name = name_of(node.implementation)
        problem = Problem(
            NeverYielded, f"{name} ended without a yield. Yield the value once, on every way through the function."
        )
    elif isinstance(error, NotImplementedError) and _raised_in(node.target, error):
        name = name_of(node.declared)
        problem = Problem(
            UnboundInterface,
            f"{name_of(node.implementation)} is not implemented; nobody bound an implementation. In the composition "
            f"root, write `dependency_overrides[{name}] = ...` on the service (or its provider).",
        )
    if problem is None:
        return error
    result = draw.error(plan, node, problem)
    result.__cause__ = None if isinstance(result, NeverYielded) else error
    result.__suppress_context__ = True
    return result


def _raised_in(function: Any, error: BaseException) -> bool:
    """Tell whether ``error`` was raised by a statement of ``function`` itself."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    while isinstance(function, functools.partial):
        function = function.func
    made_by = ("__init__", "__new__", "__post_init__") if isinstance(function, type) else ()
    owners = (unwrapped(function), type(function).__call__, *(getattr(function, name, None) for name in made_by))
    codes = [getattr(getattr(owner, "__func__", owner), "__code__", None) for owner in owners]
    return any(traceback.tb_frame.f_code is code for code in codes)


def spread(parameters: Parameters, arguments: Mapping[str, object]) -> tuple[list[object], dict[str, object]]:
    """Put arguments by name in the form in which they are passed.

    Examples:
        >>> from torchsystem.depends.signature import parameters_of
        >>> def train(model, *metrics, epochs=1): ...
        >>> spread(parameters_of(train), {"model": "mlp", "metrics": ("loss",), "epochs": 2})
        (['mlp', 'loss'], {'epochs': 2})
    """
    positional: list[object] = []
    keywords: dict[str, object] = {}
    for parameter in parameters:
        value: Any = arguments[parameter.name]
        if parameter.kind == VAR_POSITIONAL:
            positional.extend(value)
        elif parameter.kind == VAR_KEYWORD:
            keywords.update(value)
        elif parameter.kind == KEYWORD_ONLY:
            keywords[parameter.name] = value
        else:
            positional.append(value)
    return positional, keywords
