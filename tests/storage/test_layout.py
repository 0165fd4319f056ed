"""Layouts: a path and its values say the same, and no path leaves the root."""

from __future__ import annotations

from itertools import combinations
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchsystem.errors import AmbiguousPath, DuplicateKind, InvalidTemplate, UnfilledTemplate, UnknownKind, UnsafeName
from torchsystem.storage.layout import Layout
from torchsystem.storage.segments import check_key, is_segment

PREDICTIONS = "{project}/{experiment}/{run}/predictions/{split}_{number}.json"
TEMPLATES = [
    PREDICTIONS,
    "{run}/{number:04d}/{kind}.bin",
    "{a}_{b}/{c}-{number}",
    "{a}.{b}.{c}",
    "x{a}x{b}x",
    "{a}0{number}0{b}",
    "{number}",
]

texts = st.text(max_size=8) | st.text(alphabet="ab_-.x0/\\ ", max_size=8) | st.sampled_from(["..", ".", "~", "a/../b"])


@given(st.sampled_from(TEMPLATES), st.data())
def test_a_path_tells_its_values_or_is_refused(template: str, data: st.DataObject) -> None:
    """Whatever the values: either the path gives back exactly them, or it is not made."""
    layout = Layout(kind=template)
    fields = layout.template("kind").fields
    values = {field: data.draw(st.integers(0, 20_000) if field == "number" else texts) for field in fields}
    try:
        path = layout.path("kind", **values)
    except (UnsafeName, AmbiguousPath):
        return
    assert layout.parse(path) == ("kind", values)


@given(st.sampled_from(TEMPLATES), st.text(alphabet="ab_-.x0123/", max_size=20))
def test_what_is_read_off_a_path_makes_that_path(template: str, path: str) -> None:
    """The other way round: a path that is of a kind is the very path that its values make, if they make any."""
    found = Layout(kind=template).parse(path)
    if found is None:
        return
    try:
        made = Layout(kind=template).path("kind", **found[1])
    except (UnsafeName, AmbiguousPath):
        return
    assert made == path


@given(st.lists(texts, min_size=4, max_size=4), st.integers(0))
def test_no_value_leads_out_of_the_root(values: list[str], number: int) -> None:
    """A path that is made is relative, without `..`, and as deep as its template."""
    project, experiment, run, split = values
    try:
        path = Layout(predictions=PREDICTIONS).path(
            "predictions", project=project, experiment=experiment, run=run, split=split, number=number
        )
    except (UnsafeName, AmbiguousPath):
        return
    assert len(PurePosixPath(path).parts) == 5
    assert not PurePosixPath(path).is_absolute()
    assert ".." not in PurePosixPath(path).parts


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        "/",
        "a/b",
        "a\\b",
        "a\0b",
        "\ud800",
        "a\n",
        "C:",
        "*",
        "x" * 201,
        "e\u0301",
        "COM¹",
        "conout$.txt",
    ],
)
@pytest.mark.parametrize("field", ["project", "experiment", "run", "split"])
def test_a_value_that_is_not_one_name_is_refused(field: str, value: str) -> None:
    """By the name of its field."""
    values: dict[str, str | int] = dict.fromkeys(["project", "experiment", "run", "split"], "a")
    with pytest.raises(UnsafeName, match=f"{field}="):
        Layout(predictions=PREDICTIONS).path("predictions", **{**values, "number": 1, field: value})


@pytest.mark.parametrize("number", [-1, 1.0, True, "1", None])
def test_a_number_is_a_whole_number(number: object) -> None:
    """Anything else would be another file than it seems."""
    with pytest.raises(UnsafeName, match="number="):
        Layout(a="{number}").path("a", number=number)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, 1.5, True, b"a"])
def test_a_value_is_a_text_or_a_whole_number(value: object) -> None:
    """`None` in a path is a mistake that nobody would see."""
    with pytest.raises(UnsafeName, match="seed="):
        Layout(a="{seed}/x").path("a", seed=value)  # type: ignore[arg-type]
    assert Layout(a="{seed}/x").path("a", seed=3) == "3/x"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("/a/{number}", "does not make paths"),
        ("../{number}", "does not make paths"),
        ("a/../{number}", "does not make paths"),
        ("a//{number}", "does not make paths"),
        ("a/{number}/", "does not make paths"),
        ("", "does not make paths"),
        ("C:/{number}", "does not make paths"),
        ("a\\{number}", "does not make paths"),
        (".torchsystem/{number}", "does not make paths"),
        ("{a!r}/x", "conversion"),
        ("{kind!s}/x", "conversion"),
        ("{a:>10}/x", "read again"),
        ("{number:d}/x", "read again"),
        ("{number:4}/x", "read again"),
        ("{a.b}/x", "name of a field"),
        ("{a[0]}/x", "name of a field"),
        ("{}/x", "name of a field"),
        ("{0}/x", "name of a field"),
        ("{sha256}/x", "name of a field"),
        ("{a}{b}/x", "nothing between"),
        ("{a}/{a}", "more than once"),
        ("{a", "no template"),
        ("a}", "no template"),
    ],
)
def test_a_template_that_makes_no_readable_relative_paths_is_refused(template: str, why: str) -> None:
    """When it is declared, and not when something is to be written after hours of training."""
    with pytest.raises(InvalidTemplate, match=why):
        Layout().declare("kind", template)


