"""Immediacy: listeners that look at what is trained have to do so at that moment, and not later."""

from __future__ import annotations

from torchsystem.errors import InvalidOption
from torchsystem.services import Consumer, Producer


def demand_inline(listener: Consumer, producer: Producer) -> None:
    """Refuse to be delivered to later, or by another thread: what is trained has changed by then, or changes meanwhile.

    Args:
        listener: The listener, which was just plugged in.
        producer: Where.

    Raises:
        InvalidOption: It is not delivered to inline.

    Examples:
        >>> from torchsystem.adapters.immediacy import demand_inline
        >>> from torchsystem.services import Consumer, Producer, background
        >>> producer, rates = Producer(), Consumer("rates")
        >>> producer.register(rates, delivery=background())
        >>> from torchsystem.errors import InvalidOption
        >>> try:
        ...     demand_inline(rates, producer)
        ... except InvalidOption as error:
        ...     print(str(error)[-38:])
        Register it there without `delivery=`.
    """
    try:
        producer.register(listener, delivery="inline")  # which changes nothing for who is plugged in so
    except InvalidOption as error:
        message = (
            f"{listener!r} looks at what is trained at the very moment of an event, so it can be delivered to neither "
            f"later nor by a thread of its own. Register it there without `delivery=`."
        )
        raise InvalidOption(message) from error
