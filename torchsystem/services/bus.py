"""A bus: where listeners are plugged in and taken out."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self, TypeVar

from torchsystem.errors import InvalidListener, InvalidOption, UnknownListener
from torchsystem.services.backlog import Backlog
from torchsystem.services.delivery import Route, Table
from torchsystem.services.failures import FailurePolicy, HandlerFailed, Hearer, OnFailure, Policy, Settlement
from torchsystem.services.lines import Line
from torchsystem.services.listener import Listener
from torchsystem.services.modes import Delivery, DeliverySpec, Where, delivery_of, is_here
from torchsystem.services.names import Named
from torchsystem.services.processes import ForkSafeLock

if TYPE_CHECKING:
    from types import TracebackType

L = TypeVar("L", bound=Listener[Any, Any])


@dataclass(frozen=True, slots=True, eq=False)
class Plug(Generic[L]):
    """A listener, and how it is plugged in.

    Attributes:
        listener: Who listens.
        delivery: How it is delivered to; None is at once.
        where: In which process it hears.
        here: Whether that is this one.
        queue: Where its messages are put; None if they are handed to it at once.
        kept: What was kept for it until it came: topics and messages.
    """

    listener: L
    delivery: Delivery | None
    where: Where
    here: bool
    queue: Backlog | Line | None
    kept: Sequence[tuple[Any, Any]] = ()


class Heard(NamedTuple, Generic[L]):
    """One handler that hears a message: where it is plugged in, its place among all, and what to call."""

    plug: Plug[L]
    order: int
    hearer: Hearer


class Bus(Named, Generic[L]):
    """What `Producer` and `Publisher` share: their listeners, in order of registration, and how these are served."""

    takes: ClassVar[type]

    def __init__(
        self, name: str | None = None, *, failures: FailurePolicy = "stop", on_failure: OnFailure | None = None
    ) -> None:
        self.name = name
        self._policy = Policy(failures, on_failure)
        self._backlog = Backlog(self._settlement, everyone=self._policy.everyone)
        # By identity: a listener may define equality as it likes. The dictionary is replaced, never changed.
        self._plugs: dict[int, Plug[L]] = {}
        self._guard = ForkSafeLock()
        self._table: Table[Any] = Table()
        self._nobody = self._route_to_nobody()  # always this very tuple

    def register(self, *listeners: L, delivery: DeliverySpec | None = None, where: Where = "everywhere") -> None:
        """Plug listeners in: they hear from the next message on. One that is plugged in already stays where it is.

        Args:
            listeners: Whom to plug in, in this order.
            delivery: How they are delivered to: `"inline"` (the default), `deferred`, or `background(...)`.
            where: In which process of several they hear: `"everywhere"`, the `"leader"`, or a rank. The rank is that
                of the environment (`RANK`), 0 without one.

        Raises:
            InvalidListener: One of them cannot listen here. None of them is registered then.
            InvalidOption: An option has no meaning, or differs from how one of them is plugged in already.

        What a listener raises when it is welcomed is raised here, and none of them is registered then.
        """
        new = self._plug_in(listeners, delivery, where)
        try:
            for plug in new:
                self._welcome(plug)
        except BaseException:
            self.unregister(*(plug.listener for plug in new if self._plugs.get(id(plug.listener)) is plug))
            raise

    def unregister(self, *listeners: L) -> None:
        """Take listeners out: they hear no message after this one. What is queued for them is still delivered.

        Raises:
            UnknownListener: One of them is not registered. None of them is taken out then.
        """
        with self._guard.lock:
            for listener in listeners:
                if id(listener) not in self._plugs:
                    message = f"{listener!r} is not registered with {self!r}, so it cannot be taken out."
                    raise UnknownListener(message)
            gone = {id(listener): self._plugs[id(listener)] for listener in listeners}
            self._plugs = {key: plug for key, plug in self._plugs.items() if key not in gone}
            for plug in gone.values():  # here, lest one that another thread plugs in again meanwhile is let go of
                plug.listener.handlers.leave(self._table)
                self._backlog.release(plug.queue)
        self._table.forget()

    def listeners(self) -> list[L]:
        """List those who are plugged in, in the order in which they came."""
        return [plug.listener for plug in self._plugs.values()]

    @contextmanager
    def connected(
        self, *listeners: L, delivery: DeliverySpec | None = None, where: Where = "everywhere"
    ) -> Generator[None]:
        """Plug listeners in for a `with` block; what is queued for them is delivered before they are taken out.

        Those that were plugged in before stay when it ends. The arguments are those of `register`.
        """
        present = self._plugs
        guests = [listener for listener in listeners if id(listener) not in present]
        self.register(*listeners, delivery=delivery, where=where)
        try:
            yield
        finally:
            try:
                if any(plug.queue is not None for guest in guests if (plug := self._plugs.get(id(guest)))):
                    self.flush()
            finally:
                self.unregister(*(guest for guest in guests if id(guest) in self._plugs))

    def flush(self, timeout: float | None = None) -> None:
        """Deliver what is deferred, and wait until all listeners in the background are idle.

        What fails, and has failed in the background, surfaces here by the policy. After a failure that ends the
        flush, what is left stays; the next flush goes on.

        Args:
            timeout: Seconds to wait for the background; None waits as long as it takes.

        Raises:
            DeliveryTimeout: The background is not idle in time. It goes on.
            WaitsForItself: A handler in the background calls this.
        """
        self._backlog.flush(timeout)

    def close(self, timeout: float | None = None) -> None:
        """Deliver all that is left, whoever fails, and end all threads; then let failures surface.

        Listeners stay plugged in: the next message starts what it needs.

        Args:
            timeout: Seconds to wait for the background; None waits as long as it takes.

        Raises:
            DeliveryTimeout: The background is not idle in time. It goes on.
            WaitsForItself: A handler in the background calls this.
        """
        self._backlog.close(timeout)

    def dropped(self, listener: L) -> int:
        """Tell how many messages to a listener in the background were dropped, because it did not keep up."""
        return sum(line.dropped for line in self._backlog.lines if line.listener is listener)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close. What fails is raised, with what ended the block as its context; only to an interrupt it is noted."""
        try:
            self.close()
        except Exception as failure:
            if error is None or isinstance(error, Exception):
                raise
            error.add_note(f"while closing {self!r}: {failure!r}")

    def _plug_in(self, listeners: Iterable[L], spec: DeliverySpec | None, where: Where) -> list[Plug[L]]:
        """Plug in those who are not yet, and return how."""
        delivery, here = delivery_of(spec), is_here(where)
        with self._guard.lock:
            newcomers: dict[int, L] = {}
            for listener in listeners:
                self._check(listener)
                plug = self._plugs.get(id(listener))
                if plug is None:
                    newcomers[id(listener)] = listener
                elif (spec is not None and delivery != plug.delivery) or where not in ("everywhere", plug.where):
                    message = (
                        f"{listener!r} is registered with {self!r} already, by delivery={plug.delivery or 'inline'}, "
                        f"where={plug.where!r}. Unregister it first."
                    )
                    raise InvalidOption(message)
            plugs = {key: self._plug(listener, delivery, where, here=here) for key, listener in newcomers.items()}
            self._plugs = {**self._plugs, **plugs}
            self._nobody = self._route_to_nobody()
            for plug in plugs.values():
                plug.listener.handlers.inform(self._table)
        self._table.forget()
        return list(plugs.values())

    def _plug(self, listener: L, delivery: Delivery | None, where: Where, *, here: bool) -> Plug[L]:
        """Return how a listener is plugged in; elsewhere it needs no queue, and nothing was kept for it."""
        if not here:
            return Plug(listener, delivery, where, here, None)
        return Plug(listener, delivery, where, here, self._backlog.queue(listener, delivery), self._kept_for(listener))

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

    def _kept_for(self, listener: L) -> Sequence[tuple[Any, Any]]:  # noqa: ARG002 - publishers keep
        """Return what was kept for a listener until now."""
        return ()

    def _welcome(self, plug: Plug[L]) -> None:
        """Do what is to be done when a listener comes, before it hears anything else."""

    def _settlement(self) -> Settlement:
        """Return what one delivery is settled in."""
        return self._policy.settlement()

    def _served(self, heard: Iterable[Heard[L]]) -> tuple[Hearer, ...]:
        """Return who is to be served, in order; those of one queue stand where the first of them would."""
        groups: dict[int | Backlog | Line, list[Hearer]] = {}
        for number, (plug, _, hearer) in enumerate(sorted(heard, key=attrgetter("order"))):
            groups.setdefault(number if plug.queue is None else plug.queue, []).append(hearer)
        return tuple(
            hearers[0] if isinstance(place, int) else Hearer(partial(place.put, tuple(hearers)), hearers[0].handler)
            for place, hearers in groups.items()
        )

    def _route_to(self, hearers: tuple[Hearer, ...]) -> Route:
        """Return what to call so that all are served by the policy, and what failed in the background is seen."""
        if self._policy.everyone:
            return (partial(self._serve, hearers),) if hearers or self._backlog.lines else ()
        calls = tuple(hearer.call for hearer in hearers)
        return (self._backlog.look, *calls, self._backlog.surface) if self._backlog.lines else calls

    def _route_to_nobody(self) -> Route:
        """Return what to call for a message that nobody hears: usually nothing."""
        return self._route_to(())

    def _serve(self, hearers: tuple[Hearer, ...], message: object) -> None:
        """Serve everyone, whoever fails."""
        served, failed = 0, None
        self._backlog.look()
        try:
            for call, _ in hearers:
                call(message)
                served += 1
        except Exception as error:  # noqa: BLE001 - settled below, where it is no context of what others raise
            failed = error
        if failed is None and not self._backlog.lines:
            return
        settlement = self._settlement()
        if failed is not None:
            settlement.settle(HandlerFailed(failed, message, hearers[served].handler))
            failed = None  # or its traceback would hold it for ever
            settlement.serve(hearers[served + 1 :], message)
        settlement.settle_all(self._backlog.due())
        settlement.conclude()
