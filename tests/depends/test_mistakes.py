"""Mistakes are named, where they can be when the handler is registered, and shown in the tree."""

# ruff: noqa: D101, D103 - the names of the stubs say what they are

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Optional, Protocol

import pytest

from torchsystem.depends import Depends, Provider, inject
from torchsystem.errors import (
    CyclicDependency,
    InvalidDependency,
    TorchSystemError,
    UnboundInterface,
    UnfilledParameter,
    UnresolvedAnnotation,
)

if TYPE_CHECKING:
    from elsewhere import Loader


def empty() -> str: ...


def passing() -> int:
    pass  # type: ignore[empty-body]


def documented() -> dict[str, int]:
    """Say what is needed."""  # type: ignore[empty-body]


async def awaited() -> str: ...


class Abstract(ABC):
    @abstractmethod
    def load(self) -> None: ...


class Interface(Protocol):
    def load(self) -> None: ...


def unimplemented() -> str:
    raise NotImplementedError


def elsewhere() -> Loader: ...


@pytest.mark.parametrize("interface", [empty, passing, documented, Abstract, Interface, unimplemented, elsewhere])
def test_an_interface_that_nobody_bound_is_named_at_the_call(interface: Any) -> None:
    """It may be bound until then; the error says where to write what, and draws the tree."""
    provider = Provider()

    @inject(provider)
    def handler(value: object = Depends(interface)) -> object:
        return value

    name = interface.__name__
    with pytest.raises(UnboundInterface, match=rf"{name}(.|\n)*dependency_overrides\[{name}\](.|\n)*✗ value ← {name}"):
        handler()
    with pytest.raises(NotImplementedError):
        handler()
    assert handler("by hand") == "by hand"
    provider.dependency_overrides[interface] = lambda: "bound"
    assert handler() == "bound"


def maybe() -> str | None: ...
def optional() -> Optional[str]: ...  # noqa: UP045
def nothing() -> None: ...
def anything() -> Any: ...
def unsaid(): ...  # type: ignore[no-untyped-def]  # noqa: ANN201
def returning() -> str | None:
    return None


@pytest.mark.parametrize("function", [maybe, optional, nothing, anything, unsaid, returning])
def test_an_empty_body_that_may_give_none_is_an_implementation(function: Any) -> None:
    """Its return annotation admits None (or says nothing), so None is what it gives."""

    @inject(Provider())
    def handler(value: object = Depends(function)) -> object:
        return value

    assert handler() is None


def test_a_not_implemented_from_deeper_down_is_no_interface() -> None:
    """Only a dependency's own `raise NotImplementedError` says that nobody bound it."""

    def deeper() -> None:
        raise NotImplementedError("deeper")

    def dependency() -> None:
        deeper()

    @inject(Provider())
    def calls(value: None = Depends(dependency)) -> None: ...

    @inject(Provider())
    def raises(value: None = Depends(lambda: None)) -> None:
        raise NotImplementedError("handler")

    for handler, text in ((calls, "deeper"), (raises, "handler")):
        with pytest.raises(NotImplementedError, match=text) as caught:
            handler()
        assert type(caught.value) is NotImplementedError


def test_a_parameter_that_nothing_fills_is_refused_at_registration() -> None:
    """With its name, the arguments there are, and three ways out; a default would do."""

    def loader(path: str) -> str:
        return path

    def deep(loader: str = Depends(loader)) -> str:
        return loader

    with pytest.raises(
        UnfilledParameter, match=r"'path' of loader(.|\n)*those are: model, data(.|\n)*✗ loader ← loader"
    ):

        @inject(Provider())
        def train(model: str, data: str = Depends(deep)) -> None: ...

    assert issubclass(UnfilledParameter, TypeError)


def test_a_cycle_is_named_with_its_path() -> None:
    """Dependencies that need one another are refused at registration: all of the ring, and the tree to it."""

    def first(third: Annotated[int, Depends(third)]) -> int:
        return third

    def second(first: int = Depends(first)) -> int:
        return first

    def third(second: int = Depends(second)) -> int:
        return second

    with pytest.raises(
        CyclicDependency, match=r"second → first → third → second(.|\n)*✗ value ← second(.|\n)*✗ third ← third"
    ):

        @inject(Provider())
        def handler(value: int = Depends(second)) -> None: ...


def test_an_override_that_leads_back_is_no_cycle() -> None:
    """Inside its own override a dependency is the original, also when the way there is long, in every order."""
    provider = Provider()

    def first() -> int:
        return 1

    def second(first: int = Depends(first)) -> int:
        return first + 1

    def third(second: int = Depends(second)) -> int:
        return second + 1

    def other(third: int = Depends(third)) -> int:
        return 10 * third

    provider.override(second, other)

    @inject(provider)
    def one(third: int = Depends(third), other: int = Depends(other)) -> tuple[int, int]:
        return third, other

    @inject(provider)
    def two(other: int = Depends(other), third: int = Depends(third)) -> tuple[int, int]:
        return third, other

    assert one() == two() == (31, 310)


