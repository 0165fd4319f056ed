"""The canonical form of values that JSON does not know: written down, versioned, and open to be taught."""

from __future__ import annotations

import contextlib
import functools
import json
import operator
import tracemalloc
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum, Flag, IntEnum
from functools import partial
from hashlib import sha256
from pathlib import Path, PureWindowsPath
from typing import Any, Self

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from torch import nn
from torch.nn import functional

from torchsystem.errors import InvalidRegistration, NameTaken, NoCanonicalForm
from torchsystem.registry import canonical, fingerprint, getarguments, gethash, getmetadata, register

HERE = __name__


class Color(Enum):
    """An enum."""

    RED = "r"
    BLUE = "b"


class Level(IntEnum):
    """An enum of numbers."""

    LOW = 1


class Mode(Flag):
    """An enum of flags."""

    READ = 1
    WRITE = 2


@dataclass
class Config:
    """A dataclass, of which one field does not count."""

    width: int
    color: Color = Color.RED
    cache: dict[str, int] = field(default_factory=dict, compare=False)


class Request(BaseModel):
    """A pydantic model."""

    width: int
    color: Color = Color.RED


class Point:
    """A class without canonical form."""

    def __init__(self, x: float, y: float) -> None:
        """Keep both."""
        self.x, self.y = x, y

    @classmethod
    def origin(cls) -> Self:
        """Give the origin."""
        return cls(0, 0)


@register
class Holder:
    """A class that takes anything."""

    def __init__(self, value: object = None, *rest: object, **extra: object) -> None:
        """Take it."""


def written(value: object) -> Any:
    """Give the canonical form of a value, by way of JSON."""
    return json.loads(json.dumps(getmetadata(Holder(value))["arguments"]["value"]))


def form(kind: str, value: object) -> dict[str, object]:
    """Write a form of version 1."""
    return {"$canonical": 1, "type": kind, "value": value}


RAMP = sha256(np.arange(3, dtype="<i8").tobytes()).hexdigest()

