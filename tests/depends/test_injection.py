"""What a handler gets: declared in its signature, made once per call, an explicit argument first."""

from __future__ import annotations

import contextlib
import functools
import inspect
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Protocol, Self

import pytest

from torchsystem.depends import Depends, Provider, inject


def device() -> str:
    """Say where to train."""


@inject(Provider())
def module_level(device: str = Depends(device)) -> str:
    """Show what is bound."""
    return device


Device = Annotated[str, Depends(device)]


@pytest.fixture
def provider() -> Provider:
    """Return a provider on which `device` is bound."""
    provider = Provider()
    provider.dependency_overrides[device] = lambda: "cuda"
    return provider


def test_a_default_says_what_is_needed(provider: Provider) -> None:
    """`device: str = Depends(device)` is made by the provider's implementation."""

    @inject(provider)
    def train(model: str, device: str = Depends(device)) -> tuple[str, str]:
        return model, device

    assert train("mlp") == ("mlp", "cuda")


def test_an_annotation_says_what_is_needed(provider: Provider) -> None:
    """`Annotated[str, Depends(device)]` does the same: as a string, by an alias, with strings inside."""

    @inject(provider)
    def written(model: str, device: Annotated[str, Depends(device)]) -> tuple[str, str]:
        return model, device

    @inject(provider)
    def alias(model: str, device: Device) -> tuple[str, str]:
        return model, device

    @inject(provider)
    def nested(model: str, device: "Annotated['Later', Depends(device)]") -> tuple[str, str]:  # noqa: UP037
        return model, device

    class Later: ...

    assert written("mlp") == alias("mlp") == nested("mlp") == ("mlp", "cuda")  # type: ignore[call-arg]
    assert Later is not None


def test_an_annotation_may_name_what_only_its_own_scope_knows() -> None:
    """A dependency defined inside a function is found in the scope in which the handler was written."""

    def local() -> int:
        return 7

    @inject(Provider())
    def handler(value: Annotated[int, Depends(local)]) -> int:
        return value

    assert handler() == 7  # type: ignore[call-arg]


def test_parameters_behind_an_annotated_one_are_still_required(provider: Provider) -> None:
    """`def f(device: Annotated[...], model)`: without `model` the call is refused in Python's words."""

    @inject(provider)
    def train(device: Annotated[str, Depends(device)], model: str) -> tuple[str, str]:
        return device, model

    assert train(model="mlp") == ("cuda", "mlp")  # type: ignore[call-arg]
    assert train("cpu", "mlp") == ("cpu", "mlp")
    with pytest.raises(TypeError, match=r"train.* missing 1 required positional argument: 'model'"):
        train()  # type: ignore[call-arg]


def test_an_explicit_argument_wins(provider: Provider) -> None:
    """An argument given by hand, by position or by name, is taken, and its dependency is not made."""
    made = []

    def loader() -> str:
        made.append("loader")
        return "loader"

    @inject(provider)
    def train(device: str = Depends(device), loader: str = Depends(loader)) -> tuple[str, str]:
        return device, loader

    assert train("cpu", "given") == ("cpu", "given")
    assert train(loader="given") == ("cuda", "given")
    assert made == []
    assert train("cpu") == ("cpu", "loader")


@pytest.mark.parametrize("value", [None, 0, "", (), False, [], (None,)])
def test_any_explicit_value_counts(provider: Provider, value: object) -> None:
    """None, zero and empty values are values."""

    @inject(provider)
    def train(device: object = Depends(device)) -> object:
        return device

    assert train(value) is value


def test_a_dependency_is_made_once_per_call() -> None:
    """However often it appears in the tree, a dependency is made once; the next call makes it anew."""
    made = []

    def shared() -> object:
        made.append(1)
        return object()

    def left(shared: object = Depends(shared)) -> object:
        return shared

    def right(shared: object = Depends(shared)) -> object:
        return shared

    @inject(Provider())
    def handler(a: object = Depends(left), b: object = Depends(right), c: object = Depends(shared)) -> bool:
        return a is b is c

    assert handler()
    assert len(made) == 1
    assert handler()
    assert len(made) == 2


def test_a_use_can_opt_out_of_sharing() -> None:
    """`cache=False` makes a new value for that use, while what it is made from stays shared."""
    made = []

    def base() -> int:
        made.append("base")
        return 1

    def fresh(base: int = Depends(base)) -> object:
        made.append("fresh")
        return object()

    @inject(Provider())
    def handler(
        a: object = Depends(fresh), b: object = Depends(fresh, cache=False), c: object = Depends(fresh)
    ) -> tuple[bool, bool]:
        return a is c, a is b

    assert handler() == (True, False)
    assert sorted(made) == ["base", "fresh", "fresh"]


