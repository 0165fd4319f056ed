"""What an optimization is told, checked where it is told: per optimizer or for all, and within its bounds."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from torch import Tensor

from torchsystem.errors import InvalidLoss, InvalidOptimization, UnknownOptimizer

T = TypeVar("T")


def per_optimizer(option: str, value: T | Mapping[str, T], names: Collection[str]) -> dict[str, T]:
    """Spread an option over the optimizers: one value is for all of them, a mapping for those that it names.

    Raises:
        UnknownOptimizer: It names one that there is not.

    Examples:
        >>> per_optimizer("clip_norm", 1.0, ["generator", "discriminator"])
        {'generator': 1.0, 'discriminator': 1.0}
        >>> per_optimizer("clip_norm", {"generatr": 1.0}, ["generator", "discriminator"])
        Traceback (most recent call last):
        ...
        torchsystem.errors.UnknownOptimizer: clip_norm: there is no optimizer 'generatr'. Did you mean 'generator'?
    """
    if not isinstance(value, Mapping):
        return dict.fromkeys(names, value)
    check_names(option, value, names)
    return dict(value)


def check_names(what: str, given: Iterable[str], names: Collection[str]) -> None:
    """Look whether all that is named is there.

    Raises:
        UnknownOptimizer: One is not; the message says what is near.
    """
    for name in given:
        if name not in names:
            near = get_close_matches(str(name), names) or names
            message = f"{what}: there is no optimizer {name!r}. Did you mean {' or '.join(map(repr, near))}?"
            raise UnknownOptimizer(message)


def check_whole(option: str, value: object, least: int) -> None:
    """Look whether an option is a whole number, and at least so much.

    Raises:
        InvalidOptimization: It is not.
    """
    if type(value) is not int or value < least:
        message = f"Optimization({option}={value!r}): write a whole number, {least} or more."
        raise InvalidOptimization(message)


def check_flag(option: str, value: object) -> None:
    """Look whether an option is True or False, and not a word that would count as either.

    Raises:
        InvalidOptimization: It is not.
    """
    if not isinstance(value, bool):
        message = f"Optimization({option}={value!r}): write True or False."
        raise InvalidOptimization(message)


def check_bound(option: str, value: object) -> None:
    """Look whether an option is something that gradients can be clipped to.

    Raises:
        InvalidOptimization: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        message = f"Optimization({option}={value!r}): write a number above 0, or leave it out to clip nothing."
        raise InvalidOptimization(message)


def losses_by_name(loss: object, losses: dict[str, Tensor], names: Collection[str]) -> Mapping[str, Tensor]:
    """Return losses by the names of their optimizers; one that has no name is for all of them.

    Raises:
        InvalidLoss: It is none.
        UnknownOptimizer: It is for one that there is not.
    """
    if isinstance(loss, Tensor) and not losses:
        return dict.fromkeys(names, loss)
    named: object = losses if loss is None else loss
    if not isinstance(named, Mapping) or not named or (losses and loss is not None):
        message = (
            f"optimization.step({'' if loss is None else type(loss).__qualname__}): write step(loss), with one loss "
            f"for all, or step({', '.join(f'{name}=loss' for name in names)}), with one for each."
        )
        raise InvalidLoss(message)
    check_names("optimization.step", named, names)
    for name, value in named.items():
        if not isinstance(value, Tensor):
            message = f"optimization.step({name}={value!r}): a loss is a tensor that was computed from parameters."
            raise InvalidLoss(message)
    return named
