"""Registering: the class stays what it was, and what cannot be registered is refused at once."""

# ruff: noqa: ARG002, ARG004 - the constructors here take arguments only to be asked for them

from __future__ import annotations

import copy
import inspect
import sys
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import partialmethod
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import pytest
from pydantic import BaseModel, Field
from torch.nn import Linear, Module

from torchsystem.errors import InvalidExclusion, InvalidRegistration, NameTaken, NotRegistered
from torchsystem.registry import Registry, getarguments, gethash, getmetadata, getname, register, sethash, setname

T = TypeVar("T")


def test_register_is_a_decorator_with_and_without_arguments_and_a_function() -> None:
    """Bare, with a name, with exclusions only, or called on a class: each gives the class back."""

    class A:
        def __init__(self, x: int = 0, y: int = 0) -> None: ...

    class B(A): ...

    class C(A): ...

    class D(A): ...

    assert register(A) is A
    assert register("b")(B) is B
    assert register(excluded_kwargs={"x"})(C) is C
    assert register(D, [0], {"y"}, name="d") is D
    assert [getname(each(1, 2)) for each in (A, B, C, D)] == ["A", "b", "C", "d"]
    assert [getarguments(each(1, 2)) for each in (A, B, C, D)] == [{"x": 1, "y": 2}, {"x": 1, "y": 2}, {"y": 2}, {}]


def test_a_registered_class_keeps_its_face() -> None:
    """Name, signature, docs and annotations of class and constructor are what they were."""

    def define() -> type:
        class Face(Module):
            """A face."""

            def __init__(self, x: int, /, y: float = 1.0, *rest: str, z: Any = None, **extra: bytes) -> None:
                """Make a face."""
                super().__init__()

        return Face

    before, after = define(), register(define())
    assert inspect.signature(after) == inspect.signature(before)
    assert inspect.signature(after.__init__) == inspect.signature(before.__init__)
    assert inspect.get_annotations(after.__init__) == inspect.get_annotations(before.__init__)
    for attribute in ("__name__", "__qualname__", "__doc__", "__module__"):
        assert getattr(after, attribute) == getattr(before, attribute)
        assert getattr(after.__init__, attribute) == getattr(before.__init__, attribute)
    assert after.__init__.__wrapped__ is not None


def test_nothing_of_ours_is_in_the_object() -> None:
    """What an object says of itself, and what is made from its attributes, is what it would be unregistered."""

    @register
    @dataclass
    class Point:
        x: int
        y: int = 0

    assert vars(Point(1)) == {"x": 1, "y": 0}
    assert Point(1) == Point(1, 0)
    assert repr(Point(1)).endswith("Point(x=1, y=0)")


def test_a_class_without_a_constructor_keeps_having_none() -> None:
    """It takes no arguments, and its signature says so."""

    @register
    class Bare: ...

    assert not inspect.signature(Bare).parameters
    assert getarguments(Bare()) == {}
    with pytest.raises(TypeError):
        Bare(1)  # type: ignore[call-arg]


def test_arguments_may_be_meant_for_new() -> None:
    """A class with only a `__new__` is captured by its signature."""

    @register
    class Celsius(float):
        def __new__(cls, degrees: float, unit: str = "C") -> Self:
            return super().__new__(cls, degrees)

    assert list(inspect.signature(Celsius).parameters) == ["degrees", "unit"]
    assert Celsius(20.0, unit="C") == 20.0
    assert getarguments(Celsius(20.0, unit="C")) == {"degrees": 20.0}


def test_an_unregistered_subclass_is_not_captured_as_its_parent() -> None:
    """A subclass is registered as itself or not at all, whether it has a constructor of its own or not."""

    @register
    class Parent:
        def __init__(self, x: int) -> None: ...

    class Own(Parent):
        def __init__(self, y: int) -> None:
            super().__init__(2 * y)

    class Inherits(Parent): ...

    for child in (Own(1), Inherits(1)):
        with pytest.raises(NotRegistered, match=rf"register\({type(child).__name__}\)"):
            gethash(child)
        with pytest.raises(NotRegistered, match="Parent is, but a subclass is a class of its own"):
            getarguments(child)
    register(Own)
    register(Inherits)
    assert getmetadata(Own(1))["arguments"] == {"y": 1}
    assert getmetadata(Inherits(1))["arguments"] == {"x": 1}
    assert getname(Inherits(1)) == "Inherits"
    assert getarguments(Parent(3)) == {"x": 3}


