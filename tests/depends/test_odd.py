"""Odd callables, odd names, odd exceptions: what a solver meets in the wild."""

from __future__ import annotations

import asyncio
import functools
import gc
import io
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, NamedTuple, Optional, Self, TypeVar
from typing import Annotated as Renamed
from unittest.mock import AsyncMock

import pytest

from torchsystem.depends import Depends, Provider, inject
from torchsystem.depends import Depends as Needs
from torchsystem.errors import (
    CyclicDependency,
    InvalidDependency,
    NeverYielded,
    SessionEnded,
    TooDeep,
    UnboundInterface,
    UnresolvedAnnotation,
)
from torchsystem.services import Service

if TYPE_CHECKING:
    from elsewhere import AnnotatedSample, AnyLoss, Tensor, make

T = TypeVar("T")


def device() -> str:
    """Say where to train."""
    return "cuda"


@dataclass(frozen=True)
class Frozen(Exception):
    """An exception of which no attribute can be set."""

    code: int = 1


def test_an_exception_that_cannot_be_written_to_passes_all_the_same() -> None:
    """A frozen dataclass as an exception reaches the caller, and everything is closed on its way."""
    log: list[str] = []

    def outer() -> Iterator[None]:
        try:
            yield
        finally:
            log.append("outer")

    def inner(outer: None = Depends(outer)) -> Iterator[None]:
        try:
            yield
        finally:
            log.append("inner")

    @inject(Provider())
    def handler(inner: None = Depends(inner), fails: bool = True) -> None:  # noqa: FBT001, FBT002
        raise Frozen

    with pytest.raises(Frozen):
        handler()
    assert log == ["inner", "outer"]


def test_a_clean_up_may_raise_one_too() -> None:
    """Its context is what it has to be."""
    original = Frozen(1)

    def failing() -> Iterator[None]:
        with suppress(Frozen):
            yield
        raise Frozen(2)

    @inject(Provider())
    def handler(failing: None = Depends(failing)) -> None:
        raise original

    with pytest.raises(Frozen) as caught:
        handler()
    assert caught.value.code == 2
    assert caught.value.__context__ is original


def test_parameters_may_have_the_names_of_builtins() -> None:
    """`next`, `BaseException` and the like are names as good as any."""

    def opened() -> Iterator[int]:
        yield 1

    @inject(Provider())
    def handler(
        next: object = None,  # noqa: A002
        BaseException: object = None,  # noqa: A002, N803
        NotImplementedError: object = None,  # noqa: A002, N803
        opened: int = Depends(opened),
    ) -> int:
        return opened

    assert handler() == 1


def test_names_that_mean_the_same_to_python_are_two() -> None:
    """Python takes "ﬁ" and "fi" for one name; two dependencies stay two, whatever they are called."""
    first, second, third = type("ﬁ", (), {}), type("fi", (), {}), type("_debug__", (), {})

    @inject(Provider())
    def handler(a: object = Depends(first), b: object = Depends(second), c: object = Depends(third)) -> list[type]:
        return [type(a), type(b), type(c)]

    assert handler() == [first, second, third]


def test_a_constructor_behind_a_metaclass_is_read() -> None:
    """A singleton's `__call__` passes everything on; what it takes, the constructor says."""

    class Singleton(type):
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    class Box(metaclass=Singleton):
        def __init__(self, device: str = Depends(device)) -> None:
            self.device = device

    class Other:
        def __new__(cls, *_args: object, **_kwargs: object) -> Self:
            return super().__new__(cls)

        def __init__(self, device: str = Depends(device)) -> None:
            self.device = device

    @inject(Provider())
    def handler(box: Box = Depends(Box), other: Other = Depends(Other)) -> tuple[str, str]:
        return box.device, other.device

    assert handler() == ("cuda", "cuda")


def test_a_generic_class_is_constructed() -> None:
    """`Box[int]` takes what `Box` takes."""

    class Box(Generic[T]):
        def __init__(self, device: str = Depends(device)) -> None:
            self.device = device

    assert inject(Provider())(lambda box=Depends(Box[int]): box.device)() == "cuda"


def test_dependencies_that_a_signature_hides_are_refused() -> None:
    """The mark itself would reach the function as a value."""

    def hidden(device: str = Depends(device)) -> str:
        return device

    hidden.__signature__ = "none"  # type: ignore[attr-defined]
    with pytest.raises(InvalidDependency, match=r"hidden .*has dependencies that its signature hides"):
        inject(Provider())(lambda value=Depends(hidden): value)


