"""How the graph is drawn up: overrides applied, scopes settled, mistakes found."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import NamedTuple

from torchsystem.depends import mistakes
from torchsystem.depends.facts import facts_of
from torchsystem.depends.graph import Argument, Factory, Input, Node, Plan, Problem
from torchsystem.depends.kinds import kind
from torchsystem.depends.marker import Dependency, Scope
from torchsystem.depends.sentinels import EMPTY
from torchsystem.depends.signature import KEYWORD_ONLY, POSITIONAL_ONLY, Parameter, Parameters
from torchsystem.errors import CyclicDependency, DependencyError, TooDeep

Path = tuple[tuple["Factory | str", frozenset[object]], ...]  # each step, and the overrides around it


class Binding(NamedTuple):
    """What an override put in the place of a dependency."""

    implementation: Factory
    scope: Scope | None


class Planner:
    """Draws up plans under one state of the overrides; plans of one planner share their nodes.

    Nothing is raised here: what cannot be made is a node with a problem, so that the rest of the tree can be shown.

    Args:
        binding_of: Tells what is bound in the place of a dependency.
        intern_kept: Finds the one node for a value that outlives a call, of all planners of one provider.
    """

    __slots__ = ("_intern_kept", "_interned", "_wide", "binding_of")

    def __init__(
        self,
        binding_of: Callable[[Factory], Binding | None],
        intern_kept: Callable[[Node], Node],
    ) -> None:
        self.binding_of = binding_of
        self._intern_kept = intern_kept
        self._interned: dict[tuple[object, ...], Node] = {}
        self._wide: set[object] = set()  # asked for with provider scope somewhere in the graph

    def plan(self, handler: Factory, parameters: Parameters) -> Plan:
        """Draw up the plan of one handler.

        Raises:
            TooDeep: Dependencies need dependencies on more levels than Python can call.
        """
        while True:
            known = len(self._wide)
            try:
                plan = _Draft(self, handler, parameters).finish()
            except RecursionError:
                raise TooDeep(mistakes.too_deep(handler)) from None
            if len(self._wide) == known:  # else some use is to be widened: draw it up again
                return plan

    def is_wide(self, key: Factory) -> bool:
        """Tell whether a use of ``key`` that names no scope is kept by the provider."""
        return identity(key) in self._wide

    def widen(self, key: Factory) -> None:
        """Note that some use of ``key`` is kept by the provider."""
        self._wide.add(identity(key))

    def intern(self, node: Node) -> Node:
        """Return the one node for what ``node`` is made of."""
        if node.problem is not None or not node.cache:
            return node
        return self._interned.setdefault(node.structure, node) if node.scope == "call" else self._intern_kept(node)


class _Draft:
    """The work of drawing up one plan."""

    __slots__ = ("handler", "known", "lookups", "named", "parameters", "plan", "planner")

    def __init__(self, planner: Planner, handler: Factory, parameters: Parameters) -> None:
        self.planner = planner
        self.handler = handler
        self.parameters = parameters
        self.plan = Plan(handler, kind(handler), parameters)
        self.lookups: dict[Node, frozenset[object]] = {}
        self.named = {parameter.name: parameter for parameter in parameters if not parameter.is_variadic}
        self.known: dict[tuple[object, ...], list[tuple[frozenset[object], Node]]] = {}

    def finish(self) -> Plan:
        for name in [parameter.name for parameter in self.parameters if parameter.dependency is not None]:
            self.need(name, ())
        self.plan.needs = {p.name: self.plan.needs[p.name] for p in self.parameters if p.dependency is not None}
        return self.plan

    def need(self, name: str, path: Path) -> Node:
        """Find the node of one parameter of the handler."""
        node = self.plan.needs.get(name)
        if node is None:
            dependency = self.named[name].dependency
            assert dependency is not None  # noqa: S101 - asked only for those that are
            node = self.plan.needs[name] = self.node(dependency, "call", frozenset(), (*path, (name, frozenset())))
        return node

    def node(self, mark: Dependency, user: Scope, inside: frozenset[object], path: Path) -> Node:
        """Find the node of one use of a dependency.

        Args:
            mark: The use.
            user: The scope of whoever uses it.
            inside: The dependencies in whose own override this use stands; here they mean the original.
            path: What is being made around it, to find cycles.
        """
        declared, me = mark.dependency, identity(mark.dependency)
        self.plan.keys.append(declared)
        binding = None if me in inside else self.planner.binding_of(declared)
        asked: Scope | None = mark.scope
        implementation, around = declared, inside
        if binding is not None:
            inside |= {me}
            implementation, asked = binding.implementation, asked or binding.scope
        scope = self.scope(mark, asked, user)
        use = (me, scope, user)
        known = self.recall(use, around) if mark.cache else None
        if known is not None:
            return known
        node = Node(declared, implementation, scope, cache=mark.cache)
        if user == "provider" and scope == "call":
            node.problem = mistakes.too_short(node)
        else:
            self.fill(node, inside, path)
        node.sound = node.problem is None and (not node.inputs or all(child.sound for child in node.nodes))
        node = self.planner.intern(node)
        if mark.cache and not self.is_cyclic(node):  # a cycle is one only from where it is entered
            self.known.setdefault(use, []).append((around, node))
        return node

    def recall(self, use: tuple[object, ...], inside: frozenset[object]) -> Node | None:
        """Find the node of an earlier use, if it stood inside the same overrides as far as they matter to it."""
        for other, node in self.known.get(use, ()):
            if other == inside or (other ^ inside).isdisjoint(self.looked_up(node)):
                return node
        return None

    def looked_up(self, node: Node) -> frozenset[object]:
        """Return what was looked up among the overrides to draw ``node``."""
        found = self.lookups.get(node)
        if found is None:
            below = (self.looked_up(child) for child in node.nodes)
            found = self.lookups[node] = frozenset({identity(node.declared)}).union(*below)
        return found

    @staticmethod
    def is_cyclic(node: Node) -> bool:
        """Tell whether a cycle is among what is wrong with ``node``."""
        if node.sound:
            return False
        plan = Plan(node.declared, node.kind, ())
        plan.needs["node"] = node
        return any(one.problem is not None and one.problem.error is CyclicDependency for one in plan.problems())

    def scope(self, mark: Dependency, asked: Scope | None, user: Scope) -> Scope:
        """Settle how long one value lives: as asked, else as the widest use of the same, else as its user."""
        if not mark.cache:
            return mark.scope or user
        scope: Scope = asked or ("provider" if self.planner.is_wide(mark.dependency) else user)
        if scope == "provider":
            self.planner.widen(mark.dependency)
        return scope

    def fill(self, node: Node, inside: frozenset[object], path: Path) -> None:
        """Find what ``node`` is made from, or what is wrong with it."""
        if _is_on(path, node.implementation, inside):
            node.problem = mistakes.cycle([step for step, _ in path], node.implementation)
            return
        try:
            facts = facts_of(node.implementation)
        except DependencyError as error:
            node.problem = Problem(type(error), str(error))
            return
        node.target, node.kind = facts.target, facts.kind
        if facts.is_interface:
            node.problem = mistakes.unbound(node)
        elif node.kind.is_async and not self.plan.kind.is_async:
            node.problem = mistakes.async_in_sync(node, self.handler)
        else:
            self.fill_inputs(node, facts.parameters, inside, (*path, (node.implementation, inside)))

    def fill_inputs(self, node: Node, parameters: Parameters, inside: frozenset[object], path: Path) -> None:
        inputs: list[Input] = []
        skipped = False  # after a positional parameter that keeps its default, the next are passed by name
        for parameter in parameters:
            if parameter.is_variadic:
                continue
            if parameter.dependency is None and parameter.default is not EMPTY:
                skipped = True
                continue
            if skipped and parameter.kind == POSITIONAL_ONLY:
                node.problem = mistakes.behind_default(node, parameter)
                return
            source = self.source(node, parameter, inside, path)
            if isinstance(source, Problem):
                node.problem = source
                return
            inputs.append(Input(parameter.name, skipped or parameter.kind == KEYWORD_ONLY, source))
        node.waits = node.kind.is_async
        node.structure = (identity(node.declared), identity(node.implementation))
        if inputs:
            node.inputs = tuple(inputs)
            node.fixed = all(isinstance(i.source, Node) and i.source.fixed for i in inputs)
            node.waits = node.waits or any(child.waits for child in node.nodes)
            for name, by_keyword, source in inputs:
                node.structure += (name, by_keyword, *_structure(source))

    def source(
        self, node: Node, parameter: Parameter, inside: frozenset[object], path: Path
    ) -> Node | Argument | Problem:
        """Find what fills one parameter of a dependency."""
        if parameter.dependency is not None:
            return self.node(parameter.dependency, node.scope, inside, path)
        wanted = self.named.get(parameter.name)
        if wanted is None:
            return mistakes.unfilled(node, parameter, self.named)
        if node.scope == "provider":
            return mistakes.asks_for_argument(node, parameter)
        if wanted.dependency is None:
            return Argument(parameter.name, None)
        if any(step == parameter.name for step, _ in path if isinstance(step, str)):
            return mistakes.cycle([step for step, _ in path], parameter.name)
        return Argument(parameter.name, self.need(parameter.name, path))


def identity(factory: Factory) -> object:
    """Return what makes two mentions of a callable the same: the object, and for a bound method its two parts.

    Whoever keeps an identity keeps the callable as well, so that the number cannot come to mean another object.
    """
    if isinstance(factory, types.MethodType):
        return (id(factory.__self__), id(factory.__func__))
    return id(factory)


def _is_on(path: Path, factory: Factory, inside: frozenset[object]) -> bool:
    me = identity(factory)
    return any(not isinstance(s, str) and identity(s) == me and around == inside for s, around in path[1:])


def _structure(source: Node | Argument) -> tuple[object, ...]:
    if isinstance(source, Argument):
        return ("argument", source.name)
    # A value that is not shared is told by how it is made, one that is by the one node it has.
    return ("node", id(source)) if source.cache else ("fresh", *source.structure)


def is_hashable(key: object) -> bool:
    """Tell whether ``key`` can be a key: a callable may have switched hashing off."""
    try:
        hash(key)
    except TypeError:
        return False
    return True
