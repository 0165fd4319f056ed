"""Moments: when a listener looks at gradients, told for each optimizer by the steps that it is about to make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchsystem.errors import InvalidState
from torchsystem.services.options import CrossingGate
from torchsystem.training.events import GradientsUpdated
from torchsystem.triggers import Trigger


class StepMoments:
    """Ask a trigger at each backward pass that a step follows, for each optimizer by itself.

    The trigger does not see the other ones, or it would fire where there is nothing to see.

    Args:
        trigger: The trigger.
    """

    def __init__(self, trigger: Trigger) -> None:
        self._trigger = trigger
        self._gates: dict[str, CrossingGate] = {}

    def has_come(self, event: GradientsUpdated) -> bool:
        """Tell whether it is time to look."""
        if not event.steps:
            return False
        gate = self._gates.get(event.optimizer)
        if gate is None:
            gate = self._gates[event.optimizer] = CrossingGate(self._trigger, None)
        return gate.passes(event)

    def forget(self) -> None:
        """Begin anew."""
        self._gates.clear()

    def state(self) -> dict[str, Any]:
        """Return when each optimizer was about to step last."""
        return {name: gate.state() for name, gate in self._gates.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there.

        Raises:
            InvalidState: It is no such state. Nothing is changed then.
        """
        gates = {name: CrossingGate(self._trigger, None) for name in state}
        try:
            for name, gate in gates.items():
                gate.restore(state[name])
        except (KeyError, TypeError) as error:
            message = f"This does not say when optimizers stepped: {error}. Load what `state_dict()` returned."
            raise InvalidState(message) from error
        self._gates = gates
