"""How what was opened is closed again: in reverse, each once, all of it, whatever fails.

The rules are those of nested ``with`` statements (``contextlib`` shows the finer ones: exceptions that a generator
hands back, ``StopIteration`` through a generator), with two differences: a dependency cannot swallow the exception
that ended the block, and clean-ups that fail do not hide one another.

Closing is written once. A step that must be awaited is yielded, so that one driver runs it synchronously and the
other in a coroutine. What awaiting came to is sent back as an `Outcome`, never thrown: a thrown
``GeneratorExit`` would close the steps instead of reaching them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Iterable
from types import AsyncGeneratorType, GeneratorType
from typing import Any, NamedTuple, TypeAlias, TypeVar

from torchsystem.errors import YieldedTwice

T = TypeVar("T")
Opened: TypeAlias = "GeneratorType[Any, Any, Any] | AsyncGeneratorType[Any, Any]"


# Written through these, also an exception that lets nobody set its attributes (a frozen dataclass) takes them.
_TRACEBACK: Any = BaseException.__dict__["__traceback__"]
_CONTEXT: Any = BaseException.__dict__["__context__"]


class Outcome(NamedTuple):
    """What a step came to: a value, or an exception."""

    value: Any
    error: BaseException | None


Steps: TypeAlias = Generator[Awaitable[Any], Outcome, T]


def run(steps: Steps[T]) -> T:
    """Run steps of which none has to be awaited."""
    try:
        awaitable = next(steps)
    except StopIteration as stop:
        result: T = stop.value
        return result
    message = f"{awaitable!r} would have to be awaited"
    raise AssertionError(message)


async def run_async(steps: Steps[T]) -> T:
    """Run steps, awaiting those that have to be."""
    try:
        awaitable = next(steps)
        while True:
            try:
                outcome = Outcome(await awaitable, None)
            except BaseException as error:  # noqa: BLE001 - handed to the steps, which decide
                outcome = Outcome(None, error)
            awaitable = steps.send(outcome)
    except StopIteration as stop:
        result: T = stop.value
        return result


def raise_if_failed(outcome: Outcome) -> Any:
    """Return the value of a step that was awaited, or raise what it raised."""
    if outcome.error is not None:
        reraise(outcome.error)
    return outcome.value


def close(opened: Iterable[Opened], error: BaseException | None) -> Steps[BaseException | None]:
    """Close ``opened``, in the order given, after a block that ended with ``error`` (None: as it should).

    Returns:
        The exception to raise, None if there is none: ``error`` itself; or the one clean-up that failed; or a
        group of those that did; their context is ``error``.
    """
    failures: list[BaseException] = []
    for generator in opened:
        # Without an error of its own the block still ended badly for those around a clean-up that failed.
        ended_by = error if error is not None or not failures else failures[0]
        failure = yield from _close_one(generator, ended_by)
        if failure is not None:
            failures.append(failure)
    if not failures:
        return error
    result = failures[0] if len(failures) == 1 else BaseExceptionGroup("several dependencies failed to close", failures)
    if error is not None:
        _append_context(result, error)
    return result


def _close_one(generator: Opened, error: BaseException | None) -> Steps[BaseException | None]:
    """Let one generator end, and return what it raised of its own."""
    if _has_ended(generator):  # it was never open: its set-up failed
        return None
    traceback = None if error is None else error.__traceback__
    ended = StopAsyncIteration if isinstance(generator, AsyncGeneratorType) else StopIteration
    try:
        if isinstance(generator, AsyncGeneratorType):
            outcome = yield generator.__anext__() if error is None else generator.athrow(error)
            raise_if_failed(outcome)
        else:
            _ = next(generator) if error is None else generator.throw(error)
    except ended:
        return None
    except BaseException as raised:  # noqa: BLE001 - returned, to be raised when all are closed
        return None if error is not None and _is_same(raised, error) else raised
    finally:
        if error is not None:
            _TRACEBACK.__set__(error, traceback)
    return (yield from refuse_second_yield(generator))


def _has_ended(generator: Opened) -> bool:
    frame = generator.ag_frame if isinstance(generator, AsyncGeneratorType) else generator.gi_frame
    return frame is None


def _is_same(raised: BaseException, error: BaseException) -> bool:
    """Tell whether a generator let ``error`` through; (async) ``StopIteration`` comes out wrapped (PEP 479)."""
    if raised is error:
        return True
    wraps = isinstance(raised, RuntimeError) and isinstance(error, StopIteration | StopAsyncIteration)
    return wraps and raised.__cause__ is error and str(raised).endswith(f" raised {type(error).__name__}")


def refuse_second_yield(generator: Opened) -> Steps[BaseException]:
    """Close a generator that yielded again, and return the mistake."""
    failure = YieldedTwice(
        f"{generator.__qualname__} yielded a second time. A dependency yields its value once; what follows the "
        f"yield cleans up and ends."
    )
    try:
        if isinstance(generator, AsyncGeneratorType):
            raise_if_failed((yield generator.aclose()))
        else:
            generator.close()
    except BaseException as raised:  # noqa: BLE001 - it will not end; said as the context of the mistake
        _CONTEXT.__set__(failure, raised)
    return failure


def _append_context(exception: BaseException, error: BaseException) -> None:
    """Make ``error`` the last context of ``exception``, unless it is there."""
    seen: set[int] = set()
    while exception is not error and id(exception) not in seen:
        seen.add(id(exception))
        if exception.__context__ is None:
            _CONTEXT.__set__(exception, error)
            return
        exception = exception.__context__


def reraise(exception: BaseException) -> None:
    """Raise ``exception`` as it is: also inside an ``except`` block, its context stays its own."""
    context = exception.__context__
    try:
        raise exception
    finally:
        _CONTEXT.__set__(exception, context)
