"""Names of folders: safe on every system, and no two alike."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from torchsystem.errors import Unnameable
from torchsystem.storage.naming import RESERVED, folder_name


@given(st.text())
def test_a_name_never_leaves_its_folder(value: str) -> None:
    """Whatever the id is: one part of a path, on every system, and not hidden."""
    name = folder_name(value)
    assert PurePosixPath(name).parts == PureWindowsPath(name).parts == (name,)
    assert name not in ("", ".", "..")
    assert not name.startswith(".")
    assert not name.endswith((".", " "))
    assert not RESERVED.fullmatch(name)
    assert name.isascii()
    assert len(name) <= 100


@given(st.text(), st.text())
def test_no_two_ids_have_one_folder(one: str, other: str) -> None:
    """Names that are changed are told apart by a digest of what they were."""
    assume(one != other)
    assert folder_name(one) != folder_name(other)


@given(st.text())
def test_a_changed_name_is_nobody_elses(value: str) -> None:
    """A name with a digest is not the name of who is called like that."""
    name = folder_name(value)
    assert name == value or folder_name(name) != name


@pytest.mark.parametrize(
    "value", ["7e44661136354857c215f79df76bfa62", "baseline", "lr=1e-3", "123e4567-e89b-12d3-a456-426614174000"]
)
def test_a_safe_name_stands_as_it_is(value: str) -> None:
    """Hashes and words are found again by whoever looks into the folder."""
    assert folder_name(value) == value


@pytest.mark.parametrize(
    "value", ["../up", "/etc/passwd", "C:\\x", "a/b", "", ".", "..", "nul", "CON.txt", "a" * 300, "\0", "ü"]
)
def test_an_unsafe_name_is_changed(value: str) -> None:
    """And has a digest."""
    assert "~" in folder_name(value)


@pytest.mark.parametrize(
    ("one", "other"), [(7, "7"), (None, "None"), (True, 1), (UUID(int=1), str(UUID(int=1)))], ids=repr
)
def test_ids_of_other_types_are_told_apart(one: Any, other: Any) -> None:
    """Any value counts as an id."""
    assert folder_name(one) != folder_name(other)
    assert folder_name(one) == folder_name(one)


def test_an_id_that_means_nothing_tomorrow_is_refused() -> None:
    """Its `repr` is an address."""
    with pytest.raises(Unnameable, match="no other process"):
        folder_name(object())
