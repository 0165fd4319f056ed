"""A `Registry`: classes by name."""

from __future__ import annotations

from typing import Optional, Union

import pytest
import torch
from torch import Tensor
from torch.nn import Module, MultiLabelSoftMarginLoss
from torch.optim import Optimizer, RMSprop

from torchsystem.errors import InvalidExclusion, InvalidRegistration, NameTaken, UnknownName
from torchsystem.registry import Registry, getarguments, getname, register


def test_a_registry_gives_classes_by_name() -> None:
    """`get` finds what was registered, `None` otherwise; `keys` are in order."""
    registry = Registry[object]()

    @registry.register
    class Foo:
        def __init__(self, x: int, y: float, z: str) -> None: ...

    @registry.register("bar", excluded_args=[0], excluded_kwargs=["z"])
    class Bar:
        def __init__(self, x: int, y: float, z: str) -> None: ...

    @registry.register(excluded_kwargs=["x"])
    class Baz:
        def __init__(self, x: int) -> None: ...

    assert registry.keys() == ["Foo", "bar", "Baz"]
    assert registry.get("Foo") is Foo
    assert registry.get("bar") is Bar
    assert registry.get("Bar") is None
    assert registry.signature("Foo") == {"x": "int", "y": "float", "z": "str"}
    assert registry.signature("bar") == {"y": "float"}
    assert registry.signature("Baz") == {}
    assert getname(Bar(1, 2.0, "3")) == "bar"
    assert getarguments(Bar(1, 2.0, z="3")) == {"y": 2.0}


def test_annotations_are_given_as_they_are_written() -> None:
    """Not as they print: `torch.Tensor` where that was written, and `Tensor` where that was."""
    registry = Registry[object]()

    @registry.register
    class Every:
        def __init__(
            self,
            a: int,
            b: Optional[Tensor],  # noqa: UP045 - the old spelling is the point
            c: Union[torch.Tensor, "float"],  # noqa: UP007, UP037 - the old spelling is the point
            /,
            d,  # noqa: ANN001 - as is none
            *rest: list[int] | None,
            e: "Module" = ...,  # type: ignore[assignment]  # noqa: UP037
            **extra: object,
        ) -> None: ...

    assert registry.signature("Every") == {
        "a": "int",
        "b": "Optional[Tensor]",
        "c": "Union[torch.Tensor, 'float']",
        "d": "Any",
        "rest": "list[int] | None",
        "e": "Module",
        "extra": "object",
    }


def test_foreign_annotations_are_given_as_they_are_written() -> None:
    """Also where they are unions, and in a file without postponed annotations."""
    criterions, optimizers = Registry[Module](), Registry[Optimizer]()
    criterions.register(MultiLabelSoftMarginLoss)
    optimizers.register(RMSprop, excluded_args=[0])
    assert criterions.signature("MultiLabelSoftMarginLoss")["weight"] in {"Tensor | None", "Optional[Tensor]"}
    assert optimizers.signature("RMSprop")["lr"] in {"float | Tensor", "Union[float, Tensor]"}
    assert "params" not in optimizers.signature("RMSprop")


def test_annotations_without_source_are_given_as_they_print() -> None:
    """A constructor made at run time still has a signature."""
    namespace: dict[str, type] = {}
    source = "class Made:\n def __init__(self, x: int, y: 'a.b', z: list[int] | None, t): ..."
    exec(compile(source, "nowhere", "exec", dont_inherit=True), namespace)  # noqa: S102
    registry = Registry[object]()
    registry.register(namespace["Made"])
    assert registry.signature("Made") == {"x": "int", "y": "a.b", "z": "list[int] | None", "t": "Any"}


def test_two_classes_under_one_name_are_refused() -> None:
    """The message names both, and the second class is left as it was."""
    registry = Registry[object]()
    first = registry.register(type("MLP", (), {"__module__": "old.models"}))
    second = type("MLP", (), {"__module__": "new.models"})
    with pytest.raises(NameTaken, match=r"'MLP' is old.models.MLP here, so new.models.MLP needs another name"):
        registry.register(second)
    assert registry.get("MLP") is first
    assert second.__init__ is object.__init__
    registry.register("MLP-2")(second)
    assert registry.keys() == ["MLP", "MLP-2"]


def test_a_class_may_be_in_many_registries() -> None:
    """Registering elsewhere, or again, is registering once; the name is that of the class."""
    one, two = Registry[object](), Registry[object]()

    class Shared:
        def __init__(self, x: int = 0) -> None: ...

    register("shared")(Shared)
    one.register(Shared)
    one.register(Shared)
    two.register(Shared)
    assert one.keys() == two.keys() == ["shared"]
    with pytest.raises(NameTaken, match="registered as 'shared' already"):
        two.register("other")(Shared)
    assert two.keys() == ["shared"]


def test_a_refused_class_is_not_kept() -> None:
    """What cannot be registered is not found by name."""
    registry = Registry[object]()

    class Net:
        def __init__(self, x: int = 0) -> None: ...

    with pytest.raises(InvalidExclusion):
        registry.register(Net, excluded_args=[5])
    with pytest.raises(InvalidRegistration):
        registry.register(3)  # type: ignore[call-overload]
    assert registry.keys() == []


def test_an_unknown_name_says_what_is_near() -> None:
    """A misspelled name is a `KeyError` with the name that was meant."""
    registry = Registry[object]()
    with pytest.raises(UnknownName, match=r"as 'Perceptron'\. There is: nothing yet\."):
        registry.signature("Perceptron")
    registry.register(type("Perceptron", (), {}))
    registry.register(type("Transformer", (), {}))
    with pytest.raises(UnknownName, match=r"as 'Perceptrn'\. There is: 'Perceptron'\."):
        registry.signature("Perceptrn")
    assert issubclass(UnknownName, KeyError)
