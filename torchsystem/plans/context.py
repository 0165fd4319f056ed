"""What a step knows of itself: to be asked for with `Depends`."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple

from torchsystem.depends import Depends
from torchsystem.errors import OutsideStep


class Current(NamedTuple):
    """The step that is under way: its key, and its seed."""

    key: str
    seed: int


_current: ContextVar[Current | None] = ContextVar("step of a plan", default=None)


def _one_step() -> None:
    """Be needed for the length of a call: so that what is kept for longer cannot be made from what one step is."""


def step_key(*, _: None = Depends(_one_step, scope="call")) -> str:
    """Return what tells the step that is under way from all others: the same whenever it is run again.

    A step may be run more than once: when it, or its machine, dies before its result is written down. An effect that
    must not happen twice is given this key, and is left out where something with the key is there already. A step that
    is reset has another key, and so has one that failed and is given other arguments. The same plan in another journal
    has the same keys.

    What is made from it lives for one call: a provider that would keep it for the next step refuses the handler
    (`ScopeMismatch`).

    Raises:
        OutsideStep: No step is under way.

    Examples:
        >>> from torchsystem.plans import MemoryJournal, Plan, step_key
        >>> from torchsystem.services import Depends, Service
        >>> service = Service()
        >>> @service.handler
        ... def send_report(key: str = Depends(step_key)) -> str:
        ...     return f"sent as {key}"
        >>> plan = Plan("digits", services=[service])
        >>> report = plan.add("send-report")
        >>> plan.run(MemoryJournal())
        'sent as digits/send-report/0'
        >>> send_report(key="by hand")
        'sent as by hand'
    """
    return _now("step_key").key


def step_seed(*, _: None = Depends(_one_step, scope="call")) -> int:
    """Return the seed of the step that is under way, for generators of one's own: 0 or more, below 2**32.

    It is the same whenever the step is run, also after a reset.

    Raises:
        OutsideStep: No step is under way.

    Examples:
        >>> import random
        >>> from torchsystem.plans import MemoryJournal, Plan, step_seed
        >>> from torchsystem.services import Depends, Service
        >>> service = Service()
        >>> @service.handler
        ... def draw(seed: int = Depends(step_seed)) -> float:
        ...     return random.Random(seed).random()
        >>> plan = Plan("numbers", services=[service])
        >>> number = plan.add("draw")
        >>> plan.run(MemoryJournal()) == plan.run(MemoryJournal())
        True
    """
    return _now("step_seed").seed


def _now(name: str) -> Current:
    current = _current.get()
    if current is None:
        message = f"{name}() is known only inside a step of a plan. By hand, pass what it stands for: key=..., seed=..."
        raise OutsideStep(message)
    return current


enter = _current.set
leave = _current.reset
