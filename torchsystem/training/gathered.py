"""An epoch so far: its metrics, the splits that are done or under way, and whatever somebody wants kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from torchsystem.domain.plain import Plain, like, plain
from torchsystem.errors import InvalidSplit, UnkeepableValue


class Stateful(Protocol):
    """Anything whose state can be kept."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state: Any) -> object:
        """Take up a state."""


class Gathered:
    """What was gathered in an epoch, or in the first part of it, when another process began it.

    Args:
        state: What `state` gave there; nothing in a new epoch.

    Attributes:
        metrics: What was reported, by split and name: `"validation/loss"`.
        done: The splits that were gone through.
        entered: The splits under way, the inner one last, and how many batches they have; None where nobody knows.
        waiting: The splits that were not due in it.
    """

    __slots__ = ("_behind", "_kept", "_waiting", "done", "entered", "metrics", "waiting")

    def __init__(self, state: Plain) -> None:
        self.metrics: dict[str, float] = dict(state.get("metrics", {}))
        self.done: list[str] = list(state.get("done", ()))
        self.entered: dict[str, int | None] = {}
        self.waiting: set[str] = set()
        self._behind: list[str] = list(self.done)  # what need not be gone through again
        self._kept: dict[str, Stateful] = {}
        self._waiting: dict[str, Plain] = dict(state.get("kept", {}))

    def keep(self, name: str, thing: Stateful) -> None:
        """Keep something that is gathered in this epoch, such as a metric of your own, in checkpoints of the run.

        Where the run goes on in the middle of this epoch, it takes up its state now.

        Args:
            name: What to call it.
            thing: Something with `state_dict` and `load_state_dict`.

        Raises:
            UnkeepableValue: It has not both.
        """
        if not (callable(getattr(thing, "state_dict", None)) and callable(getattr(thing, "load_state_dict", None))):
            message = (
                f"epoch.keep({name!r}, ...): what is of type {type(thing).__qualname__} cannot be kept. Keep an object "
                f"with state_dict() and load_state_dict(state)."
            )
            raise UnkeepableValue(message)
        if name in self._waiting:
            thing.load_state_dict(like(self._waiting.pop(name), thing.state_dict()))
        self._kept[name] = thing

    def let_go(self, name: str) -> None:
        """Keep something no longer."""
        self._kept.pop(name, None)

    def left(self, splits: Iterable[str]) -> list[str]:
        """Return the splits that are still to be gone through: all, unless the run was interrupted in this epoch.

        Args:
            splits: Their names, in order.
        """
        return [split for split in splits if not self.is_behind(split)]

    def is_behind(self, split: str) -> bool:
        """Tell whether a split was gone through before the run was interrupted; once for each time that it was."""
        if split in self._behind:
            self._behind.remove(split)
            return True
        return False

    def enter(self, split: str, expected: int | None) -> None:
        """Note that a split is under way, within a batch of the one that was so before.

        Raises:
            InvalidSplit: It is under way already.
        """
        if split in self.entered:
            message = f"the split {split!r} is being gone through already. Give the one in it another name: split=..."
            raise InvalidSplit(message)
        self.entered[split] = expected

    def leave(self, split: str) -> None:
        """Note that a split is under way no longer; one within a batch of another is done with that."""
        self.entered.pop(split)
        if not self.entered:
            self.done.append(split)

    def innermost(self) -> tuple[str | None, int | None]:
        """Return the split under way, and how many batches it has."""
        return next(reversed(self.entered.items()), (None, None))

    def is_amid(self, split: str, *, exact: bool) -> bool:
        """Tell whether a split is gone through within a batch of another one, which is not done yet.

        Args:
            split: Its name.
            exact: Whether the run is to go on exactly.

        Raises:
            InvalidSplit: It is the other one, so that the two are gone through side by side, and nobody could tell
                where each is; but the run is to go on exactly.
        """
        inner = next(reversed(self.entered), split)
        if inner != split and exact:
            message = (
                f"the splits {split!r} and {inner!r} are gone through at the same time, where a run cannot be "
                f"continued exactly. Make one loader of both, such as one over torch.utils.data.StackDataset, or "
                f"accept that a run that goes on may differ: Checkpoints(..., exact=False)."
            )
            raise InvalidSplit(message)
        return inner == split and len(self.entered) > 1

    def state(self) -> dict[str, Plain]:
        """Return what was gathered.

        Raises:
            NonFiniteLoss: A loss so far was not finite, so that what it led to must not be kept.
        """
        for thing in self._kept.values():
            check = getattr(thing, "check", None)
            if callable(check):
                check()
        return {
            "metrics": dict(self.metrics),
            "done": list(self.done),
            "entered": list(self.entered),
            "kept": self._waiting | {name: plain(thing.state_dict(), name) for name, thing in self._kept.items()},
        }
