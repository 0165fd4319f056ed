"""Triggers: when something fires, told from two values of `Progress`.

A trigger is asked with the progress at which it was asked before, and with the present one, and answers whether
something was crossed on the way. It does not matter, then, how often it is asked, how far the run came in between, nor
whether it was interrupted: skipped batches, accumulated steps, resumed runs and intervals longer than an epoch are all
the same to it. (Time as a value we learned from MosaicML's composer.)

```python
from torchsystem.progress import Progress
from torchsystem.triggers import after, at, every, once

trigger = every(100, "batches") & after(2, "epochs") | once()

assert trigger(None, Progress())
assert not trigger(Progress(batch=50), Progress(batch=150, epoch=1))
assert trigger(Progress(batch=150, epoch=1), Progress(batch=320, epoch=2))
assert not trigger(Progress(batch=320, epoch=2), Progress(batch=399, epoch=2))
```
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NoReturn, TypeAlias, overload

from torchsystem.errors import InvalidTrigger
from torchsystem.progress import Progress

__all__ = ["after", "at", "every", "once"]

Unit: TypeAlias = Literal["batches", "steps", "epochs", "samples"]

_ATTRIBUTES = {"batches": "batch", "steps": "step", "epochs": "epoch", "samples": "samples", "seconds": "elapsed"}


class Trigger(ABC):
    """What `every`, `at`, `after` and `once` return; combined by `|` and `&`."""

    __slots__ = ()

    @abstractmethod
    def __call__(self, previous: Progress | None, present: Progress, /) -> bool:
        """Tell whether it fires.

        Args:
            previous: The progress when it was asked last; None the first time.
            present: The progress now. If it lies before `previous`, a new run has begun.
        """

    @property
    @abstractmethod
    def units(self) -> frozenset[str]:
        """What it looks at: `"batches"`, `"steps"`, `"epochs"`, `"samples"`, `"seconds"`, several of them, or none."""

    @property
    def counts(self) -> bool:
        """Whether it counts batches, steps, epochs or samples, so that it has to see the progress of a run."""
        return bool(self.units - {"seconds"})

    def __or__(self, other: Trigger) -> Trigger:
        """Fire when either does."""
        return _Either(self, _checked(other))

    def __and__(self, other: Trigger) -> Trigger:
        """Fire when both do at the same time; with `once()`, the first time that the other does."""
        if isinstance(_checked(other), _Once):
            return other & self
        return _Both(self, other)


@overload
def every(amount: int, unit: Unit) -> Trigger: ...
@overload
def every(*, seconds: float) -> Trigger: ...
def every(amount: int | None = None, unit: Unit | None = None, *, seconds: float | None = None) -> Trigger:
    """Fire whenever a multiple of an interval is crossed: `every(10, "batches")`, `every(seconds=5)`.

    Multiples are counted from the beginning of the run. If several are crossed at once, it fires once.

    Args:
        amount: The length of the interval, 1 or more.
        unit: What is counted: `"batches"`, `"steps"`, `"epochs"` or `"samples"`.
        seconds: The length of the interval in seconds, instead of amount and unit.

    Raises:
        InvalidTrigger: The interval is not positive, or not a whole number of units.

    Examples:
        >>> from torchsystem.progress import Progress
        >>> trigger = every(10, "batches")
        >>> trigger(Progress(batch=9), Progress(batch=10)), trigger(Progress(batch=10), Progress(batch=19))
        (True, False)
    """
    return _Every(*_amount("every", amount, unit, seconds))


@overload
def at(amount: int, unit: Unit) -> Trigger: ...
@overload
def at(*, seconds: float) -> Trigger: ...
def at(amount: int | None = None, unit: Unit | None = None, *, seconds: float | None = None) -> Trigger:
    """Fire once, when a run has come so far: `at(3, "epochs")`. If the very moment is skipped, right after it.

    Args:
        amount: How far, 1 or more.
        unit: What is counted: `"batches"`, `"steps"`, `"epochs"` or `"samples"`.
        seconds: How far in seconds, instead of amount and unit.

    Raises:
        InvalidTrigger: The amount is not positive, or not a whole number of units.

    Examples:
        >>> from torchsystem.progress import Progress
        >>> trigger = at(3, "epochs")
        >>> trigger(Progress(epoch=2), Progress(epoch=3)), trigger(Progress(epoch=3), Progress(epoch=4))
        (True, False)
    """
    return _At(*_amount("at", amount, unit, seconds))


@overload
def after(amount: int, unit: Unit) -> Trigger: ...
@overload
def after(*, seconds: float) -> Trigger: ...
def after(amount: int | None = None, unit: Unit | None = None, *, seconds: float | None = None) -> Trigger:
    """Fire each time from some point on.

    Most useful together with another: `every(10, "batches") & after(100, "steps")`.

    Args:
        amount: How far, 1 or more: it fires from the moment when so many are done.
        unit: What is counted: `"batches"`, `"steps"`, `"epochs"` or `"samples"`.
        seconds: How far in seconds, instead of amount and unit.

    Raises:
        InvalidTrigger: The amount is not positive, or not a whole number of units.

    Examples:
        >>> from torchsystem.progress import Progress
        >>> trigger = after(100, "steps")
        >>> trigger(None, Progress(step=99)), trigger(None, Progress(step=100)), trigger(None, Progress(step=101))
        (False, True, True)
    """
    return _After(*_amount("after", amount, unit, seconds))


def once() -> Trigger:
    """Fire the first time it is asked, and never again; `once() & trigger` fires the first time that `trigger` does.

    Examples:
        >>> from torchsystem.progress import Progress
        >>> once()(None, Progress()), once()(Progress(), Progress())
        (True, False)
    """
    return _Once(_Always())


@dataclass(frozen=True, slots=True, repr=False)
class _Measuring(Trigger):
    """What goes by an amount of some unit."""

    amount: float
    unit: str

    def __repr__(self) -> str:
        name = type(self).__name__.strip("_").lower()
        return f"{name}({self.amount!r}, {self.unit!r})" if self.counts else f"{name}(seconds={self.amount!r})"

    @property
    def units(self) -> frozenset[str]:
        return frozenset({self.unit})

    def _span(self, previous: Progress | None, present: Progress) -> tuple[float, float]:
        """Return how much there was before, and is now; in a new run there was nothing before."""
        now: float = getattr(present, _ATTRIBUTES[self.unit])
        before: float = 0 if previous is None else getattr(previous, _ATTRIBUTES[self.unit])
        return (before if before <= now else 0), now


class _Every(_Measuring):
    __slots__ = ()

    def __call__(self, previous: Progress | None, present: Progress, /) -> bool:
        before, now = self._span(previous, present)
        return now // self.amount > before // self.amount


class _At(_Measuring):
    __slots__ = ()

    def __call__(self, previous: Progress | None, present: Progress, /) -> bool:
        before, now = self._span(previous, present)
        return before < self.amount <= now


class _After(_Measuring):
    __slots__ = ()

    def __call__(self, previous: Progress | None, present: Progress, /) -> bool:
        _, now = self._span(previous, present)
        return now >= self.amount


@dataclass(frozen=True, slots=True, repr=False)
class _Always(Trigger):
    @property
    def units(self) -> frozenset[str]:
        return frozenset()

    def __call__(self, _previous: Progress | None, _present: Progress, /) -> bool:
        return True


@dataclass(frozen=True, slots=True, repr=False)
class _Combined(Trigger):
    one: Trigger
    other: Trigger
    symbol: ClassVar[str]

    def __repr__(self) -> str:
        return f"({self.one!r} {self.symbol} {self.other!r})"

    @property
    def units(self) -> frozenset[str]:
        return self.one.units | self.other.units


class _Either(_Combined):
    __slots__ = ()
    symbol = "|"

    def __call__(self, previous: Progress | None, present: Progress, /) -> bool:
        return self.one(previous, present) or self.other(previous, present)


class _Both(_Combined):
    __slots__ = ()
    symbol = "&"

    def __call__(self, previous: Progress | None, present: Progress, /) -> bool:
        return self.one(previous, present) and self.other(previous, present)


@dataclass(frozen=True, slots=True, repr=False)
class _Once(Trigger):
    trigger: Trigger

    def __repr__(self) -> str:
        return "once()" if self.trigger == _Always() else f"(once() & {self.trigger!r})"

    @property
    def units(self) -> frozenset[str]:
        return self.trigger.units

    def __call__(self, previous: Progress | None, present: Progress, /) -> bool:
        fired_before = previous is not None and self.trigger(None, previous)
        return not fired_before and self.trigger(previous, present)

    def __and__(self, other: Trigger) -> Trigger:
        """Fire the first time that the other does."""
        if self.trigger != _Always() or not _tells_the_past(_checked(other)):
            message = (
                "once() goes with one trigger, for of several that must fire together nobody can tell later whether "
                "they ever did. Write at(amount, unit) for what is to happen once."
            )
            raise InvalidTrigger(message)
        return other if isinstance(other, _Once) else _Once(other)


def _tells_the_past(trigger: Trigger) -> bool:
    """Tell whether a trigger that has fired can be known by the progress made: not so if two had to coincide."""
    if isinstance(trigger, _Either):
        return _tells_the_past(trigger.one) and _tells_the_past(trigger.other)
    return not isinstance(trigger, _Both)


def _amount(name: str, amount: object, unit: object, seconds: object) -> tuple[float, str]:
    """Return an amount and its unit, if they are one."""
    if seconds is not None and amount is None and unit is None:
        if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < math.inf:
            return seconds, "seconds"
        _refuse(f"{name}(seconds={seconds!r})", "Seconds are a number above 0")
    shown = f"{name}({amount!r}, {unit!r}{'' if seconds is None else f', seconds={seconds!r}'})"
    if seconds is not None or unit not in ("batches", "steps", "epochs", "samples"):
        units = "'batches', 'steps', 'epochs' or 'samples'"
        _refuse(shown, f"Write {name}(10, unit), where the unit is {units}, or {name}(seconds=10)")
    if not isinstance(amount, int) or isinstance(amount, bool) or amount < 1:
        _refuse(shown, f"The amount is a whole number of {unit}, 1 or more")
    return amount, str(unit)


def _checked(other: object) -> Trigger:
    """Return what a trigger is to be combined with, if it is one."""
    if not isinstance(other, Trigger):
        _refuse(repr(other), "Triggers are combined with triggers; put a predicate of the event into `when=` alone")
    return other


def _refuse(shown: str, remedy: str) -> NoReturn:
    message = f"{shown} is no trigger. {remedy}."
    raise InvalidTrigger(message)
