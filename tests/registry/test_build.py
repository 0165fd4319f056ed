"""Building: metadata, through JSON, back to an object with the same hash."""

from __future__ import annotations

import json
import os
import sys
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from torch.nn import Linear, Module, ReLU, Sequential, functional
from torch.optim import RMSprop

from torchsystem.errors import CannotBuild, NoCanonicalForm, UnknownName
from torchsystem.registry import Registry, canonical, getarguments, gethash, getmetadata, register, sethash, setname

T = TypeVar("T")
registry = Registry[Any]()


@registry.register
class Node:
    """A class with parameters of every kind, which keeps what it got."""

    def __init__(self, first: Any, /, second: Any = 2, *rest: Any, only: Any = None, **extra: Any) -> None:
        """Keep all."""
        self.got = (first, second, rest, only, extra)


@registry.register("leaf")
class Leaf:
    """A class without arguments, under a name of its own."""


@registry.register(excluded_kwargs={"log"})
class Worker:
    """A class with an argument that does not count."""

    def __init__(self, size: int, log: Any, act: Any = functional.relu) -> None:
        """Keep them."""
        self.size, self.log, self.act = size, log, act


@registry.register
class Defaults:
    """A class whose positional-only parameters have defaults."""

    def __init__(self, a: int = 1, b: int = 2, /, c: int = 3) -> None:
        """Keep them."""
        self.got = (a, b, c)


class Color(Enum):
    """An enum beside registered classes."""

    RED = 1


@dataclass
class Config:
    """A dataclass beside registered classes."""

    width: int
    color: Color = Color.RED


class Request(BaseModel):
    """A model beside registered classes."""

    width: int


class Box(Generic[T]):
    """A class that can be subscripted, as an enum can."""


def double(x: int) -> int:
    """Be a function beside registered classes."""
    return 2 * x


def rebuilt(obj: Any) -> Any:
    """Build again from JSON."""
    return registry.build(json.loads(json.dumps(getmetadata(obj))))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3) | st.builds(Leaf),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "name", "arguments", "$canonical"]), inner, max_size=3)
        | st.builds(Node, inner, inner, inner, only=inner)
        | st.builds(lambda first, only: Node(first, only=only), inner, inner)
        | st.builds(
            lambda first, extra: Node(first, **extra), inner, st.dictionaries(st.text("xyz", min_size=1), inner)
        )
    ),
    max_leaves=6,
)


def shown(value: Any) -> Any:
    """Make what was got comparable."""
    match value:
        case Node():
            return ("Node", shown(value.got))
        case Leaf():
            return "leaf"
        case list() | tuple():
            return [shown(item) for item in value]
        case dict():
            return {key: shown(item) for key, item in value.items()}
        case _:
            return (type(value), value)


@given(value=VALUES)
def test_what_is_built_has_the_same_hash_and_got_the_same(value: Any) -> None:
    """Any nesting of registered objects, lists and dicts comes back from JSON as it was."""
    node = Node(value)
    again = rebuilt(node)
    assert gethash(again) == gethash(node)
    assert getmetadata(again) == getmetadata(node)
    assert shown(again) == shown(node)


