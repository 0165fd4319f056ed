"""The graph of what has to be made for one call: values, what they are made from, and in which order."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol, TypeAlias

from torchsystem.depends.kinds import Kind
from torchsystem.depends.marker import Scope
from torchsystem.depends.signature import Parameters
from torchsystem.errors import DependencyError

Factory: TypeAlias = Callable[..., object]


class Keeper(Protocol):
    """Where the value of a node outlives a call."""

    def get(self) -> object:
        """Return the value, made at most once."""

    async def get_async(self) -> object:
        """Return the value, made at most once, where making it must be awaited."""


class Problem(NamedTuple):
    """A mistake in one place of a graph, before the tree is drawn around it."""

    error: type[DependencyError]
    message: str


class Argument(NamedTuple):
    """A dependency's parameter that is filled by name from the handler's arguments."""

    name: str
    node: Node | None  # what fills that argument when it is a dependency itself


class Input(NamedTuple):
    """One parameter of a dependency, and what fills it."""

    name: str
    by_keyword: bool
    source: Node | Argument


class Node:
    """One value to be made: what was asked for, what is called for it, and what that takes.

    Attributes:
        declared: What stands in ``Depends``.
        implementation: What is called for it: an override, or the same.
        target: What is really called: the generator function below a ``@contextmanager``, else the same.
        fixed: Whether it is made from nothing that a caller passes.
        waits: Whether it, or something it is made from, must be awaited.
        sound: Whether neither it nor anything it is made from has a problem.
        structure: What makes two nodes one: the same callables, made from the same.
    """

    __slots__ = (
        "__weakref__", "cache", "declared", "fixed", "implementation", "inputs",
        "kept", "kind", "problem", "scope", "sound", "structure", "target", "waits",
    )  # fmt: skip

    def __init__(self, declared: Factory, implementation: Factory, scope: Scope, *, cache: bool) -> None:
        self.declared = declared
        self.implementation = implementation
        self.target = implementation
        self.scope: Scope = scope
        self.cache = cache
        self.kind = Kind.PLAIN
        self.inputs: tuple[Input, ...] = ()
        self.problem: Problem | None = None
        self.kept: Keeper | None = None
        self.fixed = True
        self.waits = False
        self.sound = True
        self.structure: tuple[object, ...] = ()

    @property
    def nodes(self) -> Iterator[Node]:
        """Walk what this value is made from directly."""
        for _, _, source in self.inputs:
            node = source.node if isinstance(source, Argument) else source
            if node is not None:
                yield node


class Plan:
    """Everything that one handler needs.

    Attributes:
        needs: By parameter of the handler, in its order.
        keys: What was looked up among the overrides: a change there asks for another plan.
    """

    __slots__ = ("handler", "keys", "kind", "needs", "parameters")

    def __init__(self, handler: Factory, kind: Kind, parameters: Parameters) -> None:
        self.handler = handler
        self.kind = kind
        self.parameters = parameters
        self.needs: dict[str, Node] = {}
        self.keys: list[Factory] = []

    def for_handler(self, handler: Factory, parameters: Parameters) -> Plan:
        """Return the same plan for another handler that needs the same."""
        plan = Plan(handler, self.kind, parameters)
        plan.needs, plan.keys = self.needs, self.keys
        return plan

    def order(self, given: Mapping[str, object] = types.MappingProxyType({})) -> list[Node]:
        """List the values to make, dependencies first, when the arguments in ``given`` are passed explicitly."""
        return in_order((node for name, node in self.needs.items() if name not in given), given)

    def problems(self) -> Iterator[Node]:
        """Walk the nodes that cannot be made."""
        seen: set[Node] = set()
        stack = [node for node in reversed(self.needs.values()) if not node.sound]
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                if node.problem is not None:
                    yield node
                stack.extend(reversed([child for child in node.nodes if not child.sound]))


def in_order(roots: Iterable[Node], given: Mapping[str, object] = types.MappingProxyType({})) -> list[Node]:
    """List ``roots`` and what they are made from, dependencies first; what is kept stands for all below it."""
    found: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node in found:
            return
        if node.kept is None:
            for _, _, source in node.inputs:
                if isinstance(source, Node):
                    visit(source)
                elif source.node is not None and source.name not in given:
                    visit(source.node)
        found[node] = None

    for root in roots:
        visit(root)
    return list(found)
