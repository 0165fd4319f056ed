"""Names: one spelling for the outside world, and a hint for whoever misses it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchsystem.services.names import kebab


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("train", "train"),
        ("train_model", "train-model"),
        ("BatchEnded", "batch-ended"),
        ("HTTPRequest", "http-request"),
        ("ParseJSON", "parse-json"),
        ("fp16_scaled", "fp16-scaled"),
        ("_private__name_", "private-name"),
        ("train-model", "train-model"),
    ],
)
def test_names_are_spelled_in_kebab_case(name: str, spelled: str) -> None:
    """Words are told by underscores and by capitals; a run of capitals is one word."""
    assert kebab(name) == spelled


@given(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True))
def test_spelling_is_stable(name: str) -> None:
    """A name that is spelled already stays as it is: so either spelling may be used."""
    assert kebab(kebab(name)) == kebab(name)
