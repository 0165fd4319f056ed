"""The states of parts, and of the parts of parts: dictionaries of whatever has a state of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torchsystem.errors import MismatchedState


def states(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the states of all parts, by their names."""
    return {name: states(part) if isinstance(part, dict) else part.state_dict() for name, part in parts.items()}


def load_states(parts: Mapping[str, Any], state: Mapping[str, Any], name: str) -> None:
    """Load what `states` gave.

    Args:
        parts: The parts.
        state: Their states.
        name: What has the parts, for whoever reads the error.

    Raises:
        MismatchedState: The state is of other parts; nothing was changed.
    """
    pairs = list(_pairs(parts, state, name))
    for part, its_state in pairs:
        part.load_state_dict(its_state)


def _pairs(part: Any, state: Any, name: str) -> Iterator[tuple[Any, Any]]:
    """Pair parts with their states, at any depth."""
    if not isinstance(part, dict):
        yield part, state
        return
    if part.keys() != state.keys():
        message = (
            f"{name} has {', '.join(part) or 'nothing'}, and the state has {', '.join(state) or 'nothing'}. "
            f"Load it into an Optimization that is made like the one it is of."
        )
        raise MismatchedState(message)
    for key, value in part.items():
        yield from _pairs(value, state[key], key)
