"""The tree of what a handler gets and from where, drawn for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torchsystem.depends.graph import Argument, Node, Plan, Problem
from torchsystem.depends.mistakes import name_of, place_of
from torchsystem.errors import DependencyError


def tree(plan: Plan, broken: Node | None = None, problem: Problem | None = None) -> str:
    """Draw what ``plan`` makes; the branch that ends in ``broken``, which has ``problem``, is marked with ✗."""
    head = f"{name_of(plan.handler)}({', '.join(p.name for p in plan.parameters)})  {place_of(plan.handler)}"
    drawing = _Drawing(_way_to(broken, plan), broken, problem)
    return "\n".join([head.rstrip(), *drawing.branches(list(plan.needs.items()), "")])


def error(plan: Plan, node: Node, problem: Problem | None = None) -> DependencyError:
    """Make the exception for what is wrong with ``node``, with the tree around it."""
    problem = problem or node.problem
    assert problem is not None  # noqa: S101 - asked only for nodes that have one
    return problem.error(f"{name_of(plan.handler)}: {problem.message}\n{tree(plan, node, problem)}")


class _Drawing:
    """The work of drawing one tree."""

    def __init__(self, marked: set[Node], broken: Node | None, problem: Problem | None) -> None:
        self._marked = marked
        self._broken = broken
        self._problem = problem
        self._shown: set[Node] = set()

    def branches(self, branches: Sequence[tuple[str, Node | Argument]], margin: str) -> Iterator[str]:
        for index, (name, source) in enumerate(branches):
            last = index == len(branches) - 1
            fork, deeper = ("└─ ", "   ") if last else ("├─ ", "│  ")
            if isinstance(source, Argument):
                yield f"{margin}{fork}{name} ← the handler's argument {source.name!r}"
                continue
            mark = "✗ " if source in self._marked else ""
            again = "  (see above)" if source in self._shown and source.inputs else ""
            yield f"{margin}{fork}{mark}{name} ← {self._describe(source)}{again}"
            if not again:
                self._shown.add(source)
                yield from self.branches([(i.name, i.source) for i in source.inputs], margin + deeper)

    def _describe(self, node: Node) -> str:
        name = name_of(node.declared)
        if node.implementation is not node.declared:
            name += f" → {name_of(node.implementation)}"
        problem = node.problem or (self._problem if node is self._broken else None)
        notes = [node.kind.value, f"scope: {node.scope}"] if problem is None else [problem.error.__name__]
        if not node.cache:
            notes.append("not shared")
        return f"{name}  [{', '.join(notes)}]  {place_of(node.implementation)}".rstrip()


def _way_to(broken: Node | None, plan: Plan) -> set[Node]:
    """Collect the nodes on the way from the handler to ``broken``."""
    known: dict[Node, bool] = {}

    def leads(node: Node) -> bool:
        if node not in known:
            known[node] = node is broken or any(map(leads, node.nodes))
        return known[node]

    for node in plan.needs.values():
        leads(node)
    return {node for node, is_on_it in known.items() if is_on_it}