def test_a_registered_class_takes_its_place_among_several_bases() -> None:
    """A class without constructor goes on to the next base of the *object*, registered or not."""

    class Root:
        def __init__(self) -> None:
            self.made = [type(self).__name__]

    class Left(Root): ...

    class Right(Root):
        def __init__(self) -> None:
            super().__init__()
            self.made.append("Right")

    register(Left)

    class Both(Left, Right): ...

    assert Both().made == ["Both", "Right"]
    assert Left().made == ["Left"]


def test_a_class_that_follows_a_protocol_is_still_constructed() -> None:
    """A protocol before the base has a constructor that only looks for the next one; it still does."""

    class Runs(Protocol):
        def run(self) -> None: ...

    class Base:
        def __init__(self, x: int) -> None:
            self.x = x

    class Runner(Runs, Base):
        def run(self) -> None: ...

    before = inspect.signature(Runner)
    register(Runner)
    assert Runner(3).x == 3
    assert getarguments(Runner(3)) == {"x": 3}
    assert inspect.signature(Runner) == before


def test_generic_and_abstract_classes_register() -> None:
    """Being generic, abstract or a protocol's implementation makes no difference."""

    @register
    class Box(Generic[T]):
        def __init__(self, item: T) -> None: ...

    class Base(ABC):
        def __init__(self, x: int) -> None:
            self.x = x

        @abstractmethod
        def act(self) -> None: ...

    @register
    class Actor(Base):
        def act(self) -> None: ...

    assert gethash(Box[int](1)) == gethash(Box(1))
    assert getarguments(Actor(1)) == {"x": 1}
    register(Base)
    assert getarguments(Actor(1)) == {"x": 1}


def test_registering_twice_is_registering_once() -> None:
    """The constructor runs once, is wrapped once, and the hash is the same."""
    calls: list[int] = []

    class Once:
        def __init__(self, x: int) -> None:
            calls.append(x)

    register(Once)
    wrapper, first = Once.__init__, gethash(Once(1))
    register(Once)
    register("Once")(Once)
    assert Once.__init__ is wrapper
    assert gethash(Once(1)) == first
    assert calls == [1, 1]


def test_a_class_has_one_name() -> None:
    """A second name is refused, naming both: the same construction would have two identities."""

    class Twin: ...

    register("first")(Twin)
    register(Twin)
    assert getname(Twin()) == "first"
    with pytest.raises(NameTaken, match=r"Twin is registered as 'first' already.*'second'"):
        register("second")(Twin)
    assert issubclass(NameTaken, ValueError)


def test_exclusions_may_be_said_once() -> None:
    """In whatever order modules are imported, what is excluded is what one of them said; two must agree."""

    class Optimizer:
        def __init__(self, params: object, lr: float = 0.1) -> None: ...

    register(Optimizer)
    register(Optimizer, excluded_args=[0])
    register(Optimizer)
    register(Optimizer, excluded_kwargs=["params"])
    assert getarguments(Optimizer(1, 0.2)) == {"lr": 0.2}
    with pytest.raises(NameTaken, match=r"without \['params'\]; now it would be without \['lr'\]"):
        register(Optimizer, excluded_kwargs=["lr"])
    assert getarguments(Optimizer(1, 0.2)) == {"lr": 0.2}


class Pair(NamedTuple):
    """A class whose objects have room for two values, and nothing else."""

    x: int
    y: int


def test_what_cannot_be_registered_is_refused_at_once() -> None:
    """No class, no place for a record, no way to change the class: each is named."""

    class Slotted:
        __slots__ = ("x",)

    for target, words in [
        (3, "3 is not a class"),
        (Linear(1, 1), "is not a class"),
        (Slotted, r"Slotted has slots.*Add '__weakref__' to its __slots__"),
        (Pair, "Pair has slots"),
        (set, "cannot be changed"),
    ]:
        with pytest.raises(InvalidRegistration, match=words):
            register(target)  # type: ignore[call-overload]
    assert issubclass(InvalidRegistration, TypeError)
    assert Slotted.__init__ is object.__init__


@pytest.mark.parametrize("slot", ["__dict__", "__weakref__"])
def test_slots_with_a_place_for_the_record_register(slot: str) -> None:
    """A slotted class is fine if its objects can be referred to weakly, or can have attributes."""

    class Roomy:
        __slots__ = ("x", slot)

        def __init__(self, x: int) -> None:
            self.x = x

    register(Roomy)
    assert getarguments(Roomy(1)) == {"x": 1}


