"""The state of an optimizer by the names of its parameters; torch numbers them, in the order they were given."""

from __future__ import annotations

from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from torch import Tensor

from torchsystem.domain.names import unwrapped
from torchsystem.domain.plain import Copy, Plain, cloned, like, plain, spread
from torchsystem.errors import UnownedParameter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim import Optimizer

    from torchsystem.domain.misfits import Misfits
    from torchsystem.domain.names import Names


class NamedOptimizer:
    """An optimizer that is a part of an aggregate.

    Args:
        name: What it is called there.
        optimizer: The optimizer.
        names: What its parameters are called there.

    Raises:
        UnownedParameter: A parameter is not in the aggregate, and so has no name.
    """

    def __init__(self, name: str, optimizer: Optimizer, names: Names) -> None:
        self._name = name
        self._optimizer = optimizer
        self._parameters: dict[str, Tensor] = {}
        for parameter in chain.from_iterable(group["params"] for group in optimizer.param_groups):
            known_as = names.of_parameter(parameter)
            if known_as is None:
                message = (
                    f"{name} optimizes a parameter of shape {tuple(parameter.shape)} that is not in the aggregate, so "
                    f"that nobody would keep it. Make the module that it belongs to an attribute of the aggregate."
                )
                raise UnownedParameter(message)
            self._parameters[known_as] = parameter

    def snapshot(self, copy: Copy = cloned) -> Plain:
        """Copy the state, tensors by `copy`, with the names of parameters for their numbers."""
        state, names = self._numbered()
        groups = [{**group, "params": [names[number] for number in group["params"]]} for group in state["param_groups"]]
        values = {names.get(number, number): values for number, values in state["state"].items()}
        return plain({**state, "state": values, "param_groups": groups}, self._name, copy)

    def compare(self, kept: Plain, misfits: Misfits) -> None:
        """Look which parameters, and which options of their groups, do not fit."""
        state, names = self._numbered()
        mine = {names[number]: index for index, group in enumerate(state["param_groups"]) for number in group["params"]}
        theirs = {name: index for index, group in enumerate(kept["param_groups"]) for name in _listed(group)}
        misfits.compare(mine, theirs, f"{self._name}.")
        for name in mine.keys() & theirs.keys():
            if mine[name] != theirs[name]:
                misfits.differ(f"{self._name}.{name}", f"group {theirs[name]}, where {mine[name]} is wanted")
        for index, (ours, other) in enumerate(zip(state["param_groups"], kept["param_groups"], strict=False)):
            misfits.compare(ours, other, f"{self._name}.param_groups.{index}.")

    def restore(self, kept: Plain, weights: Mapping[str, Tensor]) -> None:
        """Take over the state of the parameters whose weights are taken over; the others keep theirs."""
        state, names = self._numbered()
        listed = {name for group in kept["param_groups"] for name in _listed(group)}
        values = {unwrapped(name): value for name, value in kept["state"].items()}
        taken = {number: name for number, name in names.items() if name in listed and name in weights}

        revived = {number: value for number, value in state["state"].items() if number not in taken}
        revived |= {key: like(values[key], revived.get(key)) for key in values.keys() - listed}  # of no parameter
        revived |= {number: self._revived(name, values[name]) for number, name in taken.items() if name in values}
        groups = [
            {
                key: like(theirs[key], option) if key in theirs and key != "params" else option
                for key, option in mine.items()
            }
            for mine, theirs in zip(state["param_groups"], chain(kept["param_groups"], repeat({})), strict=False)
        ]
        others = {key: like(kept[key], state[key]) for key in state.keys() & kept.keys() - {"state", "param_groups"}}
        self._optimizer.load_state_dict({**others, "state": revived, "param_groups": groups})
        for number, name in taken.items():
            if name in values and weights[name].dtype == self._parameters[name].dtype:
                self._undo_casts(name, revived[number])

    def _numbered(self) -> tuple[dict[str, Any], dict[int, str]]:
        """Return the state as torch gives it, and the names of its numbers."""
        state = self._optimizer.state_dict()
        numbers = chain.from_iterable(group["params"] for group in state["param_groups"])
        return state, dict(zip(dict.fromkeys(numbers), self._parameters, strict=True))

    def _revived(self, name: str, values: Plain) -> dict[str, Any]:
        parameter = self._parameters[name]
        return {
            key: spread(value, parameter) if isinstance(value, Tensor) and value.shape == parameter.shape else value
            for key, value in like(values, None).items()
        }

    def _undo_casts(self, name: str, values: dict[str, Any]) -> None:
        """Put back what torch has cast to the type of the parameter, such as moments that are kept more precisely."""
        state = self._optimizer.state[self._parameters[name]]
        for key, value in values.items():
            if isinstance(value, Tensor) and value.dtype != state[key].dtype:
                state[key] = value.to(state[key].device)


def _listed(group: Plain) -> list[str]:
    return [unwrapped(name) for name in group["params"]]
