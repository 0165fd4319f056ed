"""Immediacy: listeners that look at what is trained have to do so at that moment, and not later."""

from __future__ import annotations

from torchsystem.errors import InvalidOption
from torchsystem.services import Consumer, Registered, handler


class Immediate(Consumer):
    """A listener that looks at what is trained while an event is dispatched, and so is delivered to inline.

    Delivered to later, or by another thread, it would look at what has changed by then, or changes meanwhile.

    Examples:
        >>> from torchsystem.adapters.immediacy import Immediate
        >>> from torchsystem.errors import InvalidOption
        >>> from torchsystem.services import Producer, background
        >>> try:
        ...     Producer().register(Immediate("rates"), delivery=background())
        ... except InvalidOption as error:
        ...     print(str(error)[-38:])
        Register it there without `delivery=`.
    """

    @handler
    def settle(self, event: Registered) -> None:
        """Refuse to be delivered to at any other moment.

        Raises:
            InvalidOption: It is not delivered to inline.
        """
        try:
            event.producer.register(self, delivery="inline")  # which changes nothing for who is plugged in so
        except InvalidOption as error:
            message = (
                f"{self!r} looks at what is trained at the very moment of an event, so it can be delivered to neither "
                f"later nor by a thread of its own. Register it there without `delivery=`."
            )
            raise InvalidOption(message) from error