def test_dataclasses_register() -> None:
    """Plain, frozen, or with slots that leave a place: a dataclass is a class."""

    @register
    @dataclass(frozen=True)
    class Frozen:
        x: int
        y: int = 2

    @register
    @dataclass(frozen=True, slots=True, weakref_slot=True)
    class Slim:
        x: int

    @register
    @dataclass
    class Lists:
        x: list[int] = field(default_factory=list)
        y: list[int] = field(default_factory=lambda: [1])

    assert getarguments(Lists([], y=[1])) == {}
    assert getarguments(Lists([1], [])) == {"x": [1], "y": []}
    assert getarguments(Frozen(1, 2)) == {"x": 1}
    assert gethash(Slim(1)) == gethash(Slim(x=1))
    assert Frozen(1) == Frozen(1)


def test_pydantic_models_register() -> None:
    """A model is bound to the signature that it shows, defaults included."""

    @register
    class Request(BaseModel):
        width: int
        depth: int = 2

    assert getarguments(Request(depth=2, width=3)) == {"width": 3}
    assert gethash(Request(width=3).model_copy()) == gethash(Request(width=3))


def test_a_default_may_be_made_by_a_factory() -> None:
    """Of dataclasses and models, by whatever name it is passed; a constructor written by hand has its own."""

    @register
    class Request(BaseModel):
        layers: list[int] = Field(default_factory=lambda: [1])
        sizes: list[int] = Field(default_factory=list, alias="widths")

    @register
    @dataclass
    class Plan:
        layers: list[int] = field(default_factory=lambda: [1])

    @register
    class Longer(Plan):
        def __init__(self, layers: list[int] = [2]) -> None: ...  # noqa: B006

    assert getarguments(Request(layers=[1], widths=[])) == getarguments(Plan([1])) == getarguments(Longer([2])) == {}
    assert getarguments(Longer([1])) == {"layers": [1]}
    assert getarguments(Request(widths=[1])) == {"widths": [1]}


@pytest.mark.parametrize(
    ("excluded", "words"),
    [
        ({"excluded_args": [2]}, "Pipe has no parameter at 2. There are: 0 source, 1 target."),
        ({"excluded_args": [-1]}, "no parameter at -1"),
        ({"excluded_args": ["source"]}, "no parameter at 'source'"),
        ({"excluded_args": [True]}, "no parameter at True"),
        ({"excluded_kwargs": {"sorce"}}, "Pipe has no parameter 'sorce'. There is: source."),
        ({"excluded_kwargs": "source"}, "Write `excluded_kwargs={'source'}`"),
        ({"excluded_args": [0.0]}, "no parameter at 0.0"),
        ({"excluded_args": 0}, r"Write `excluded_args=\{0\}`"),
        ({"excluded_args": "pipe"}, "excluded_args='pipe' is one thing"),
    ],
)
def test_exclusions_name_parameters_that_exist(excluded: dict[str, Any], words: str) -> None:
    """A parameter that does not exist is refused when it is written, and the class stays unregistered."""

    class Pipe:
        def __init__(self, source: object, target: object) -> None: ...

    with pytest.raises(InvalidExclusion, match=words):
        register(Pipe, **excluded)
    with pytest.raises(NotRegistered):
        getname(Pipe(1, 2))


@pytest.mark.parametrize("ask", [getarguments, getname, gethash, getmetadata, setname, sethash])
def test_asking_an_unregistered_object_names_the_remedy(ask: Any) -> None:
    """Every question says which class to register, and how."""

    class MLP: ...

    with pytest.raises(NotRegistered, match=r"MLP is not registered. Write `register\(MLP\)`"):
        ask(MLP())
    with pytest.raises(NotRegistered, match="MLP is a class"):
        ask(MLP)
    early = MLP()
    register(MLP)
    with pytest.raises(NotRegistered, match=r"its class was registered after that. Write `register\(MLP\)`"):
        ask(early)


def test_the_mistake_shows_through_a_property_of_a_module() -> None:
    """`NotRegistered` is no `AttributeError`, which `nn.Module` would answer with "has no attribute 'id'"."""

    class Aggregate(Module):
        @property
        def id(self) -> str:
            return gethash(self)

    with pytest.raises(NotRegistered, match=r"register\(Aggregate\)"):
        Aggregate().id  # noqa: B018 - the access is the act