@pytest.mark.parametrize(
    "value",
    [
        torch.bfloat16,
        torch.device("cuda:1"),
        torch.strided,
        torch.channels_last,
        Path("a/b"),
        Color.RED,
        {1, "a", (2, (3,))},
        frozenset({1}),
        OrderedDict(b=1, a=Leaf()),
        {1: "a", (2, 3): [4]},
        b"\x00",
        bytearray(b"\x01"),
        1j,
        range(3),
        slice(1, None),
        Config(3),
        Request(width=4),
        double,
        functional.gelu,
        torch.tanh,
        ReLU,
        Node,
        partial(double, 3),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_values_of_other_kinds_come_back(value: Any) -> None:
    """What has a canonical form and a way back is equal to what it was, also beside or inside others."""
    again = rebuilt(Node(value, [value]))
    assert gethash(again) == gethash(Node(value, [value]))
    if not isinstance(value, OrderedDict | partial):
        assert again.got[:2] == (value, [value])
        assert type(again.got[0]) is type(value)


def test_a_generator_comes_back_with_its_seed() -> None:
    """It draws what the original drew from the beginning."""
    generator = torch.Generator().manual_seed(3)
    again = rebuilt(Node(generator)).got[0]
    assert torch.equal(torch.rand(3, generator=again), torch.rand(3, generator=generator))


def test_a_model_comes_from_a_file(tmp_path: Path) -> None:
    """The story: metadata in a JSON file, a model in another place."""
    modules = Registry[Module]()
    for cls in (Linear, ReLU, Sequential):
        modules.register(cls)
    net = Sequential(OrderedDict(body=Linear(4, 8), act=ReLU(), head=Linear(8, out_features=2, bias=False)))
    file = tmp_path / "net.json"
    file.write_text(json.dumps(getmetadata(net), sort_keys=True))
    again = modules.build(json.loads(file.read_text()))
    assert isinstance(again, Sequential)
    assert gethash(again) == gethash(net)
    assert again.state_dict().keys() == net.state_dict().keys()


def test_what_does_not_count_is_given() -> None:
    """An excluded argument is not in the metadata: it is passed, or named as missing."""
    optimizers = Registry[torch.optim.Optimizer]()
    optimizers.register(RMSprop, excluded_args=[0])
    linear = Linear(2, 2)
    optimizer = RMSprop(linear.parameters(), lr=0.1, momentum=0.9)
    again = optimizers.build(getmetadata(optimizer), params=linear.parameters())
    assert getmetadata(again) == getmetadata(optimizer)
    with pytest.raises(CannotBuild, match=r"'params' of RMSprop does not count.*`build\(metadata, params=...\)`"):
        optimizers.build(getmetadata(optimizer))


def test_a_value_without_a_way_back_is_given() -> None:
    """A tensor is known only by its content; the same one can be passed, another one is refused."""
    weight = torch.ones(2)
    metadata = getmetadata(Node(1, weight))
    with pytest.raises(CannotBuild, match="the argument 'second' of Node: there is no way back to a torch"):
        registry.build(metadata)
    assert registry.build(metadata, second=weight).got[1] is weight
    with pytest.raises(CannotBuild, match=r"what was built is \w+, and not \w+\. Its class has changed"):
        registry.build(metadata, second=weight + 1)


def test_a_taught_type_comes_back_if_its_way_back_is_taught() -> None:
    """`rebuild` is the other half of a canonical form."""

    class Money:
        def __init__(self, cents: int) -> None:
            self.cents = cents

    canonical.register(Money, lambda money: money.cents)
    metadata = getmetadata(Node(Money(5)))
    with pytest.raises(CannotBuild, match=r"no way back to a .*Money. Teach one, `canonical.register\(..., rebuild"):
        registry.build(metadata)
    canonical.register(Money, lambda money: money.cents, rebuild=Money, replace=True)
    assert registry.build(metadata).got[0].cents == 5


def test_a_hash_set_by_hand_comes_back() -> None:
    """The object built has the hash of the original, also where it is not the computed one."""
    leaf = Node(1)
    sethash(leaf, "by hand")
    assert gethash(rebuilt(leaf)) == "by hand"


def test_a_class_that_has_changed_is_noticed() -> None:
    """If the same arguments no longer make the same identity, the hash tells; without a hash nobody asked."""
    then, now = Registry[object](), Registry[object]()

    def define(hidden: int) -> type:
        class Net:
            def __init__(self, size: int, hidden: int = hidden) -> None: ...

        return Net

    then.register(define(64))
    now.register(define(32))
    old: Any = then.get("Net")
    metadata = getmetadata(old(8, 32))
    with pytest.raises(CannotBuild, match="Its class has changed since"):
        now.build(metadata)
    del metadata["hash"]
    assert getarguments(now.build(metadata)) == {"size": 8}


def test_metadata_written_by_hand_need_no_order_and_no_hash() -> None:
    """A JSON file may say defaults, and say things in any order."""
    built = registry.build(
        {"arguments": {"only": 1, "second": 2, "first": {"name": "leaf", "arguments": {}}}, "name": "Node"}
    )
    assert gethash(built) == gethash(Node(Leaf(), only=1))
    assert registry.build({"name": "Defaults", "arguments": {"b": 5}}).got == (1, 5, 3)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"name": "Node", "arguments": {}}, "the argument 'first' of Node is missing"),
        ({"name": "Worker", "arguments": {"size": 1, "atc": 2}}, "Worker has no parameter 'atc'. There is: act"),
        ({"name": "Node"}, "metadata are"),
        ({"name": "Node", "arguments": {"first": 1}, "extra": 1}, "metadata are"),
        ([], "metadata are"),
        ({"name": "Node", "arguments": {"first": {"$canonical": 2, "type": "set", "value": []}}}, "canonical form 2"),
        ({"name": "Node", "arguments": {"first": {"$canonical": 1, "type": "sett"}}}, "no way back to a sett"),
        ({"name": "Node", "arguments": {"first": {"$canonical": 1, "type": "bytes", "value": "x"}}}, "a bytes cannot"),
        ({"name": "Node", "arguments": {"first": {"$canonical": 1, "type": "set", "value": [{}]}}}, "a set cannot"),
        ({"name": "Worker", "arguments": {"size": {"$canonical": 1, "type": "torch.dtype", "value": "load"}}}, "dtype"),
        ({"name": "Worker", "arguments": {"size": {"$canonical": 1, "type": "torch.device", "value": "x"}}}, "device"),
        ({"name": "Worker", "arguments": {1: 2}}, "Worker has no parameter 1"),
        ({"name": "leaf", "arguments": {}, "hash": 5}, "metadata are"),
        ({"name": "Node", "arguments": {"first": 1, "rest": "abc"}}, "the argument 'rest' of Node is a list"),
        ({"name": "Node", "arguments": {"first": 1, "extra": [1]}}, "the argument 'extra' of Node is a dict"),
        ({"name": "Node", "arguments": {"first": 1, 2: 3}}, "the argument 'extra' of Node is a dict with strings"),
    ],
    ids=["missing", "unknown", "shape", "more", "list", "version", "kind", "value", "unhashable", "constant", "device",
         "number", "hash", "string", "pairs", "keys"],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_by_name(metadata: Any, words: str) -> None:
    """Each mistake says which argument of which class, and what is known instead."""
    with pytest.raises(CannotBuild, match=words):
        registry.build(metadata)
    assert issubclass(CannotBuild, ValueError)


