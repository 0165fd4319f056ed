"""Options of a handler: which of the messages that it hears reach it, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, TypeAlias

from torchsystem.errors import InvalidOption
from torchsystem.progress import Progress
from torchsystem.services.processes import ForkSafeLock
from torchsystem.services.signatures import can_be_called_with
from torchsystem.triggers import Trigger

Clock: TypeAlias = Callable[[], float]
Predicate: TypeAlias = Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for where a handler is defined.

    Attributes:
        every: Each how many-th of the messages that pass `when` reaches the handler, counted from its registration.
        when: A predicate of the message, or a trigger.
        order: Its place among all handlers of one message.

    Raises:
        InvalidOption: One of them has no meaning.
    """

    every: int = 1
    when: Predicate | Trigger | None = None
    order: int = 0

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if isinstance(self.every, Trigger):
            _refuse("every", self.every, "A trigger says when: write when=every(...)")
        if not _is_whole(self.every) or self.every < 1:
            _refuse("every", self.every, "Write a whole number, 1 or more")
        if not _is_whole(self.order):
            _refuse("order", self.order, "Write a whole number; the default is 0, and lower ones come first")
        if not (self.when is None or isinstance(self.when, Trigger) or can_be_called_with(self.when, 1)):
            _refuse("when", self.when, "Write a predicate, `lambda event: ...`, or a trigger")

    def gates(self, place: str, classes: Iterable[type], clock: Clock) -> tuple[Gate, ...]:
        """Return what a message has to pass on its way to the handler.

        Args:
            place: Where the handler is, for the message of an error.
            classes: Of what classes its messages are, as far as that is known.
            clock: What tells the seconds where a run does not.

        Raises:
            InvalidOption: A trigger counts what the messages do not carry.
        """
        found: list[Gate] = []
        if isinstance(self.when, Trigger):
            missing = [cls for cls in classes if not _has_progress(cls)]
            if missing and self.when.counts:
                message = (
                    f"{place}: when={self.when!r} counts, and {missing[0].__qualname__} has no progress to count by. "
                    f"Declare `progress: Progress` in it, or listen to events that have it."
                )
                raise InvalidOption(message)
            found.append(CrossingGate(self.when, clock if missing else None))
        elif self.when is not None:
            found.append(PredicateGate(self.when))
        if self.every > 1:
            found.append(CountingGate(self.every))
        return tuple(found)


class Gate:
    """Something that lets a message pass, or not. What it remembers for that belongs to the listener's state."""

    __slots__ = ()

    def passes(self, message: Any) -> bool:
        """Tell whether a message passes, once for each message."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Return what it remembers, as plain values."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Remember what another one of its kind remembered."""


class PredicateGate(Gate):
    """Passes what a predicate is true of."""

    __slots__ = ("_predicate",)

    def __init__(self, predicate: Predicate) -> None:
        self._predicate = predicate

    def passes(self, message: Any) -> bool:
        """Ask the predicate."""
        return bool(self._predicate(message))


class CountingGate(Gate):
    """Passes each n-th message."""

    __slots__ = ("_count", "_guard", "_n")

    def __init__(self, n: int) -> None:
        self._n = n
        self._count = 0
        self._guard = ForkSafeLock()

    def passes(self, message: Any) -> bool:  # noqa: ARG002 - any message counts
        """Count it."""
        with self._guard.lock:
            self._count += 1
            return self._count % self._n == 0

    def state(self) -> dict[str, Any]:
        """Return how many came."""
        return {"count": self._count}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on counting from there."""
        count = state["count"]
        if not _is_whole(count) or count < 0:
            message = f"{count!r} is no count"
            raise ValueError(message)
        self._count = count


class CrossingGate(Gate):
    """Passes a message when a trigger fires between the one before and this one.

    Args:
        trigger: What is asked.
        clock: What tells the seconds, counted from now on, where messages have no progress; None where they have.
    """

    __slots__ = ("_clock", "_guard", "_previous", "_start", "_trigger")

    def __init__(self, trigger: Trigger, clock: Clock | None) -> None:
        self._trigger = trigger
        self._clock = clock
        self._start = 0.0 if clock is None else clock()
        self._previous: Progress | None = None
        self._guard = ForkSafeLock()

    def passes(self, message: Any) -> bool:
        """Ask the trigger."""
        with self._guard.lock:
            present = message.progress if self._clock is None else Progress(elapsed=self._clock() - self._start)
            previous, self._previous = self._previous, present
            return self._trigger(previous, present)

    def state(self) -> dict[str, Any]:
        """Return the progress at the last message."""
        return {"progress": None if self._previous is None else asdict(self._previous)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there; the time since then does not count."""
        self._previous = None if state["progress"] is None else Progress(**state["progress"])
        if self._clock is not None and self._previous is not None:
            self._start = self._clock() - self._previous.elapsed


class Gated:
    """A handler behind its gates."""

    __slots__ = ("_function", "_gates")

    def __init__(self, function: Callable[..., object], gates: tuple[Gate, ...]) -> None:
        self._function = function
        self._gates = gates

    def __call__(self, message: object, /, **given: object) -> None:
        """Call the handler if the message passes all gates, in their order; the next gate sees what passed the last."""
        for gate in self._gates:
            if not gate.passes(message):
                return
        self._function(message, **given)


def _has_progress(cls: type) -> bool:
    """Tell whether the instances of a class say how far a run has come."""
    return hasattr(cls, "progress") or any("progress" in vars(base).get("__annotations__", ()) for base in cls.__mro__)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _refuse(name: str, value: object, remedy: str) -> NoReturn:
    message = f"{name}={value!r} means nothing here. {remedy}."
    raise InvalidOption(message)