def test_every_sort_of_context_manager_is_entered() -> None:
    """A method, a class method, a partial, and one around another decorator."""

    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: object) -> object:
            return function(*args)

        return wrapper

    class Opener:
        @contextmanager
        def method(self) -> Iterator[str]:
            yield "method"

        @classmethod
        @contextmanager
        def by_class(cls) -> Iterator[str]:
            yield cls.__name__

    @contextmanager
    def numbered(number: int) -> Iterator[int]:
        yield number

    @contextmanager
    @logged
    def decorated() -> Iterator[str]:
        yield "decorated"

    @inject(Provider())
    def handler(
        a: str = Depends(Opener().method),
        b: str = Depends(Opener.by_class),
        c: int = Depends(functools.partial(numbered, 3)),
        d: str = Depends(decorated),
    ) -> tuple[object, ...]:
        return a, b, c, d

    assert handler() == ("method", "Opener", 3, "decorated")


def test_a_mark_where_nobody_sees_it_is_refused() -> None:
    """Deep inside an annotation, bare, or on `*args`: it would silently never be made."""
    provider = Provider()
    with pytest.raises(InvalidDependency, match="deep inside the annotation of 'x'"):

        @inject(provider)
        def optional(x: Optional[Annotated[str, Depends(device)]] = None) -> None: ...  # noqa: UP045

    with pytest.raises(InvalidDependency, match="'x' is annotated with Depends, without its dependency"):

        @inject(provider)
        def bare(x: Annotated[str, Depends] = "x") -> None: ...

    with pytest.raises(InvalidDependency, match="'x' takes any number of values"):

        @inject(provider)
        def many(*x: Annotated[str, Depends(device)]) -> None: ...


def test_annotations_are_judged_by_objects_and_not_by_words() -> None:
    """A class called `AnnotatedSample` decides nothing; `Annotated` under another name does."""

    def unmarked(x: Annotated[Tensor, "batch"], y: AnnotatedSample) -> None: ...

    provider = Provider()
    assert inject(provider)(unmarked) is unmarked

    @inject(provider)
    def renamed(x: Renamed[Tensor, Needs(device)]) -> object:
        return x

    assert renamed() == "cuda"  # type: ignore[call-arg]
    with pytest.raises(UnresolvedAnnotation, match=r"Needs\(make\)"):

        @inject(provider)
        def unknown(x: Renamed[int, Needs(make)] = 5) -> None: ...


def test_annotations_of_fields_are_read_where_the_class_is() -> None:
    """Named tuples, data classes and `__new__` say what they need as functions do."""

    class Named(NamedTuple):
        device: Annotated[str, Depends(device)]

    @dataclass
    class Data:
        device: Annotated[str, Depends(device)]

    class New:
        def __new__(cls, device: Annotated[str, Depends(device)]) -> Self:
            made = super().__new__(cls)
            made.device = device  # type: ignore[attr-defined]
            return made

    @inject(Provider())
    def handler(a: Any = Depends(Named), b: Any = Depends(Data), c: Any = Depends(New)) -> set[str]:
        return {a.device, b.device, c.device}

    assert handler() == {"cuda"}


def test_the_overrides_can_be_replaced_as_a_whole() -> None:
    """`dependency_overrides = {}` resets them, and `|=` works on a service too."""
    service = Service()

    @service.handler
    def where(device: str = Depends(device)) -> str:
        return device

    service.dependency_overrides |= {device: lambda: "meta"}
    assert where() == "meta"
    service.dependency_overrides = {}
    assert where() == "cuda"
    service.provider.dependency_overrides = {device: lambda: "cpu"}
    assert where() == "cpu"