def test_a_function_that_needs_nothing_is_returned_as_it_is() -> None:
    """Without dependencies there is no wrapper, so there is no cost."""

    def handler(x: int, *, y: int = 2) -> int:
        return x + y

    assert inject(Provider())(handler) is handler


def test_the_wrapper_is_the_function_to_the_eye(provider: Provider) -> None:
    """Name, doc, module, signature and annotations are kept, and the original is at `__wrapped__`."""

    def train(model: str, device: str = Depends(device)) -> str:
        """Train."""
        return model + device

    injected = inject(provider)(train)
    assert injected.__wrapped__ is train  # type: ignore[attr-defined]
    assert (injected.__name__, injected.__doc__, injected.__module__) == ("train", "Train.", __name__)
    assert injected.__qualname__ == train.__qualname__
    assert inspect.signature(injected) == inspect.signature(train)
    assert inspect.get_annotations(injected) == inspect.get_annotations(train)


def test_an_injected_function_can_be_pickled_by_name() -> None:
    """A worker process finds it where it is defined."""
    assert hasattr(module_level, "__wrapped__")
    assert pickle.loads(pickle.dumps(module_level)) is module_level  # noqa: S301


def test_every_kind_of_parameter_is_passed_on() -> None:
    """Positional-only, variadic and keyword-only parameters arrive as they would without injection."""

    def one() -> int:
        return 1

    @inject(Provider())
    def handler(
        a: int, /, b: int, c: int = Depends(one), *rest: int, d: int, e: int = Depends(one), **more: int
    ) -> tuple[object, ...]:
        return a, b, c, rest, d, e, more

    assert handler(10, 20, d=40) == (10, 20, 1, (), 40, 1, {})
    assert handler(10, 20, 30, 31, 32, d=40, e=50, f=60) == (10, 20, 30, (31, 32), 40, 50, {"f": 60})
    with pytest.raises(TypeError):
        handler(10)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        handler(10, 20, 30, d=1, a=5, b=7)  # type: ignore[misc]


def test_defaults_of_a_handler_are_its_own_objects() -> None:
    """A default that is not a dependency stays the very object it was."""
    default: list[int] = []

    @inject(Provider())
    def handler(x: object = default, y: int = Depends(lambda: 1), *, z: object = default) -> bool:
        return x is default and z is default

    assert handler()


def test_names_like_ours_do_not_meet() -> None:
    """Parameters and dependencies may be called anything, also what the generated code uses."""

    def bound() -> str:
        return "bound"

    def make_bound(bound: str = Depends(bound)) -> str:
        return f"make {bound}"

    def handler_() -> Iterator[str]:
        yield "handler"

    @inject(Provider())
    def handler(
        _bound: str = Depends(bound),
        _handler: str = Depends(make_bound),
        __missing: str = Depends(handler_),
        _call: int = 1,
    ) -> tuple[object, ...]:
        return _bound, _handler, __missing, _call

    assert handler() == ("bound", "make bound", "handler", 1)


def test_parameters_of_a_dependency_are_filled_from_the_handlers_arguments() -> None:
    """A dependency's parameter without a default takes the handler's argument of its name, at any depth."""

    def size(model: str) -> int:
        return len(model)

    def twice(size: int = Depends(size), scale: int = 2) -> int:
        return scale * size

    @inject(Provider())
    def train(model: str, scale: int = 5, twice: int = Depends(twice)) -> int:
        return twice

    assert train("mlp") == 6
    assert train("longer", scale=9) == 12


def test_an_argument_that_is_a_dependency_fills_too() -> None:
    """A dependency's parameter may take an argument of the handler that is made itself, or passed by hand."""

    def name(device: str) -> str:
        return f"on {device}"

    def real() -> str:
        return "cuda"

    @inject(Provider())
    def train(name: str = Depends(name), device: str = Depends(real)) -> tuple[str, str]:
        return name, device

    assert train() == ("on cuda", "cuda")
    assert train(device="cpu") == ("on cpu", "cpu")


