"""The plans that one provider has drawn up, remembered by all that they depend on.

Handlers that take the same arguments from the same dependencies share their plan, and an override that ends finds the
plan from before it. This is for speed alone: without it everything is drawn up anew, and comes out the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from torchsystem.depends.generate import Generated, generate
from torchsystem.depends.graph import Factory, Node, Plan
from torchsystem.depends.kinds import kind as kind_of
from torchsystem.depends.overrides import Overrides
from torchsystem.depends.plan import Binding, Planner, identity
from torchsystem.depends.sentinels import EMPTY
from torchsystem.depends.signature import Parameters

Needs: TypeAlias = tuple[object, ...]
BindingOf: TypeAlias = Callable[[Factory], "Binding | None"]

_KEPT = 256  # by handlers' needs
_STATES_KEPT = 4  # of the overrides, for each


class Recipe(NamedTuple):
    """A plan, its code, and the overrides under which it holds."""

    plan: Plan
    nodes: list[Node]
    generated: Generated
    bound: list[Binding | None]  # for each of `plan.keys`

    def holds(self, binding_of: BindingOf) -> bool:
        """Tell whether the overrides it looked up are as they were."""
        for key, bound in zip(self.plan.keys, self.bound, strict=True):  # noqa: SIM110 - `all` takes thrice the time
            if binding_of(key) is not bound:
                return False
        return True


class Recipes:
    """The recipes of one provider; whoever asks holds its lock."""

    def __init__(self, overrides: Overrides, planner: Callable[[BindingOf], Planner]) -> None:
        self._overrides = overrides
        self._binding_of = overrides.binding_of
        self._planner = planner
        self._known: dict[Needs, list[Recipe]] = {}

    def find(self, handler: Factory, parameters: Parameters, needs: Needs) -> Recipe:
        """Return the recipe for ``handler`` under the overrides in force.

        Args:
            handler: What is to be injected.
            parameters: What it takes.
            needs: ``needs_of(handler, parameters)``.
        """
        known = self._known.get(needs, [])
        for number, recipe in enumerate(known):
            if recipe.holds(self._binding_of):
                known.insert(0, known.pop(number))  # the last used are kept
                plan = recipe.plan.for_handler(handler, parameters)
                return Recipe(plan, recipe.nodes, recipe.generated, recipe.bound)
        plan = self._planner(self._binding_of).plan(handler, parameters)
        nodes = plan.order()
        generated = generate(plan, nodes)
        recipe = Recipe(plan, nodes, generated, [self._binding_of(key) for key in plan.keys])
        if self._is_worth_keeping(recipe):
            if len(self._known) >= _KEPT:
                self._known.clear()
            forgetful = recipe.plan.for_handler(_nobody, ())  # a handler that is dropped must not live on in here
            self._known[needs] = [Recipe(forgetful, *recipe[1:]), *known[: _STATES_KEPT - 1]]
        return recipe

    def _is_worth_keeping(self, recipe: Recipe) -> bool:
        """Tell whether the recipe may serve again: not if its words are about one handler, or its binding a block's."""
        if not all(node.sound for node in recipe.plan.needs.values()):
            return False
        bound = (key for key, binding in zip(recipe.plan.keys, recipe.bound, strict=True) if binding is not None)
        return all(map(self._overrides.is_lasting, bound))


def _nobody() -> None:
    """Stand for the handler of a recipe that waits for one."""


def needs_of(handler: Factory, parameters: Parameters) -> Needs:
    """Return all about a handler on which its plan and its code depend.

    The plan keeps the dependencies, so that their identities stay theirs.
    """
    needs: list[object] = [
        getattr(handler, "__qualname__", ""),
        kind_of(handler),
    ]
    for name, kind, default, mark in parameters:
        needs += (
            (name, kind, default is EMPTY)
            if mark is None
            else (name, kind, identity(mark.dependency), mark.cache, mark.scope)
        )
    return tuple(needs)
