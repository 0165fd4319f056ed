"""What is known of a callable once and for all: looked up for each use, so found out once."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakKeyDictionary

from torchsystem.depends.kinds import Kind, is_interface, kind, target
from torchsystem.depends.signature import Parameters, parameters_of


class Facts(NamedTuple):
    """What is known of one callable.

    Attributes:
        target: What is really called.
        kind: How it gives its value.
        is_interface: Whether it only says what is needed.
        parameters: What it takes; nothing where that cannot be read.
    """

    target: Callable[..., object]
    kind: Kind
    is_interface: bool
    parameters: Parameters


_known: WeakKeyDictionary[types.FunctionType, tuple[Kind, bool, Parameters]] = WeakKeyDictionary()


def facts_of(factory: Callable[..., object]) -> Facts:
    """Find out about ``factory``.

    Raises:
        InvalidDependency: A parameter is marked twice, or the mark stands where it is not seen.
        UnresolvedAnnotation: An annotation that decides something cannot be evaluated.
    """
    if not isinstance(factory, types.FunctionType):
        return Facts(factory, kind(factory), is_interface(factory), parameters_of(factory) or ())
    known = _known.get(factory)
    if known is None:  # without the function itself, which could never be forgotten otherwise
        known = _known[factory] = (kind(factory), is_interface(factory), parameters_of(factory) or ())
    return Facts(target(factory), *known)