def test_what_is_open_at_exit_is_said() -> None:
    """A script that forgot to close a provider is told, as one that forgot to close a file."""
    script = (
        "from torchsystem import Depends, Provider, inject\n"
        "def writer():\n    yield 'open'\n"
        "provider = Provider()\n"
        "@inject(provider)\ndef use(w=Depends(writer, scope='provider')): pass\n"
        "use()\n"
    )
    command = [sys.executable, "-W", "always", "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    assert done.stderr.count("a provider was never closed: writer still open") == 1


def test_overridden_diamonds_are_planned_in_no_time() -> None:
    """Thirty layers of two interfaces, each bound to what needs both of the next: the work grows with the layers."""
    provider = Provider()
    below: list[Callable[..., Any]] = [device, device]
    for _ in range(30):
        layer: list[Callable[..., Any]] = []
        for _ in range(2):

            def interface() -> str: ...

            def implementation(a: str = Depends(below[0]), b: str = Depends(below[1])) -> str:
                return a

            provider.override(interface, implementation)
            layer.append(interface)
        below = layer
    start = time.process_time()
    assert inject(provider)(lambda a=Depends(below[0]), b=Depends(below[1]): a and b)() == "cuda"
    assert time.process_time() - start < 5


def test_too_many_levels_are_named() -> None:
    """A chain that Python could not call is refused, in words."""
    below: Callable[..., Any] = device
    for _ in range(2000):

        def level(x: str = Depends(below)) -> str:
            return x

        below = level
    with pytest.raises(TooDeep, match="too many levels"):
        inject(Provider())(lambda x=Depends(below): x)


def test_a_kept_value_is_made_once_in_all_event_loops() -> None:
    """Three threads, each with a loop of its own, get one value."""
    made, provider, ready = [], Provider(), threading.Barrier(3)

    async def value() -> object:
        made.append(1)
        await asyncio.sleep(0)
        return object()

    @inject(provider)
    async def handler(value: object = Depends(value, scope="provider")) -> object:
        return value

    values: list[object] = []

    def work() -> None:
        ready.wait()
        values.append(asyncio.run(handler()))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == len(set(map(id, values))) == 1


def test_a_kept_async_generator_that_its_loop_closed_is_made_anew() -> None:
    """`asyncio.run` ends all async generators; the next one must not get what is closed."""
    log, provider = [], Provider()

    async def session() -> AsyncIterator[str]:
        log.append("open")
        try:
            yield "session"
        finally:
            log.append("closed")

    @inject(provider)
    async def handler(session: str = Depends(session, scope="provider")) -> None:
        log.append("use")

    asyncio.run(handler())
    asyncio.run(handler())
    assert log == ["open", "use", "closed", "open", "use", "closed"]
    asyncio.run(provider.aclose())


def test_a_kept_value_that_needs_itself_is_named() -> None:
    """By way of a handler, sync or async: neither hangs nor recurses."""
    provider = Provider()

    def value() -> int:
        return handler()

    @inject(provider)
    def handler(value: int = Depends(value, scope="provider")) -> int:
        return value

    async def awaited() -> int:
        return await async_handler()

    @inject(provider)
    async def async_handler(value: int = Depends(awaited, scope="provider")) -> int:
        return value

    with pytest.raises(CyclicDependency, match="value is kept, and needs itself"):
        handler()
    with pytest.raises(CyclicDependency, match="awaited is kept, and needs itself"):
        asyncio.run(async_handler())


def test_what_is_dropped_is_forgotten() -> None:
    """A service in an object goes with it, and what an override gave goes with its block."""

    class App:
        def __init__(self) -> None:
            self.service = Service()

            def root() -> App:
                return self

            def writer(root: App = Depends(root)) -> App:
                return root

            @self.service.handler
            def handler(writer: App = Depends(writer)) -> App:
                return writer

            assert handler() is self

    app = weakref.ref(App())
    gc.collect()
    assert app() is None
    provider = Provider()
    handler = inject(provider)(lambda device=Depends(device): device)

    class Large: ...

    def override() -> weakref.ref[object]:
        large = Large()
        with provider.override(device, lambda: large):
            assert handler() is large
        handler()
        return weakref.ref(large)

    large = override()
    gc.collect()
    assert large() is None


def test_mocks_of_async_functions_are_async() -> None:
    """`AsyncMock` is awaited, and refused where nobody would wait for it."""

    async def connect() -> str:
        return "real"

    provider = Provider()

    @inject(provider)
    async def handler(connection: str = Depends(connect)) -> str:
        return connection

    with provider.override(connect, AsyncMock(return_value="mock")):
        assert asyncio.run(handler()) == "mock"
    with pytest.raises(TypeError, match="it is async, and device is not"):
        provider.override(device, AsyncMock())


def test_plain_wrappers_of_what_is_not_plain_are_refused() -> None:
    """Nobody can tell what they give: a value, or something that still has to be awaited or opened."""

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: object, **kwargs: object) -> object:
            return function(*args, **kwargs)

        return wrapper

    @timed
    async def connect() -> str:
        return "connection"

    @timed
    def session() -> Iterator[str]:
        yield "session"

    provider = Provider()
    with pytest.raises(InvalidDependency, match=r"connect .* wraps a function that is async"):
        inject(provider)(lambda x=Depends(connect): x)
    with pytest.raises(InvalidDependency, match=r"session .* wraps a function that is generator"):
        inject(provider)(lambda x=Depends(session): x)
    with pytest.raises(InvalidDependency, match="wraps a function that is async"):

        @inject(provider)
        @timed
        async def handler(device: str = Depends(device)) -> None: ...


