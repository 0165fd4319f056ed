"""The mailbox: messages for those who come later."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from enum import Enum
from typing import Any, NamedTuple

from torchsystem.errors import InvalidOption
from torchsystem.services.processes import ForkSafeLock


class Lifetime(Enum):
    """How long a message is kept."""

    FOREVER = "forever"
    UNTIL_END_OF_EPOCH = "until the end of the epoch"
    UNTIL_READ = "until it is read"


FOREVER = Lifetime.FOREVER
UNTIL_END_OF_EPOCH = Lifetime.UNTIL_END_OF_EPOCH
UNTIL_READ = Lifetime.UNTIL_READ


class _Letter(NamedTuple):
    """A message that is kept; `number` is its place among all, in order of arrival."""

    number: int
    value: Any
    keep: Lifetime


class Mailbox:
    """Messages by key, for those who come later: so two that never met, nor know of each other, work together.

    One that draws a picture writes its path; one that sends mail reads what pictures there are, and attaches them.

    Examples:
        >>> from torchsystem.services import FOREVER, UNTIL_READ, Mailbox
        >>> box = Mailbox()
        >>> box.write("pictures", "loss.png")
        >>> box.write("pictures", "accuracy.png", keep=UNTIL_READ)
        >>> box.read("pictures")
        ['loss.png', 'accuracy.png']
        >>> box.read("pictures")
        ['loss.png']
        >>> box.end_of_epoch()
        >>> box.read("pictures")
        []
    """

    def __init__(self) -> None:
        self._letters: dict[Hashable, list[_Letter]] = {}
        self._count = 0
        self._guard = ForkSafeLock()

    def write(
        self,
        key: Hashable,
        value: object,
        keep: Lifetime = UNTIL_END_OF_EPOCH,
        overwrite: bool = False,  # noqa: FBT001, FBT002 - may be positional, as `keep`
    ) -> None:
        """Leave a message. What can be detached (a tensor, from its graph) is.

        Args:
            key: Under which it can be read.
            value: The message.
            keep: How long it is kept: `FOREVER`, `UNTIL_END_OF_EPOCH` or `UNTIL_READ`.
            overwrite: Whether it replaces all that the key held, whatever its lifetime.

        Raises:
            InvalidOption: The lifetime is none.
        """
        if not isinstance(keep, Lifetime):
            message = f"keep={keep!r} is no lifetime. Write FOREVER, UNTIL_END_OF_EPOCH or UNTIL_READ."
            raise InvalidOption(message)
        detach = getattr(value, "detach", None)
        if callable(detach) and not isinstance(value, type):
            value = detach()
        with self._guard.lock:
            self._count += 1
            kept = [] if overwrite else self._letters.get(key, [])
            self._letters[key] = [*kept, _Letter(self._count, value, keep)]

    def read(self, key: Hashable) -> list[Any]:
        """Return the messages under a key in order of arrival: none, if it is unknown or spent."""
        with self._guard.lock:
            letters = self._letters.get(key, [])
            if letters:
                self._purge(key, UNTIL_READ)
        return [letter.value for letter in letters]

    def collect(self, wanted: Callable[[Hashable], bool]) -> list[tuple[Hashable, Any]]:
        """Read all keys that are wanted at once.

        Returns:
            Keys and messages, in order of arrival.
        """
        with self._guard.lock:
            found = [(letter, key) for key, letters in self._letters.items() if wanted(key) for letter in letters]
            for key in {key for _, key in found}:
                self._purge(key, UNTIL_READ)
        return [(key, letter.value) for letter, key in sorted(found, key=lambda pair: pair[0].number)]

    def end_of_epoch(self) -> None:
        """Let go of what was kept until the end of the epoch."""
        with self._guard.lock:
            for key in list(self._letters):
                self._purge(key, UNTIL_END_OF_EPOCH)

    def _purge(self, key: Hashable, lifetime: Lifetime) -> None:
        """Let go of messages of one lifetime under a key, and of the key if nothing else is there."""
        self._letters[key] = [letter for letter in self._letters[key] if letter.keep is not lifetime]
        if not self._letters[key]:
            del self._letters[key]


def mailbox() -> Mailbox:
    """Say that a mailbox is needed; an interface, bound in the composition root to the one that all share.

    Examples:
        >>> from torchsystem.services import Consumer, Depends, Mailbox, event, mailbox
        >>> @event
        ... class Drawn:
        ...     path: str
        >>> consumer, box = Consumer(), Mailbox()
        >>> @consumer.handler
        ... def remember(event: Drawn, mailbox: Mailbox = Depends(mailbox)) -> None:
        ...     mailbox.write("pictures", event.path)
        >>> consumer.dependency_overrides[mailbox] = lambda: box
        >>> consumer.consume(Drawn("loss.png"))
        >>> box.read("pictures")
        ['loss.png']
    """
    ...  # noqa: PIE790 - to pyright a docstring alone is a body that returns None
