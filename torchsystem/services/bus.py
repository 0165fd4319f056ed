"""A bus: where listeners are plugged in and taken out."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from torchsystem.errors import InvalidListener, UnknownListener
from torchsystem.services.delivery import Table
from torchsystem.services.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Generator


L = TypeVar("L", bound=Listener[Any, Any])


class Bus(Generic[L]):
    """What `Producer` and `Publisher` share: their listeners, in order of registration."""

    takes: ClassVar[type]

    def __init__(self) -> None:
        # By identity: a listener may define equality as it likes. The dictionary is replaced, never changed.
        self._listeners: dict[int, L] = {}
        self._lock = Lock()
        self._table: Table[Any] = Table()

    def register(self, *listeners: L) -> None:
        """Plug listeners in: they hear from the next message on. One that is plugged in already stays where it is.

        Raises:
            InvalidListener: One of them cannot listen here. None of them is registered then.
        """
        for listener in listeners:
            self._check(listener)
        with self._lock:
            self._listeners = {**self._listeners, **{id(listener): listener for listener in listeners}}
        for listener in listeners:
            listener.handlers.inform(self._table)
        self._table.forget()

    def unregister(self, *listeners: L) -> None:
        """Take listeners out: they hear no message after this one.

        Raises:
            UnknownListener: One of them is not registered. None of them is taken out then.
        """
        with self._lock:
            for listener in listeners:
                if id(listener) not in self._listeners:
                    message = f"{listener!r} is not registered here, so it cannot be taken out."
                    raise UnknownListener(message)
            gone = {id(listener) for listener in listeners}
            self._listeners = {key: listener for key, listener in self._listeners.items() if key not in gone}
        for listener in listeners:
            listener.handlers.leave(self._table)
        self._table.forget()

    def listeners(self) -> list[L]:
        """List those who are plugged in, in the order in which they came."""
        return list(self._listeners.values())

    @contextmanager
    def connected(self, *listeners: L) -> Generator[None]:
        """Plug listeners in for a `with` block; those that were there before stay when it ends."""
        present = self._listeners
        guests = [listener for listener in listeners if id(listener) not in present]
        self.register(*guests)
        try:
            yield
        finally:
            self.unregister(*(guest for guest in guests if id(guest) in self._listeners))

    def _check(self, listener: object) -> None:
        """Refuse what cannot listen here, with the way to make it."""
        expected = self.takes.__name__
        if isinstance(listener, self.takes):
            if hasattr(listener, "handlers"):
                return
            remedy = f"Call super().__init__() in {type(listener).__qualname__}.__init__"
        elif inspect.isclass(listener):
            remedy = f"Register an instance: {listener.__qualname__}()"
        elif callable(listener):
            remedy = f"Register it with a {expected} first, which is then plugged in"
        else:
            remedy = f"Register a {expected}"
        message = f"{type(self).__name__}.register cannot use {listener!r}. {remedy}."
        raise InvalidListener(message)