def test_what_would_not_be_itself_after_injection_is_refused() -> None:
    """A class, a static method from below, a context manager from below."""
    provider = Provider()

    class Box:
        def __init__(self, device: str = Depends(device)) -> None: ...

    with pytest.raises(InvalidDependency, match="Box is a class"):
        inject(provider)(Box)
    with pytest.raises(InvalidDependency, match="put @staticmethod above"):
        inject(provider)(staticmethod(Box.__init__))
    with pytest.raises(InvalidDependency, match="put @contextmanager above"):

        @inject(provider)
        @contextmanager
        def opened(device: str = Depends(device)) -> Iterator[str]:
            yield device


def test_a_session_serves_inside_its_block_only() -> None:
    """Before and after it, what it makes would never be closed, or is closed already."""
    session = Provider().session()
    with pytest.raises(SessionEnded, match="a session serves inside its block"):
        session(device)
    with session as call:
        assert call(lambda device=Depends(device): device) == "cuda"
    with pytest.raises(SessionEnded):
        call(device)


def test_a_function_that_failed_leaves_no_values_of_its_arguments_in_a_session() -> None:
    """What was filled from the arguments of one function is made anew for the next, also after a failure."""

    def size(model: str) -> int:
        return len(model)

    def failing(size: int = Depends(size)) -> None:
        raise ValueError("not yet")

    def first(model: str, size: int = Depends(size), failing: None = Depends(failing)) -> None: ...

    def second(model: str, size: int = Depends(size)) -> int:
        return size

    with Provider().session() as call:
        with pytest.raises(ValueError, match="not yet"):
            call(first, "mlp")
        assert call(second, "longer") == 6


def test_interfaces_in_disguise_are_interfaces() -> None:
    """Wrapped, partial, or with a return annotation that only looks as if it admitted None."""

    def empty(size: int) -> str: ...

    def guarded() -> AnyLoss: ...

    @functools.lru_cache
    def cached() -> str:
        raise NotImplementedError

    for interface in (functools.partial(empty, 3), functools.wraps(guarded)(lambda: None), guarded, cached):
        with pytest.raises(UnboundInterface):
            inject(Provider())(lambda value=Depends(interface): value)()


def test_never_yielded_is_said_of_the_end_of_a_generator_alone() -> None:
    """An exception that merely looks like the end of another sort of generator is that exception."""

    def failing() -> Iterator[None]:
        raise StopAsyncIteration("mine")
        yield

    def never() -> Iterator[None]:
        yield from ()

    with pytest.raises(StopAsyncIteration, match="mine"):
        inject(Provider())(lambda x=Depends(failing): x)()
    with pytest.raises(NeverYielded):
        inject(Provider())(lambda x=Depends(never): x)()


def test_a_translation_of_stop_iteration_is_not_lost() -> None:
    """Only Python's own wrapping of a `StopIteration` is taken off again."""

    def translating() -> Iterator[None]:
        try:
            yield
        except StopIteration as stop:
            raise RuntimeError("mine") from stop

    @inject(Provider())
    def handler(x: None = Depends(translating)) -> None:
        raise StopIteration

    with pytest.raises(RuntimeError, match="mine"):
        handler()


def test_explain_prints_whatever_the_terminal_can_show() -> None:
    """Also into a pipe that knows nothing but ASCII."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with redirect_stdout(out):
        text = Provider().explain(lambda device=Depends(device): device)
    out.flush()
    assert "└─" in text


def test_an_override_concerns_its_users_alone() -> None:
    """Thousands of other handlers of the provider cost nothing when one dependency is bound anew."""

    def other() -> str:
        return "other"

    def make(dependency: Callable[..., str]) -> Callable[[], str]:
        @inject(provider)
        def handler(value: str = Depends(dependency)) -> str:
            return value

        return handler

    provider = Provider()
    handlers = [make(other) for _ in range(2000)]
    mine = make(device)
    codes = [handler.__closure__[0].cell_contents for handler in handlers]  # type: ignore[attr-defined]
    with provider.override(device, lambda: "meta"):
        assert mine() == "meta"
    assert [handler.__closure__[0].cell_contents for handler in handlers] == codes  # type: ignore[attr-defined]


def test_a_copy_of_wiring_is_the_wiring() -> None:
    """Copying an object that holds a provider does not cut its handlers off from it."""
    import copy  # noqa: PLC0415

    provider = Provider()
    assert copy.deepcopy({"provider": provider})["provider"] is provider
    assert copy.copy(provider) is provider