def test_classes_and_callables_are_dependencies() -> None:
    """A class is constructed, a callable object, a method and a partial are called."""

    @dataclass
    class Settings:
        name: str
        rate: float = 0.1

    class Factory:
        def __call__(self, settings: Settings = Depends(Settings)) -> str:
            return f"called with {settings.name}"

        def method(self) -> str:
            return "method"

    def scaled(factor: int, base: int = Depends(lambda: 3)) -> int:
        return factor * base

    factory = Factory()

    @inject(Provider())
    def handler(
        name: str,
        settings: Settings = Depends(Settings),
        called: str = Depends(factory),
        method: str = Depends(factory.method),
        partial: int = Depends(functools.partial(scaled, 2)),
    ) -> tuple[object, ...]:
        return settings, called, method, partial

    assert handler("mlp") == (Settings("mlp"), "called with mlp", "method", 6)


def test_what_has_no_readable_signature_is_called_without_arguments() -> None:
    """`dict` and `partial(int, "7")` cannot be inspected; they are called as they are."""

    @inject(Provider())
    def handler(
        metrics: dict[str, float] = Depends(dict), seven: int = Depends(functools.partial(int, "7"))
    ) -> tuple[dict[str, float], int]:
        return metrics, seven

    assert handler() == ({}, 7)
    assert handler()[0] is not handler()[0]


def test_a_context_managed_function_is_entered() -> None:
    """`@contextmanager` is a generator dependency under another name: entered, closed, and told of errors."""
    log: list[str] = []

    @contextlib.contextmanager
    def session() -> Iterator[str]:
        log.append("open")
        try:
            yield "session"
        except ValueError:
            log.append("rolled back")
            raise
        finally:
            log.append("closed")

    @inject(Provider())
    def handler(fail: bool, session: str = Depends(session)) -> str:  # noqa: FBT001
        log.append(session)
        if fail:
            raise ValueError
        return session

    assert handler(fail=False) == "session"
    assert log == ["open", "session", "closed"]
    with pytest.raises(ValueError):  # noqa: PT011
        handler(fail=True)
    assert log[3:] == ["open", "session", "rolled back", "closed"]


def test_an_object_that_could_be_entered_is_handed_over() -> None:
    """A file or a lock is a value: to enter it is up to the handler."""

    class Writer:
        entered = False

        def __enter__(self) -> Self:
            self.entered = True
            return self

        def __exit__(self, *_: object) -> None: ...

    @inject(Provider())
    def handler(writer: Writer = Depends(Writer)) -> bool:
        return writer.entered

    assert handler() is False


def test_a_method_can_be_injected_in_its_class(provider: Provider) -> None:
    """The decorator works on methods as on functions."""

    class Trainer:
        @inject(provider)
        def where(self, device: str = Depends(device)) -> tuple[object, str]:
            return self, device

    trainer = Trainer()
    assert trainer.where() == (trainer, "cuda")
    assert trainer.where("cpu") == (trainer, "cpu")


def test_callable_objects_and_bound_methods_can_be_handlers(provider: Provider) -> None:
    """What is injected may be any callable; it stays reachable at `__wrapped__`."""

    class Handler:
        def __call__(self, x: int, device: str = Depends(device)) -> tuple[int, str]:
            return x, device

        def method(self, x: int, device: str = Depends(device)) -> tuple[int, str]:
            return x, device

    handler = Handler()
    assert inject(provider)(handler)(1) == (1, "cuda")
    assert inject(provider)(handler.method)(2) == (2, "cuda")


def test_a_function_that_only_returns_a_constant_is_called_each_time() -> None:
    """What a function gives is never guessed from its text."""
    values = iter([1, 2])

    def changing() -> int:
        return next(values)

    @inject(Provider())
    def handler(value: int = Depends(changing)) -> int:
        return value

    assert [handler(), handler()] == [1, 2]


def test_dependencies_are_made_in_the_order_of_the_signature() -> None:
    """Depth first, left to right, plain ones and generators alike."""
    log: list[str] = []

    def first() -> None:
        log.append("first")

    def second() -> Iterator[None]:
        log.append("second")
        yield

    def third(second: None = Depends(second)) -> None:
        log.append("third")

    @inject(Provider())
    def handler(
        a: None = Depends(first), b: None = Depends(third), c: None = Depends(lambda: log.append("last"))
    ) -> None:
        log.append("handler")

    handler()
    assert log == ["first", "second", "third", "last", "handler"]


def test_a_protocol_can_be_bound(provider: Provider) -> None:
    """A protocol class says what is needed; an override gives it."""

    class Metrics(Protocol):
        def update(self) -> None: ...

    class Real:
        def update(self) -> None: ...

    @inject(provider)
    def handler(metrics: Metrics = Depends(Metrics)) -> Metrics:
        return metrics

    provider.override(Metrics, Real)
    assert isinstance(handler(), Real)
