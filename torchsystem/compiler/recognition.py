"""How an aggregate is known without its class: the compiler and the domain do not import one another."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from torch.nn import Module

# A module that has these is an aggregate for the compiler, whoever wrote its class.
MEMBERS = ("phase", "epoch", "events")


def is_aggregate(candidate: object) -> TypeGuard[Module]:
    """Tell whether an object is a `torch.nn.Module` with a phase, an epoch and events."""
    return _is_module(candidate) and _has_members(candidate) and wrapped_aggregate(candidate) is None


def wrapped_aggregate(candidate: object) -> Module | None:
    """Return the aggregate inside of what ``torch.compile(aggregate)`` gives; None for anything else."""
    inner = candidate.__dict__["_modules"].get("_orig_mod") if _is_module(candidate) else None
    return inner if inner is not None and _has_members(inner) else None


def _is_module(candidate: object) -> TypeGuard[Module]:
    torch: Any = sys.modules.get("torch")  # whoever has a module has imported it
    return torch is not None and isinstance(candidate, torch.nn.Module)


def _has_members(candidate: object) -> bool:
    return all(hasattr(candidate, member) for member in MEMBERS)