def test_a_cycle_between_arguments_is_named() -> None:
    """Two arguments that fill one another can never be made."""

    def one(second: int) -> int:
        return second

    def two(first: int) -> int:
        return first

    with pytest.raises(CyclicDependency, match="first → one → second → two → first"):

        @inject(Provider())
        def handler(first: int = Depends(one), second: int = Depends(two)) -> None: ...


@pytest.mark.parametrize("value", ["cuda", 3, None, [1]])
def test_a_dependency_that_cannot_be_called_is_refused(value: object) -> None:
    """Where it is written, with what to write instead."""
    with pytest.raises(InvalidDependency, match=r"Write Depends\(lambda: "):
        Depends(value)  # type: ignore[call-overload]


def test_a_mark_without_its_dependency_is_refused() -> None:
    """`device=Depends` lacks the brackets."""
    with pytest.raises(InvalidDependency, match=r"device=Depends stands without its dependency"):

        @inject(Provider())
        def handler(device: object = Depends) -> None: ...


def test_two_marks_on_one_parameter_are_refused() -> None:
    """Nobody could tell which holds."""
    with pytest.raises(InvalidDependency, match="'device' is marked with Depends more than once"):

        @inject(Provider())
        def handler(device: Annotated[str, Depends(empty)] = Depends(empty)) -> None: ...


def test_an_annotation_that_decides_must_be_resolvable() -> None:
    """A mark that cannot be evaluated is an error; any other name may be there for type checkers alone."""
    with pytest.raises(UnresolvedAnnotation, match=r"Depends\(missing\).*'device' cannot be resolved"):

        @inject(Provider())
        def one(device: Annotated[str, Depends(missing)]) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    @inject(Provider())
    def two(
        loader: Loader,
        device: Annotated[Loader, Depends(lambda: "cuda")],
        other: Loader | None = None,
    ) -> object:
        return device

    assert two("loader") == "cuda"  # type: ignore[call-arg,arg-type]


def test_what_cannot_be_called_cannot_be_injected() -> None:
    """A classmethod object, a value, a provider in the wrong place."""
    with pytest.raises(InvalidDependency, match="cannot be called"):
        inject(Provider())(classmethod(lambda _: None))  # type: ignore[arg-type]
    with pytest.raises(InvalidDependency, match="it takes a provider"):
        inject("provider")  # type: ignore[arg-type]


def test_a_positional_only_parameter_behind_a_default_is_refused() -> None:
    """It could not be passed."""

    def odd(a: int = 1, b: int = Depends(lambda: 2), /) -> int:
        return a + b

    with pytest.raises(InvalidDependency, match="'b' of odd is positional-only"):

        @inject(Provider())
        def handler(x: int = Depends(odd)) -> None: ...


def test_all_mistakes_are_one_family() -> None:
    """`except TorchSystemError` catches any of them."""
    with pytest.raises(TorchSystemError):
        Depends(1)  # type: ignore[call-overload]


def test_explain_draws_the_tree_and_raises_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Interface, override, sort and scope of all that a handler gets, the broken branch marked, and the code."""
    provider = Provider()

    def session() -> Iterator[str]:
        yield "session"

    def store(model: str, session: str = Depends(session)) -> str:
        return model + session

    @inject(provider)
    def train(
        model: str, store: str = Depends(store), name: str = Depends(empty), again: str = Depends(store)
    ) -> None: ...

    text = provider.explain(train)
    assert capsys.readouterr().out == text + "\n"
    lines = text.splitlines()
    assert lines[0].startswith("train(model, store, name, again)  test_mistakes.py:")
    assert lines[1].startswith("├─ store ← store  [plain, scope: call]")
    assert lines[2] == "│  ├─ model ← the handler's argument 'model'"
    assert lines[3].startswith("│  └─ session ← session  [generator, scope: call]")
    assert lines[4].startswith("├─ ✗ name ← empty  [UnboundInterface]")
    assert lines[5].endswith("(see above)")
    assert "nobody bound an implementation" in text
    provider.override(empty, lambda: "bound", scope="provider")
    assert "empty → <lambda>  [plain, scope: provider]" in provider.explain(train)
    train("mlp")
    assert "def injected_train(model, store=_bound, name=_bound, again=_bound):" in provider.explain(train)


@pytest.mark.parametrize("odd", [3, None, dict, "text", lambda x: x, Depends])
def test_explain_takes_anything(odd: Any) -> None:
    """It is asked when something is wrong; it must not make it worse."""
    assert isinstance(Provider().explain(odd), str)