def test_an_unknown_name_says_what_is_near() -> None:
    """Also that of a part, and that of an object renamed by hand."""
    with pytest.raises(UnknownName, match=r"'Nod'\. There is: 'Node'"):
        registry.build({"name": "Nod", "arguments": {}})
    with pytest.raises(UnknownName, match=r"'leav'\. There is: 'leaf'"):
        registry.build({"name": "Node", "arguments": {"first": [{"name": "leav", "arguments": {}}]}})
    node = Node(1)
    setname(node, "special")
    with pytest.raises(UnknownName, match="'special'"):
        rebuilt(node)


@pytest.mark.parametrize(
    "value",
    [
        {"$canonical": 1, "type": "function", "value": "os.system"},
        {"$canonical": 1, "type": "function", "value": "posix.system"},
        {"$canonical": 1, "type": "function", "value": f"{__name__}.os.system"},
        {"$canonical": 1, "type": "function", "value": "torch.load"},
        {"$canonical": 1, "type": "function", "value": "torch.nn.modules.module.functools.partial"},
        {"$canonical": 1, "type": "class", "value": "subprocess.Popen"},
        {"$canonical": 1, "type": "dataclass", "value": {"class": "subprocess.Popen", "fields": {"args": "true"}}},
        {"$canonical": 1, "type": "dataclass", "value": {"class": f"{__name__}.double", "fields": {}}},
        {"$canonical": 1, "type": "enum", "value": {"class": f"{__name__}.Box", "name": "x"}},
        {"$canonical": 1, "type": "pydantic", "value": {"class": f"{__name__}.Config", "fields": {}}},
        {"$canonical": 1, "type": "function", "value": "not_imported.at_all"},
        {"$canonical": 1, "type": "function", "value": ""},
    ],
    ids=range(12),
)
def test_metadata_from_anywhere_reach_nothing_that_was_not_meant(value: Any) -> None:
    """A request cannot name a function or a class from elsewhere, nor use one as what it is not."""
    assert os.system is not None
    with pytest.raises(CannotBuild):
        registry.build({"name": "Node", "arguments": {"first": value}})


