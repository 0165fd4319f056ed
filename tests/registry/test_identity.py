"""The identity of a construction: which spellings are one, which constructions are two, and the very digits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict, namedtuple
from hashlib import md5
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchsystem.registry import getarguments, gethash, getmetadata, getname, register, setname

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


@register
class Model:
    """A class with parameters of all common kinds."""

    def __init__(self, x: object, y: object, z: object, t: object = "5") -> None:
        """Take them."""


@register
class Net:
    """A class with defaults of every plain type."""

    def __init__(
        self,
        layers: object,
        rate: object = 0.1,
        label: object = "",
        nothing: object = 1,
        options: object = None,
    ) -> None:
        """Take them."""


@register
class Wrapper:
    """A class with parts, and keywords of any name."""

    def __init__(self, inner: object, scale: object = 1.0, **extra: object) -> None:
        """Take them."""


@register("criterion", excluded_args=[0])
class Loss:
    """A class with a name of its own and an excluded parameter."""

    def __init__(self, weight: object, reduction: str = "mean") -> None:
        """Take them."""


@register
class Stack:
    """A class of any number of layers."""

    def __init__(self, *layers: object, residual: bool = False) -> None:
        """Take them."""


@register
class Empty:
    """A class without parameters."""


@pytest.mark.parametrize(
    ("obj", "written", "digest"),
    [
        (Empty(), "Empty{}", "b55f65a8541961c7786d41d1e2ddc80d"),
        (Model(1, 2.0, "3"), 'Model{"x": 1, "y": 2.0, "z": "3"}', "b12461be073bff9f5847f3f423767aa2"),
        (Model(1, 2.0, "3", t="6"), 'Model{"x": 1, "y": 2.0, "z": "3", "t": "6"}', "76bdb022616f5b95a285c9dcae8b5dc5"),
        (Loss(3, "sum"), 'criterion{"reduction": "sum"}', "6ed8294437fd276d9014c4f54034a4af"),
        (
            Wrapper(Model(1, 2.0, "3"), 2.0, a=[True]),
            'Wrapper{"inner": {"name": "Model", "arguments": {"x": 1, "y": 2.0, "z": "3"}}, "scale": 2.0, "a": [true]}',
            "58d1b67806f652b24a29ac04e14ad487",
        ),
        (
            Net([1, [2.5, False]], 0.5, "\u00e9", None, {"b": [{"a": None}], "a": -0.0}),
            (
                """Net{"layers": [1, [2.5, false]], "rate": 0.5, "label": "\\u00e9", "nothing": null, """
                """"options": {"b": [{"a": null}], "a": -0.0}}"""
            ),
            "78aa0a13cc8b7f91093759490d80c48e",
        ),
    ],
    ids=["empty", "positional", "keyword", "named", "nested", "values"],
)
def test_identifiers_made_by_version_1_4_stay_valid(obj: object, written: str, digest: str) -> None:
    """The hash of plain arguments is the MD5 of name and JSON: these digits were made by torchsystem 1.4."""
    assert md5(written.encode(), usedforsecurity=False).hexdigest() == digest
    assert gethash(obj) == digest


@pytest.mark.parametrize(
    ("obj", "written"),
    [
        (Wrapper(Empty()), 'Wrapper{"inner": {"name": "Empty", "arguments": {}}}'),
        (Stack(1, "a", residual=True), 'Stack{"layers": [1, "a"], "residual": true}'),
        (Stack([Empty()]), 'Stack{"layers": [[{"name": "Empty", "arguments": {}}]]}'),
        (Net((1, 2)), 'Net{"layers": [1, 2]}'),
        (Net(float("inf"), options=float("nan")), 'Net{"layers": Infinity, "options": NaN}'),
    ],
    ids=["part", "variadic", "parts", "tuple", "floats"],
)
def test_what_is_hashed_is_written_down(obj: object, written: str) -> None:
    """Parts without arguments, variadic arguments and tuples have one way to be written, for ever."""
    assert gethash(obj) == md5(written.encode(), usedforsecurity=False).hexdigest()


@given(x=VALUES, y=VALUES, z=VALUES, t=VALUES)
def test_the_hash_is_the_md5_of_name_and_json(x: Any, y: Any, z: Any, t: Any) -> None:
    """For any plain arguments there is no more to the hash than the formula."""
    arguments = {"x": x, "y": y, "z": z} | ({"t": t} if json.dumps(t) != '"5"' else {})
    written = "Model" + json.dumps(arguments)
    assert gethash(Model(x, y, z, t)) == md5(written.encode(), usedforsecurity=False).hexdigest()


@given(x=VALUES, y=VALUES, z=VALUES, data=st.data())
def test_every_spelling_of_a_call_is_one_construction(x: Any, y: Any, z: Any, data: st.DataObject) -> None:
    """Positional or by keyword, in any order, with a default given or not: it is the same object."""
    values = {"x": x, "y": y, "z": z} | data.draw(st.sampled_from([{}, {"t": "5"}]))
    split = data.draw(st.integers(0, len(values)))
    keywords = data.draw(st.permutations(list(values.items())[split:]))
    spelled = Model(*list(values.values())[:split], **dict(keywords))
    assert gethash(spelled) == gethash(Model(x, y, z))
    assert getarguments(spelled) == getarguments(Model(x, y, z)) or "nan" in str(values)


@given(extra=st.dictionaries(st.text("abc", min_size=1, max_size=3), SCALARS, max_size=4), data=st.data())
def test_the_order_of_keywords_of_any_name_does_not_matter(extra: dict[str, Any], data: st.DataObject) -> None:
    """What lands in `**extra` follows the parameters, sorted by name."""
    shuffled = dict(data.draw(st.permutations(list(extra.items()))))
    assert gethash(Wrapper(1, **shuffled)) == gethash(Wrapper(inner=1, **extra))
    assert list(getarguments(Wrapper(1, **shuffled))) == ["inner", *sorted(extra)]


@given(first=VALUES, second=VALUES)
def test_different_constructions_differ(first: Any, second: Any) -> None:
    """Two hashes are equal exactly if the arguments are the same JSON."""
    same = json.dumps(first) == json.dumps(second)
    assert (gethash(Net(first)) == gethash(Net(second))) is same
    assert (gethash(Net([[first]])) == gethash(Net([[second]]))) is same
    assert (gethash(Wrapper(Net(first))) == gethash(Wrapper(Net(second)))) is same


@given(items=st.lists(SCALARS, max_size=5))
def test_a_variadic_constructor_counts_all_it_got(items: list[Any]) -> None:
    """`*args` are one argument: the list of them."""
    assert gethash(Stack(*items)) != gethash(Stack(*items, 1))
    if items:
        assert json.dumps(getarguments(Stack(*items))) == json.dumps({"layers": items})


def test_numbers_of_different_types_differ() -> None:
    """`1`, `1.0` and `True` are three arguments, and none of them is a default that is equal to it."""
    assert len({gethash(Net(value)) for value in (1, 1.0, True, "1", [1])}) == 5
    assert getarguments(Net([], nothing=1)) == {"layers": []}
    assert getarguments(Net([], nothing=True)) == {"layers": [], "nothing": True}
    assert gethash(Net([], nothing=1.0)) != gethash(Net([]))


def test_subclasses_of_plain_types_are_what_json_sees() -> None:
    """A named tuple is a list, a default dict a dict, a class of numbers a number."""
    point = namedtuple("point", "x y")  # noqa: PYI024 - it is about those without annotations too
    percent = type("Percent", (float,), {})
    assert gethash(Net(point(1, 2))) == gethash(Net([1, 2]))
    assert gethash(Net(percent(0.5))) == gethash(Net(0.5))
    assert getarguments(Net(type("Name", (str,), {})("a"))) == {"layers": "a"}
    assert gethash(Net(defaultdict(int, b=1, a=2))) == gethash(Net({"b": 1, "a": 2})) != gethash(Net({"a": 2, "b": 1}))


def test_an_extra_keyword_may_have_the_name_of_a_parameter() -> None:
    """A positional-only parameter and a keyword of its name are two arguments, and both count."""

    @register
    class Odd:
        def __init__(self, x: int, /, *rest: int, **options: object) -> None: ...

    assert getarguments(Odd(1, 2, x=3)) == {"x": 1, "rest": [2], "options": {"x": 3}}
    assert len({gethash(each) for each in (Odd(1), Odd(1, x=1), Odd(1, x=2), Odd(1, 2), Odd(1, options={"x": 2}))}) == 5
    assert getarguments(Odd(1, options={"x": 2})) == {"x": 1, "options": {"options": {"x": 2}}}


def test_the_same_construction_has_the_same_hash_in_another_process() -> None:
    """Nothing of a process, such as the seed of its hashes, is in a hash."""
    program = (
        "from torchsystem.registry import gethash, register\n"
        "@register\n"
        "class Net:\n"
        "    def __init__(self, layers, rate=0.1, options=None): ...\n"
        "print(gethash(Net(options={'b': 'ü', 'a': [1.0, None]}, layers=[Net(1), (Net(2),)])))"
    )
    hashes = {
        subprocess.run(  # noqa: S603 - our own interpreter and program
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert hashes == {gethash(Net([Net(1), [Net(2)]], options={"b": "ü", "a": [1.0, None]}))}


def test_metadata_is_name_hash_and_arguments_ready_for_json() -> None:
    """`getmetadata` says all, and JSON keeps all of it; a part without arguments is no bare string there."""
    wrapper = Wrapper(Empty(), a=(Model(1, 2.0, "3"),))
    metadata = getmetadata(wrapper)
    assert list(metadata) == ["name", "hash", "arguments"]
    assert json.loads(json.dumps(metadata)) == metadata
    assert metadata == {
        "name": "Wrapper",
        "hash": gethash(wrapper),
        "arguments": {
            "inner": {"name": "Empty", "arguments": {}},
            "a": [{"name": "Model", "arguments": {"x": 1, "y": 2.0, "z": "3"}}],
        },
    }


def test_arguments_show_a_part_by_its_name_and_arguments() -> None:
    """`getarguments` gives a registered part as name and arguments, or as its bare name if it had none."""
    model = Model(1, 2.0, "3", "4")
    assert getarguments(Wrapper(model)) == {
        "inner": {"name": "Model", "arguments": {"x": 1, "y": 2.0, "z": "3", "t": "4"}}
    }
    assert getarguments(Wrapper(Empty())) == {"inner": "Empty"}
    assert getarguments(Stack(Empty(), {"a": Wrapper(Empty())})) == {
        "layers": ["Empty", {"a": {"name": "Wrapper", "arguments": {"inner": "Empty"}}}]
    }


def test_what_the_accessors_return_is_the_callers_own() -> None:
    """Changing a returned value changes nothing that is remembered."""
    net = Net([[1]], options={"a": [1]})
    before = gethash(net)
    getarguments(net)["layers"][0].append(2)
    getmetadata(net)["arguments"].clear()
    assert gethash(net) == before


def test_the_name_counts() -> None:
    """Equal arguments under two names are two constructions."""
    assert getname(Loss(1)) == "criterion"
    assert gethash(Stack()) != gethash(Empty())


def test_a_subclass_of_strings_is_a_string_as_a_key() -> None:
    """A dict counts as the JSON it is."""

    class Word(str):
        __slots__ = ()

    assert gethash(Model({Word("a"): 1}, 0, 0)) == gethash(Model({"a": 1}, 0, 0))
    assert gethash(Model({Word("a"): 1, "b": 2}, 0, 0)) == gethash(Model({"a": 1, "b": 2}, 0, 0))
    assert gethash(Model({1: 1}, 0, 0)) != gethash(Model({"1": 1}, 0, 0))


def test_any_name_has_a_hash() -> None:
    """Also one with half a character in it, as a file name may have."""
    model = Model(1, 2, 3)
    setname(model, "\udcff")
    assert gethash(model) != gethash(Model(1, 2, 3))