FORMS = [
    (torch.float32, form("torch.dtype", "torch.float32")),
    (torch.device("cuda", 1), form("torch.device", "cuda:1")),
    (torch.sparse_coo, form("torch.layout", "torch.sparse_coo")),
    (torch.channels_last, form("torch.memory_format", "torch.channels_last")),
    (torch.Generator().manual_seed(7), form("torch.Generator", {"device": "cpu", "seed": 7})),
    (torch.arange(3), form("torch.Tensor", {"dtype": "torch.int64", "shape": [3], "digest": RAMP})),
    (np.arange(3, dtype="<i8"), form("numpy.ndarray", {"dtype": "<i8", "shape": [3], "digest": RAMP})),
    (torch.Size([2, 3]), [2, 3]),
    (np.int64(3), 3),
    (np.float32(0.5), 0.5),
    (np.bool_(1), True),
    (np.str_("a"), "a"),
    (Path("data/train"), form("path", "data/train")),
    (PureWindowsPath("data\\train"), form("path", "data/train")),
    (Color.RED, form("enum", {"class": f"{HERE}.Color", "name": "RED"})),
    (Level.LOW, form("enum", {"class": f"{HERE}.Level", "name": "LOW"})),
    (Mode.READ | Mode.WRITE, form("enum", {"class": f"{HERE}.Mode", "value": 3})),
    ({3, "a", (1, 2)}, form("set", ["a", 3, [1, 2]])),
    (frozenset({2, 1}), form("frozenset", [1, 2])),
    (OrderedDict(b=1, a=2), form("OrderedDict", [["b", 1], ["a", 2]])),
    ({1: "a", (2, 3): "b"}, form("dict", [[1, "a"], [[2, 3], "b"]])),
    (b"\x00\xff", form("bytes", "00ff")),
    (bytearray(b"\x01"), form("bytearray", "01")),
    (1 - 2j, form("complex", [1.0, -2.0])),
    (range(1, 9, 2), form("range", [1, 9, 2])),
    (slice(None, 3), form("slice", [None, 3, None])),
    (
        Config(3, cache={"a": 1}),
        form(
            "dataclass",
            {
                "class": f"{HERE}.Config",
                "fields": {"width": 3, "color": form("enum", {"class": f"{HERE}.Color", "name": "RED"})},
            },
        ),
    ),
    (
        Request(width=3),
        form(
            "pydantic",
            {
                "class": f"{HERE}.Request",
                "fields": {"width": 3, "color": form("enum", {"class": f"{HERE}.Color", "name": "RED"})},
            },
        ),
    ),
    (functional.relu, form("function", "torch.nn.functional.relu")),
    (torch.relu, form("function", "torch.relu")),
    (len, form("function", "builtins.len")),
    (form, form("function", f"{HERE}.form")),
    (Point.origin, form("function", f"{HERE}.Point.origin")),
    (nn.ReLU, form("class", "torch.nn.modules.activation.ReLU")),
    (int, form("class", "builtins.int")),
    (
        partial(operator.add, 1),
        form("partial", {"function": form("function", "_operator.add"), "args": [1], "kwargs": {}}),
    ),
    ({"$canonical": 1}, form("dict", [["$canonical", 1]])),
    ({"name": "Holder", "arguments": {}}, form("dict", [["name", "Holder"], ["arguments", {}]])),
    ({"name": "Holder", "arguments": {}, "hash": ""}, {"name": "Holder", "arguments": {}, "hash": ""}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"), FORMS, ids=[f"{at}-{type(each[0]).__name__}" for at, each in enumerate(FORMS)]
)
def test_the_canonical_form_is_written_down(value: object, expected: object) -> None:
    """Version 1 of every form is pinned here: a change of one would change hashes, and is version 2."""
    assert canonical.VERSION == 1
    assert written(value) == expected
    assert written([value]) == [expected]


def test_no_two_forms_are_the_same() -> None:
    """Values of different kinds differ, also from the plain value that is written as their form is."""
    pairs = [(value, expected) for value, expected in FORMS if isinstance(expected, dict) and "$canonical" in expected]
    hashes = {gethash(Holder(value)) for value, _ in pairs} | {gethash(Holder(expected)) for _, expected in pairs}
    assert len(hashes) == 2 * (len(pairs) - 1)  # two of them are the same path


def test_values_count_as_they_were() -> None:
    """What a mutable value becomes after the construction, there or here, does not matter."""
    tensor, config, items = torch.zeros(2), Config(1), {1, 2}
    holder = Holder(tensor, config, items)
    before = gethash(holder)
    tensor += 1
    config.width = 2
    items.add(3)
    assert (
        gethash(holder)
        == before
        == gethash(Holder(torch.zeros(2), Config(1), {1, 2}))
        != gethash(Holder(tensor, config, items))
    )


def test_a_tensor_counts_by_its_content() -> None:
    """Where and how it is stored does not matter, nor whether it is a parameter; its dtype and shape do."""
    ramp = torch.arange(4.0)
    same = [ramp.clone(), nn.Parameter(ramp), torch.stack([ramp, ramp], 1)[:, 0], nn.Buffer(ramp), ramp.to_sparse()]
    assert {gethash(Holder(each)) for each in same} == {gethash(Holder(ramp))}
    others = [ramp.double(), ramp.view(2, 2), ramp + 1, ramp[None], ramp[:3]]
    assert gethash(Holder(ramp)) not in {gethash(Holder(each)) for each in others}


def test_capturing_copies_no_tensor_and_keeps_none() -> None:
    """The constructor gets the very tensor, `getarguments` gives it for as long as it lives, and then its content."""

    class Reluctant(torch.Tensor):
        def __deepcopy__(self, memo: object) -> Self:
            pytest.fail("copied")

    tensor = torch.zeros(2, requires_grad=True) * 2  # which torch itself refuses to copy
    holder, reluctant = Holder(tensor), Holder(torch.zeros(2).as_subclass(Reluctant))
    assert getarguments(holder)["value"] is tensor
    assert gethash(holder) == gethash(Holder(torch.zeros(2))) == gethash(reluctant)
    del tensor
    assert getarguments(holder)["value"]["shape"] == [2]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.empty(2, device="meta"), "a Tensor whose values cannot be read"),
        (np.array([object()]), "an array of Python objects"),
        ({1: lambda: None}, "a lambda"),
        ({Point(0, 0)}, "a Point, which was not registered"),
        (Config(width=Point(0, 0)), "a Point, which was not registered"),  # type: ignore[arg-type]
        (partial(lambda: None), "a lambda"),
    ],
    ids=["meta", "objects", "dict", "set", "dataclass", "partial"],
)
def test_what_contains_something_without_form_has_none(value: object, words: str) -> None:
    """The argument is named, and what is in it."""
    with pytest.raises(NoCanonicalForm, match=f"the argument 'value' of Holder.*{words}"):
        gethash(Holder(value))


def test_a_registered_object_is_itself_in_any_value() -> None:
    """Identity goes through sets, dataclasses and partial applications as it goes through lists."""
    inner = Holder(1)
    described = {"name": "Holder", "arguments": {"value": 1}}
    assert written({inner}) == form("set", [described])
    assert written({inner: inner}) == form("dict", [[described, described]])
    assert written(Config(inner))["value"]["fields"]["width"] == described  # type: ignore[arg-type]
    assert written(partial(form, inner))["value"]["args"] == [described]


