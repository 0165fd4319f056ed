"""The tree of what a handler gets and from where, drawn for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torchsystem.depends.graph import Argument, Node, Plan
from torchsystem.depends.mistakes import name_of, place_of
from torchsystem.errors import DependencyError


def tree(plan: Plan, broken: Node | None = None) -> str:
    """Draw what ``plan`` makes; the branch that ends in ``broken`` is marked with ✗."""
    lines = [
        f"{name_of(plan.handler)}({', '.join(p.name for p in plan.parameters)})  {place_of(plan.handler)}".rstrip()
    ]
    lines += _branches(list(plan.needs.items()), "", _way_to(broken, plan), shown=set())
    return "\n".join(lines)


def error(plan: Plan, node: Node) -> DependencyError:
    """Make the exception for what is wrong with ``node``, with the tree around it."""
    problem = node.problem
    assert problem is not None  # noqa: S101 - asked only for nodes that have one
    return problem.error(f"{name_of(plan.handler)}: {problem.message}\n{tree(plan, node)}")


def _branches(
    branches: Sequence[tuple[str, Node | Argument]], margin: str, broken: set[Node], shown: set[Node]
) -> Iterator[str]:
    for index, (name, source) in enumerate(branches):
        last = index == len(branches) - 1
        mark = "✗ " if isinstance(source, Node) and source in broken else ""
        again = isinstance(source, Node) and source in shown and bool(source.inputs)
        yield f"{margin}{'└─ ' if last else '├─ '}{mark}{name} ← {_describe(source)}{'  (see above)' if again else ''}"
        if isinstance(source, Node) and not again:
            shown.add(source)
            deeper = margin + ("   " if last else "│  ")
            yield from _branches([(i.name, i.source) for i in source.inputs], deeper, broken, shown)


def _describe(source: Node | Argument) -> str:
    if isinstance(source, Argument):
        return f"the handler's argument {source.name!r}"
    name = name_of(source.declared)
    if source.implementation is not source.declared:
        name += f" → {name_of(source.implementation)}"
    notes = [] if source.problem is not None else [source.kind.value, f"scope: {source.scope}"]
    if not source.cache:
        notes.append("not shared")
    place = place_of(source.implementation)
    if source.problem is not None:
        notes.append(source.problem.error.__name__)
    return f"{name}  [{', '.join(notes)}]{'  ' + place if place else ''}"


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
