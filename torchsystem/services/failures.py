"""Failures: what becomes of an exception that a handler raises, and of those who were to hear after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from torchsystem.errors import InvalidOption
from torchsystem.services.delivery import Call
from torchsystem.services.messages import event
from torchsystem.services.signatures import can_be_called_with

FailurePolicy: TypeAlias = Literal["stop", "finish", "isolate"]
OnFailure: TypeAlias = Callable[[Exception, Any, Callable[..., object]], object]


@event
class HandlerFailed:
    """A handler failed, and the policy is to serve the others all the same.

    Attributes:
        error: What it raised.
        event: What it was handling.
        handler: Which it was: the function, as its decorator returned it.
    """

    error: BaseException
    event: Any
    handler: Callable[..., object]


class Hearer(NamedTuple):
    """Someone who is to be served: what is called, and for which handler."""

    call: Call
    handler: Callable[..., object]


Announce: TypeAlias = Callable[[HandlerFailed], Iterable[Hearer]]

# Who is letting others hear of a failure. Those may dispatch, and fail in that; announcing it, too, might never end.
_announcing: ContextVar[tuple[Announce, ...]] = ContextVar("torchsystem.services.failures", default=())


class Settlement:
    """What came up in one delivery, and what becomes of it when the delivery is over.

    This one is for the policy `"stop"`, by which the first exception ends a delivery: what it has to settle happened
    in the background, or while closing.
    """

    def __init__(self) -> None:
        self.failures: list[HandlerFailed] = []
        self._requests: list[BaseException] = []  # to be raised as themselves

    def serve(self, hearers: Iterable[Hearer], message: object) -> None:
        """Hand a message to everyone, in order; the first exception ends it."""
        for call, _ in hearers:
            call(message)

    def settle(self, failure: HandlerFailed) -> None:
        """Take in a failure. A request to stop is none, nor is an interrupt: they are raised in the end."""
        if isinstance(failure.error, Exception) and not isinstance(failure.error, StopIteration):
            self.note(failure, failure.error)
        else:
            self._requests.append(failure.error)

    def settle_all(self, failures: Sequence[HandlerFailed]) -> None:
        """Take in several failures; an interrupt on the way has the rest as its cause."""
        for number, failure in enumerate(failures, 1):
            try:
                self.settle(failure)
            except BaseException as error:
                rest = Settlement()
                rest.settle_all(failures[number:])
                self.failures += rest.failures
                self._requests += rest._requests
                self.end_by(error)
                raise

    def note(self, failure: HandlerFailed, error: Exception) -> None:  # noqa: ARG002 - others tell it
        """Keep a failure, to be raised in the end."""
        self.failures.append(failure)

    def conclude(self) -> None:
        """Raise what is to be raised: a request as itself, caused by what else there is, so that nothing is lost."""
        if self._requests:  # an interrupt comes before a request to stop
            request = min(self._requests, key=lambda error: isinstance(error, Exception))
            self.end_by(request)
            raise request
        failed = self.merged()
        if failed is not None:
            raise failed

    def end_by(self, error: BaseException) -> None:
        """Let an exception that ends the delivery tell what else there is: failures as its cause, requests in notes.

        A cause that it has already stays one.
        """
        failed = self.merged()
        if failed is not None:
            own = error.__cause__
            error.__cause__ = failed if own is None else BaseExceptionGroup("its own cause, and more", [own, failed])
        for other in self._requests:
            if other is not error:
                error.add_note(f"beside it was raised: {other!r}")
        self.failures, self._requests = [], []  # told now

    def merged(self) -> Exception | None:
        """Return one exception for all failures: a single one as itself."""
        return _errors(self.failures)[0] if len(self.failures) == 1 else _group(self.failures)


class Everyone(Settlement):
    """What came up in one delivery by the policies `"finish"` and `"isolate"`: everyone is served, whoever fails.

    Args:
        on_failure: What is told each failure, for `"isolate"`; None raises all of them in the end, for `"finish"`.
        announce: Tells who is to hear that a handler failed.
    """

    def __init__(self, on_failure: OnFailure | None, announce: Announce | None) -> None:
        super().__init__()
        self._on_failure = on_failure
        self._announce = announce

    def serve(self, hearers: Iterable[Hearer], message: object) -> None:
        """Hand a message to everyone, in order, whoever fails; only an interrupt ends it."""
        for call, handler in hearers:
            try:
                call(message)
            except Exception as error:  # noqa: BLE001 - that is the policy
                self.settle(HandlerFailed(error, message, handler))
            except BaseException as error:
                self.end_by(error)
                raise

    def note(self, failure: HandlerFailed, error: Exception) -> None:
        """Keep a failure or tell it, and let others hear of it; how they fail in turn, in whatever way, they do not."""
        if self._on_failure is None:
            super().note(failure, error)
        else:
            try:
                self._on_failure(error, failure.event, failure.handler)
            except Exception as raised:  # noqa: BLE001 - nobody is left to tell but the caller, when all are served
                self._requests.append(raised)
        announcing = _announcing.get()
        if self._announce is None or self._announce in announcing or isinstance(failure.event, HandlerFailed):
            return
        token = _announcing.set((*announcing, self._announce))
        try:
            self.serve(self._announce(failure), failure)
        finally:
            _announcing.reset(token)

    def merged(self) -> Exception | None:
        """Return a group of all failures, also of a single one."""
        return _group(self.failures)


class Policy:
    """What a producer or a publisher was told to do about failures.

    Raises:
        InvalidOption: There is no such policy, or `on_failure` is missing, or would never be called.
    """

    def __init__(self, failures: FailurePolicy, on_failure: OnFailure | None) -> None:
        if failures not in get_args(FailurePolicy):
            message = f"failures={failures!r} is no policy. Write 'stop', 'finish' or 'isolate'."
            raise InvalidOption(message)
        isolate = failures == "isolate"
        if isolate != (on_failure is not None) or (isolate and not can_be_called_with(on_failure, 3)):
            message = (
                f"failures={failures!r} with on_failure={on_failure!r}: isolated failures, and only they, are told to "
                f"a function. Write failures='isolate', on_failure=f, where f(error, event, handler) sees to them."
            )
            raise InvalidOption(message)
        self.everyone = failures != "stop"
        self._on_failure = on_failure

    def settlement(self, announce: Announce | None = None) -> Settlement:
        """Return what one delivery is settled in."""
        return Everyone(self._on_failure, announce) if self.everyone else Settlement()


def _errors(failures: Iterable[HandlerFailed]) -> list[Exception]:
    return [failure.error for failure in failures if isinstance(failure.error, Exception)]


def _group(failures: list[HandlerFailed]) -> Exception | None:
    who = "a handler" if len(failures) == 1 else f"{len(failures)} handlers"
    return ExceptionGroup(f"{who} failed", _errors(failures)) if failures else None