def test_a_type_can_be_taught() -> None:
    """What the function gives is the form, of subclasses under their own name; it is asked at construction."""

    class Angle:
        def __init__(self, degrees: float) -> None:
            self.degrees = degrees

    class Turn(Angle): ...

    early = Holder([Angle(90.0)], angle := Angle(90.0))
    with pytest.raises(NoCanonicalForm, match=r"teach its form, `canonical.register\(Angle, function\)`"):
        gethash(early)
    canonical.register(Angle, lambda angle: {"degrees": angle.degrees, "color": Color.RED})
    name = f"{HERE}.test_a_type_can_be_taught.<locals>"
    red = form("enum", {"class": f"{HERE}.Color", "name": "RED"})
    assert written(Angle(90.0)) == form(f"{name}.Angle", {"degrees": 90.0, "color": red})
    assert written(Turn(90.0)) == form(f"{name}.Turn", {"degrees": 90.0, "color": red})
    assert gethash(Holder(Angle(90.0))) != gethash(Holder(Angle(91.0)))
    with pytest.raises(NoCanonicalForm, match="the argument 'value' of Holder"):
        gethash(early)  # the first one is gone, and nobody knows what it was
    assert gethash(Holder(None, angle)) == gethash(Holder(None, Angle(90.0)))


def test_what_was_taught_late_counts_for_what_still_lives() -> None:
    """After the refusal says to teach a type, doing so is enough."""

    class Late:
        pass

    late = Late()
    holder = Holder([Holder({"a": late})])
    with pytest.raises(NoCanonicalForm):
        gethash(holder)
    canonical.register(Late, lambda _: "late")
    assert gethash(holder) == gethash(Holder([Holder({"a": Late()})]))


def test_what_does_not_count_is_not_looked_at() -> None:
    """No form is asked of an excluded argument: it may be large, or on its way."""

    class Huge: ...

    canonical.register(Huge, lambda _: pytest.fail("looked at"))

    @register(excluded_args=[1], excluded_kwargs={"log"})
    class Reader:
        def __init__(self, size: object, source: object = None, **options: object) -> None: ...

    assert getarguments(Reader([1], Huge(), log=Huge())) == {"size": [1]}


def test_a_form_is_taught_once() -> None:
    """A second function for a type is refused unless it says so; plain types are fixed for ever."""

    class Taught: ...

    def take(_: object) -> int:
        return 1

    canonical.register(Taught, take)
    canonical.register(Taught, take)
    with pytest.raises(NameTaken, match=r"Taught is known already. Write `replace=True`"):
        canonical.register(Taught, lambda _: 2)
    canonical.register(Taught, lambda _: 2, replace=True)
    assert written(Taught())["value"] == 2
    with pytest.raises(NameTaken, match="Tensor is known already"):
        canonical.register(torch.Tensor, take)
    for fixed in (int, str, list, dict, type(None), object, 3):
        with pytest.raises(InvalidRegistration, match="cannot be taught"):
            canonical.register(fixed, take)  # type: ignore[arg-type]


def test_a_form_that_fails_is_no_obstacle() -> None:
    """Whatever a taught function raises, the object is made, and `gethash` says why it has no hash."""

    class Broken: ...

    canonical.register(Broken, lambda _: 1 / 0)
    with pytest.raises(NoCanonicalForm, match=r"a Broken, and taking it apart failed.*ZeroDivisionError"):
        gethash(Holder(Broken()))


def test_a_default_of_any_kind_is_a_default() -> None:
    """A value with the canonical form of the default is the default."""

    @register
    class Every:
        def __init__(  # noqa: PLR0917, PLR0913 - one of each kind
            self,
            dtype: object = torch.float32,
            path: object = Path("a"),
            color: object = Color.RED,
            weight: object = torch.ones(2),
            act: object = functional.relu,
            sizes: object = (1, 2),
        ) -> None: ...

    assert getarguments(Every(torch.float, Path("a"), Color("r"), torch.ones(2), functional.relu, [1, 2])) == {}
    assert list(getarguments(Every(weight=torch.zeros(2), sizes=(1, 2.0)))) == ["weight", "sizes"]


@given(
    items=st.sets(st.integers() | st.text(max_size=3) | st.tuples(st.integers(), st.text(max_size=2)), max_size=6),
    data=st.data(),
)
def test_the_order_of_a_set_does_not_matter(items: set[Any], data: st.DataObject) -> None:
    """A set is written by its elements, whatever order this process keeps them in."""
    assert written(items) == written(set(data.draw(st.permutations(list(items)))))
    assert written(items)["value"] == [json.loads(each) for each in sorted(json.dumps(item) for item in items)]