def test_a_constructor_may_refuse() -> None:
    """What the constructor raises is not our mistake, and passes as it is."""
    strict = Registry[object]()

    @strict.register
    class Strict:
        def __init__(self, x: int) -> None:
            raise ZeroDivisionError(x)

    with pytest.raises(ZeroDivisionError):
        strict.build({"name": "Strict", "arguments": {"x": 1}})


def test_only_classes_of_this_registry_are_built() -> None:
    """A class that is registered elsewhere is not known here."""
    register(type("Elsewhere", (), {}))
    with pytest.raises(UnknownName, match="'Elsewhere'"):
        registry.build({"name": "Elsewhere", "arguments": {}})


def test_looking_for_a_name_runs_nothing() -> None:
    """Neither the `__getattr__` of a module, by which many a package imports others, nor that of a class."""
    touched: list[str] = []

    class Watchful(type):
        def __getattr__(cls, name: str) -> object:
            touched.append(name)
            raise AttributeError(name)

    lazy = ModuleType("lazy_module_of_a_test")
    vars(lazy).update(__getattr__=touched.append, Watched=Watchful("Watched", (), {}))
    sys.modules[lazy.__name__] = lazy
    try:
        for name in ("module.Class", "Class", "Watched.method", "Watched.__init__.__globals__"):
            with pytest.raises(CannotBuild, match="nothing is loaded as"):
                registry.build(_first(f"{lazy.__name__}.{name}"))
    finally:
        del sys.modules[lazy.__name__]
    assert not touched


def _first(name: str) -> dict[str, Any]:
    return {"name": "Node", "arguments": {"first": {"$canonical": 1, "type": "class", "value": name}}}


def test_metadata_of_any_depth_and_length_are_refused_by_name() -> None:
    """What comes from anywhere may be deep and long: the refusal is ours, soon there, and short."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(CannotBuild, match="the argument 'first' of Node is nested too deeply"):
        registry.build({"name": "Node", "arguments": {"first": deep}})
    with pytest.raises(CannotBuild, match="nothing is loaded"):
        registry.build(_first("a." * 100_000 + "b"))
    with pytest.raises(CannotBuild, match="metadata are") as refusal:
        registry.build({"arguments": [0] * 100_000})
    assert len(str(refusal.value)) < 300


def test_more_keywords_can_be_given() -> None:
    """What is given joins the extra keywords of the metadata, and takes the place of none but its own."""
    metadata = getmetadata(Node(1, extra=2, a=3))
    del metadata["hash"]  # type: ignore[misc]
    assert registry.build(metadata, b=4).got[-1] == {"extra": 2, "a": 3, "b": 4}


def test_without_a_hash_nothing_needs_one() -> None:
    """A given value without canonical form is no obstacle if the metadata do not say a hash."""
    metadata = {"name": "Worker", "arguments": {"size": 1}}
    assert registry.build(metadata, log=None, act=lambda: 5).act() == 5
    with pytest.raises(NoCanonicalForm, match="'act' of Worker"):
        registry.build(metadata | {"hash": ""}, log=None, act=lambda: 5)
