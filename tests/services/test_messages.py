"""Events are slotted dataclasses: cheap, weakly referenceable, and fit to be copied and sent."""

from __future__ import annotations

import copy
import pickle
import weakref
from dataclasses import field, fields
from functools import wraps
from typing import Any, Generic, TypeVar

import pytest

from torchsystem.services import event

T = TypeVar("T")


@event
class Trained:
    """A model was trained."""

    epoch: int
    losses: list[float] = field(default_factory=list)


@event
class Validated(Trained):
    """It was validated, too."""

    accuracy: float = 0.0


def test_an_event_is_a_dataclass() -> None:
    """Fields, defaults, equality and representation are those of a dataclass."""
    assert Trained(3) == Trained(epoch=3, losses=[]) != Trained(4)
    assert repr(Trained(3, [0.5])) == "Trained(epoch=3, losses=[0.5])"
    assert [f.name for f in fields(Validated)] == ["epoch", "losses", "accuracy"]
    assert Trained.__doc__ == "A model was trained."
    with pytest.raises(TypeError):
        Trained()


def test_an_event_has_slots_and_nothing_else() -> None:
    """No dictionary per instance: a misspelled attribute is an error, and memory is spared."""
    trained = Validated(3)
    assert not hasattr(trained, "__dict__")
    with pytest.raises(AttributeError):
        trained.epohc = 4


def test_events_can_be_weakly_referenced() -> None:
    """An event can be watched without being kept alive, derived or not."""
    trained, validated = Trained(3), Validated(4)
    assert weakref.ref(trained)() is trained
    assert weakref.ref(validated)() is validated


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_events_can_be_pickled(protocol: int) -> None:
    """Events travel to other processes."""
    assert pickle.loads(pickle.dumps(Validated(3, [0.5], 0.9), protocol)) == Validated(3, [0.5], 0.9)  # noqa: S301


def test_events_can_be_copied() -> None:
    """A copy shares what the event holds, a deep copy does not."""
    trained = Trained(3, [0.5])
    shallow, deep = copy.copy(trained), copy.deepcopy(trained)
    assert shallow == deep == trained
    assert shallow.losses is trained.losses
    assert deep.losses is not trained.losses


def test_a_base_that_can_be_weakly_referenced_already_is_no_obstacle() -> None:
    """Plain classes, exceptions and generics can be what an event derives from."""

    class Plain:
        pass

    @event
    class FromPlain(Plain):
        epoch: int

    @event
    class FromException(Exception):
        epoch: int

    @event
    class FromGeneric(Generic[T]):
        model: T

    assert weakref.ref(made := FromPlain(3))() is made
    assert FromException(3).epoch == 3
    assert FromGeneric[int](3).model == 3


def test_super_works_in_the_methods_of_an_event() -> None:
    """Making a class anew for its slots leaves `super()` and `__class__` whole, wherever they stand."""

    @event
    class Base:
        epoch: int

        def __post_init__(self) -> None:
            self.epoch += 1

        @property
        def title(self) -> str:
            return f"epoch {self.epoch}"

        @classmethod
        def first(cls) -> Base:
            return cls(0)

    @event
    class InInit(Base):
        def __post_init__(self) -> None:
            super().__post_init__()

    @event
    class InProperty(Base):
        @property
        def title(self) -> str:
            return super().title.upper()

    @event
    class InClassMethod(Base):
        @classmethod
        def first(cls) -> Base:
            assert __class__ is cls
            return super().first()

    assert InInit(3).epoch == 4
    assert InProperty(3).title == "EPOCH 4"
    assert type(InClassMethod.first()) is InClassMethod


def test_super_works_behind_decorators_and_setters() -> None:
    """Wherever the only method that says `super()` is hidden, it means the class that the decorator returned."""

    def decorated(function: Any) -> Any:
        return wraps(function)(bare(function))

    def bare(function: Any) -> Any:
        return lambda *args: function(*args).upper()

    @event
    class Base:
        epoch: int = 0

        def title(self) -> str:
            return f"epoch {self.epoch}"

    @event
    class Decorated(Base):
        @decorated
        def title(self) -> str:
            return super().title()

    @event
    class Bare(Base):
        @bare
        def title(self) -> str:
            return super().title()

    @event
    class Setting(Base):
        @property
        def name(self) -> str:
            return "none"

        @name.setter
        def name(self, value: str) -> None:
            assert super().title() == value

    assert Decorated(3).title() == Bare(3).title() == "EPOCH 3"
    Setting(3).name = "epoch 3"