@given(values=st.lists(st.floats(width=32), max_size=5))
def test_a_tensor_and_its_fingerprint_agree(values: list[float]) -> None:
    """Two tensors count as the same argument exactly if they are the same weights."""
    one, other = torch.tensor(values), torch.tensor(values[::-1])
    same = fingerprint({"x": one}) == fingerprint({"x": other})
    assert (gethash(Holder(one)) == gethash(Holder(other))) is same


def test_a_form_is_a_function() -> None:
    """What cannot be called is refused when it is taught, not when a hash is asked for."""

    class Taught: ...

    for function, rebuild in (("value", None), (lambda _: 1, "value")):
        with pytest.raises(InvalidRegistration, match="taught by functions, and not by"):
            canonical.register(Taught, function, rebuild=rebuild)  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", [np.ndarray, BaseModel])
def test_forms_of_other_packages_are_known(cls: type) -> None:
    """What the table lists is known, also where the package is not imported for it."""
    with pytest.raises(NameTaken, match="is known already"):
        canonical.register(cls, lambda _: 1)


def test_a_set_taught_late_is_sorted() -> None:
    """Also where the form of its elements is taught after the construction, their order does not matter."""

    class Late:
        def __init__(self, number: int) -> None:
            self.number = number

    elements = [Late(number) for number in range(20)]
    holder = Holder(set(elements))
    canonical.register(Late, lambda late: late.number)
    assert gethash(holder) == gethash(Holder(set(elements)))
    assert getmetadata(holder) == getmetadata(Holder(set(elements)))


def test_a_default_taught_late_is_a_default() -> None:
    """Whether the form of a default is taught before the class is registered, or after, or after an object is made."""

    class Late:
        def __init__(self, number: int) -> None:
            self.number = number

    @register
    class Run:
        def __init__(self, late: object = Late(1)) -> None: ...

    one = Late(1)
    before = Run(one)
    canonical.register(Late, lambda late: late.number)
    assert gethash(before) == gethash(Run(Late(1))) == gethash(Run()) != gethash(Run(Late(2)))


@pytest.mark.parametrize(
    "values",
    [
        [np.timedelta64(1, "Y"), np.timedelta64(1, "M"), 1],
        [np.datetime64(0, "ns"), np.datetime64(0, "s"), 0],
        [np.zeros(2, [("a", "f4")]), np.zeros(2, [("a", "i4")]), np.zeros(2, [("b", "f4")]), np.zeros((2, 4), "i1")],
        [np.ones(2, "M8[s]"), np.ones(2, "M8[D]"), np.ones(2, "i8")],
    ],
    ids=["timedelta", "datetime", "structured", "dates"],
)
def test_what_numpy_tells_apart_is_told_apart(values: list[object]) -> None:
    """A date is no number, and the names and types of fields count."""
    hashes = []
    for value in values:
        with contextlib.suppress(NoCanonicalForm):
            hashes.append(gethash(Holder(value)))
    assert len(set(hashes)) == len(hashes)


def test_an_array_counts_by_its_elements_row_by_row() -> None:
    """Where and how it is stored does not matter; one that is stored row by row is read without a copy."""
    array = np.arange(6.0).reshape(2, 3)
    same = [np.asfortranarray(array), array.repeat(2, axis=1)[:, ::2], array.copy()]
    assert {gethash(Holder(each)) for each in same} == {gethash(Holder(array))}
    assert gethash(Holder(array.T)) != gethash(Holder(array))
    large = np.zeros(2_000_000)
    tracemalloc.start()
    Holder(large)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < large.nbytes / 2


def test_keywords_of_a_partial_have_no_order() -> None:
    """A partial application is the same in any spelling."""
    assert gethash(Holder(partial(print, sep="", end=""))) == gethash(Holder(partial(print, end="", sep="")))


@functools.lru_cache
def remembered() -> int:
    """Be a function that is not of the usual kind."""
    return 1


@pytest.mark.parametrize("function", [str.lower, torch.Tensor.relu, remembered], ids=["str", "tensor", "cache"])
def test_functions_of_all_kinds_go_by_name(function: object) -> None:
    """A method written in C, and a function with a cache, are found by their names too."""
    assert written(function)["type"] == "function"


def test_a_value_that_has_changed_is_given_as_it_was() -> None:
    """`getarguments` gives the object itself while it is what it was, and then what it was."""
    config, numbers = Config(width=1), {1}
    holders = Holder(config), Holder(numbers)
    assert getarguments(holders[0])["value"] is config
    assert getarguments(holders[1])["value"] is numbers
    config.width = 2
    numbers.add(2)
    assert [getarguments(holder)["value"] for holder in holders] == [Config(width=1), {1}]