def test_an_object_keeps_its_identity_when_its_class_is_changed() -> None:
    """Sharding and parametrization change the class of an object, not what it was constructed from."""

    @register
    class Layer:
        def __init__(self, x: int) -> None: ...

    layer = Layer(1)
    before = gethash(layer)
    layer.__class__ = type("ShardedLayer", (Layer,), {})
    assert gethash(layer) == gethash(copy.deepcopy(layer)) == before


def test_a_name_and_a_hash_can_be_set_and_frozen() -> None:
    """What is set holds for the object; without a value, the computed one is frozen."""

    @register
    class Thing:
        def __init__(self, x: object) -> None: ...

    thing, other = Thing(1), Thing(1)
    setname(thing, "special")
    assert getname(thing) == "special"
    assert getname(other) == "Thing"
    assert gethash(thing) != gethash(other)
    assert getarguments(Thing(thing)) == {"x": {"name": "special", "arguments": {"x": 1}}}

    digest = gethash(other)
    sethash(other)
    setname(other, "later")
    assert gethash(other) == digest
    sethash(other, "")
    assert getmetadata(other) == {"name": "later", "hash": "", "arguments": {"x": 1}}


def test_a_name_and_a_hash_can_be_set_on_anything_that_can_keep_them() -> None:
    """An object that is not registered can still be given a name and a hash by hand."""
    anonymous = type("Anonymous", (), {})()
    setname(anonymous, "head")
    sethash(anonymous, "abc")
    assert (getname(anonymous), gethash(anonymous)) == ("head", "abc")
    with pytest.raises(NotRegistered):
        getarguments(anonymous)
    with pytest.raises(InvalidRegistration, match="has no place for a name or a hash"):
        setname(3, "three")


def test_a_name_may_be_given_by_keyword() -> None:
    """As a decorator as well; two names, or what is none, are refused."""

    class A: ...

    assert getname(register(name="a")(A)()) == "a"
    assert Registry[Any]().register(name="a")(A) is A
    for register_it in (register, Registry[Any]().register):
        with pytest.raises(InvalidRegistration, match="the name is 'a', and again 'b'"):
            register_it("a", name="b")
        with pytest.raises(InvalidRegistration, match="and 5 is none"):
            register_it(type("B", (), {}), name=5)  # type: ignore[call-overload]


@pytest.mark.parametrize("slots", [False, True])
def test_a_class_is_registered_when_it_is_complete(*, slots: bool) -> None:
    """A decorator below `register` finds a constructor, and makes none: that is said at the first construction."""

    @dataclass(slots=slots)
    @register
    class Early:
        x: int

    with pytest.raises(InvalidRegistration, match=r"registered before it was complete.*above its other decorators"):
        Early(1)


def test_methods_may_be_of_any_kind() -> None:
    """A constructor made by `partialmethod`, a copy that is switched off, a signature of the base: all go on."""

    class Base:
        __signature__ = inspect.Signature([inspect.Parameter("stated", inspect.Parameter.POSITIONAL_OR_KEYWORD)])
        __deepcopy__ = None

        def __init__(self, x: int, *, fast: bool = False) -> None:
            self.got = (x, fast)

    @register
    class Fast(Base):
        __init__ = partialmethod(Base.__init__, fast=True)

    @register
    class Other(Base):
        def __init__(self, a: int, b: int) -> None: ...

    assert (fast := Fast(1)).got == (1, True)
    assert getarguments(copy.deepcopy(fast)) == {"x": 1}
    assert getarguments(Other(1, 2)) == {"a": 1, "b": 2}


def test_registering_again_leaves_the_defaults_as_they_were() -> None:
    """Also where a constructor has changed a mutable default in between."""

    class Greedy:
        def __init__(self, seen: list[int] = [], log: object = None) -> None:  # noqa: B006
            seen.append(1)

    register(Greedy)
    Greedy()
    register(Greedy)
    register(Greedy, excluded_kwargs={"log"})
    assert getarguments(Greedy([], log=1)) == {}


def test_threads_register_a_class_once() -> None:
    """The constructor is wrapped once, whoever comes first."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(50):

            class Shared:
                def __init__(self, x: int) -> None: ...

            together = threading.Barrier(4)
            threads = [threading.Thread(target=lambda: (together.wait(), register(Shared))) for _ in range(4)]  # noqa: B023
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not hasattr(vars(Shared)["__init__"].__wrapped__, "__wrapped__")
    finally:
        sys.setswitchinterval(interval)
