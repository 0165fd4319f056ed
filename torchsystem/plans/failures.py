"""Failures: what happens when a step fails."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torchsystem.errors import InvalidPlan, StepFailure

Then = Literal["stop", "skip"]


@dataclass(frozen=True, slots=True)
class Retry:
    """Run a failing step again, each time after a longer wait.

    Args:
        times: How many more times.
        wait: The seconds before the first of them.
        factor: How many times as long each next wait is.
        most: The longest wait.
        then: What happens when all of them failed: `"stop"` or `"skip"`.
        on: The exceptions after which it is worth it; others stop or skip at once.

    Raises:
        InvalidPlan: One of them has no meaning.

    Examples:
        >>> retry = Retry(5, wait=1, factor=3, most=20)
        >>> [retry.delay(failures) for failures in (1, 2, 3, 4, 5)]
        [1, 3, 9, 20, 20]
    """

    times: int
    wait: float = 1.0
    factor: float = 2.0
    most: float = 60.0
    then: Then = "stop"
    on: type[Exception] | tuple[type[Exception], ...] = Exception

    def __post_init__(self) -> None:
        classes = self.on if isinstance(self.on, tuple) else (self.on,)
        right = {
            "times": isinstance(self.times, int) and not isinstance(self.times, bool) and self.times > 0,
            "wait": _is_number(self.wait) and self.wait >= 0,
            "factor": _is_number(self.factor) and self.factor >= 1,
            "most": _is_number(self.most) and self.most >= 0,
            "then": self.then in ("stop", "skip"),
            "on": bool(classes) and all(isinstance(kind, type) and issubclass(kind, Exception) for kind in classes),
        }
        wrong = [name for name, is_right in right.items() if not is_right]
        if wrong:
            message = (
                f"{self!r}: {', '.join(wrong)} has no meaning. Write 1 or more times, a wait and a longest wait of 0 "
                f"or more seconds, a factor of 1 or more, then 'stop' or 'skip', on classes of exceptions."
            )
            raise InvalidPlan(message)

    def delay(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row."""
        try:
            return min(self.wait * self.factor ** (failures - 1), self.most)
        except OverflowError:
            return self.most


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


Policy: TypeAlias = Then | Retry
Failures: TypeAlias = Policy | Mapping[str, Policy]


def policies(failures: Failures, actions: set[str]) -> Mapping[str, Policy]:
    """Return what happens when a step of each action fails.

    Raises:
        InvalidPlan: It is said in a way that has no meaning, or of an action that the plan does not have.
    """
    given: Mapping[str, Policy] = failures if isinstance(failures, Mapping) else dict.fromkeys(actions, failures)
    for action, policy in given.items():
        if action not in actions:
            message = f"failures={{{action!r}: ...}}: the plan has no step of that action, but {sorted(actions)}."
            raise InvalidPlan(message)
        if not isinstance(policy, Retry) and policy not in ("stop", "skip"):
            message = f"failures: {policy!r} has no meaning. Write 'stop', 'skip', Retry(times), or a dict by action."
            raise InvalidPlan(message)
    found: dict[str, Policy] = dict.fromkeys(actions, "stop")
    return found | dict(given)


def decide(policy: Policy, failures: int, error: BaseException) -> float | Then:
    """Return after how many seconds to run a step again, or what to do instead."""
    if not isinstance(policy, Retry):
        return policy
    if failures <= policy.times and _is_one_of(error, policy.on):
        return policy.delay(failures)
    return policy.then


def _is_one_of(error: BaseException, on: type[Exception] | tuple[type[Exception], ...]) -> bool:
    """Tell whether it is worth trying again, also after an exception that could only be told of in words."""
    if isinstance(error, on):
        return True
    kinds = on if isinstance(on, tuple) else (on,)
    return isinstance(error, StepFailure) and any(name_of(kind) in error.kinds for kind in kinds)


def name_of(kind: type) -> str:
    """Name a class so that it is told from others in another process, where the program is `__mp_main__`."""
    module = "__main__" if kind.__module__ == "__mp_main__" else kind.__module__
    return f"{module}.{kind.__qualname__}"
