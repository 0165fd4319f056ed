"""Sharing: one mailbox for listeners that were given none."""

from __future__ import annotations

from torchsystem.depends import ProviderHost
from torchsystem.services import Mailbox, mailbox


class Lent:
    """A mailbox that a listener has for want of one that its user bound, and that gives way to any other.

    Args:
        box: The mailbox; by default one of its own.
    """

    def __init__(self, box: Mailbox | None = None) -> None:
        self._box = Mailbox() if box is None else box

    def __call__(self) -> Mailbox:
        """Return the mailbox."""
        return self._box


def lend(listener: object, box: Mailbox) -> None:
    """Bind a mailbox for a listener, unless its user bound one.

    Args:
        listener: The listener, or whoever else has dependencies.
        box: The mailbox.

    Examples:
        >>> from torchsystem.adapters.sharing import lend
        >>> from torchsystem.services import Consumer, Mailbox, mailbox
        >>> listener, box, own = Consumer(), Mailbox(), Mailbox()
        >>> lend(listener, box)
        >>> listener.dependency_overrides[mailbox]() is box
        True
        >>> listener.dependency_overrides[mailbox] = lambda: own
        >>> lend(listener, box)
        >>> listener.dependency_overrides[mailbox]() is own
        True
    """
    if not isinstance(listener, ProviderHost):
        return
    bound = listener.dependency_overrides.get(mailbox)
    if bound is None or isinstance(bound, Lent):
        listener.dependency_overrides[mailbox] = Lent(box)
