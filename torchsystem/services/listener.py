"""A listener: handlers that belong together, plugged in as one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from torchsystem.depends import ProviderHost, inject
from torchsystem.errors import InvalidState
from torchsystem.services.delivery import Table
from torchsystem.services.handlers import Handler, Handlers
from torchsystem.services.names import Named
from torchsystem.services.options import Gated
from torchsystem.services.signatures import place

if TYPE_CHECKING:
    from torchsystem.depends import Provider
    from torchsystem.services.options import Clock, Options

K = TypeVar("K")
M = TypeVar("M")


class Listener(Named, ProviderHost, Generic[K, M]):
    """What `Consumer` and `Subscriber` share: handlers that mean some messages (M), and routes to them (by K)."""

    def __init__(
        self, name: str | None = None, *, provider: Provider | None = None, clock: Clock = time.monotonic
    ) -> None:
        super().__init__(provider=provider)
        self.name = name
        self.clock = clock
        self.handlers: Handlers[M] = Handlers()
        self._table: Table[K] = Table()
        self.handlers.inform(self._table)

    def state_dict(self) -> dict[str, Any]:
        """Return what the listener remembers, as plain values: how many messages came to handlers that count them."""
        return {"handlers": self.handlers.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what was remembered: a run that is resumed so hears what it would have heard.

        Raises:
            InvalidState: The handlers that count are not those that counted. Nothing is changed then.
        """
        if "handlers" not in state:
            message = f"This is not the state of {self!r}: it has no 'handlers'. Load what `state_dict()` returned."
            raise InvalidState(message)
        self.handlers.restore(state["handlers"])

    def _take(
        self, function: Callable[..., object], meaning: M, classes: Iterable[type], options: Options, *, told: bool
    ) -> Callable[..., object]:
        """Take a function in as a handler, and return it injected."""
        gates = options.gates(place(function), classes, self.clock)
        injected: Callable[..., object] = inject(self.provider)(function)
        call = Gated(injected, gates) if gates else injected
        self.handlers.add(Handler(injected, call, meaning, options.order, told=told, gates=gates))
        return injected