def test_a_path_that_is_written_in_another_way_is_of_no_kind() -> None:
    """`007` is not how the seventh is written, so that each artefact has one path."""
    layout = Layout(a="{run}_{number}", b="{run}/{number:03d}")
    assert layout.parse("x_007") is None
    assert layout.parse("x/7") is None
    assert layout.parse("x/0007") is None
    assert layout.parse("x/007") == ("b", {"run": "x", "number": 7})


def test_a_kind_is_declared_once() -> None:
    """Neither the same kind again, nor another at the same place."""
    layout = Layout(a="{run}/a_{number}")
    with pytest.raises(DuplicateKind, match="declared already"):
        layout.declare("a", "{run}/other_{number}")
    with pytest.raises(DuplicateKind, match="where 'a' does"):
        layout.declare("b", "{experiment}/a_{number}")
    assert list(layout) == ["a"]


def test_a_path_that_two_kinds_would_have_is_refused() -> None:
    """One of them would be found, and cleaned up, as the other."""
    layout = Layout(notes="{run}/{name}.json", config="{run}/config.json")
    assert layout.path("notes", run="a", name="today") == "a/today.json"
    for kind, values in {"notes": {"run": "a", "name": "config"}, "config": {"run": "a"}}.items():
        with pytest.raises(AmbiguousPath, match="of kind"):
            layout.path(kind, **values)


def test_values_that_run_into_one_another_are_refused() -> None:
    """`a_b` and `c` would make the path of `a` and `b_c`."""
    layout = Layout(pairs="{left}_{right}")
    paths = set()
    for left, right in combinations(["a", "b", "c"], 2):
        paths.add(layout.path("pairs", left=left, right=right))
    assert len(paths) == 3
    with pytest.raises(AmbiguousPath, match="other values"):
        layout.path("pairs", left="a", right="b_c")


def test_missing_and_unknown_values_are_named() -> None:
    """Both, with the template."""
    with pytest.raises(UnfilledTemplate, match=r"\['run'\] missing and \['rum'\] unknown"):
        Layout(a="{run}/x").path("a", rum="first")


def test_an_unknown_kind_says_what_is_near() -> None:
    """A misspelled kind is a `KeyError` that helps."""
    with pytest.raises(UnknownKind, match="Did you mean 'predictions'"):
        Layout(predictions=PREDICTIONS).path("prediction")
    assert issubclass(UnknownKind, KeyError)


def test_the_kind_is_text_of_its_template() -> None:
    """`{kind}` need not be given, and its name is as safe as any."""
    assert Layout(plots="{run}/{kind}/{number:04d}.png").path("plots", run="a", number=12345) == "a/plots/12345.png"
    with pytest.raises(UnsafeName, match="kind="):
        Layout().declare("../x", "{kind}/x")


def test_the_folder_of_some_values_holds_all_that_have_them() -> None:
    """As deep as the values reach without a gap."""
    template = Layout(predictions=PREDICTIONS).template("predictions")
    assert template.folder({}) == ""
    assert template.folder({"project": "p", "run": "r"}) == "p"
    assert template.folder({"project": "p", "experiment": "e", "run": "r"}) == "p/e/r/predictions"


@given(st.text(max_size=12) | st.text(alphabet="./\\a~", max_size=12))
def test_a_key_is_relative_and_made_of_segments(key: str) -> None:
    """Whatever is not is refused, and so is what belongs to the store."""
    try:
        checked = check_key(key)
    except UnsafeName:
        return
    assert checked == key
    assert all(is_segment(part) and part not in {".", ".."} for part in PurePosixPath(key).parts)
    assert PurePosixPath(key).as_posix() == key
    with pytest.raises(UnsafeName, match="its own"):
        check_key(f".TorchSystem/{key}")
