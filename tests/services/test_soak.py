"""A short version of the soak test; `python tests/services/soak.py` is the long one."""

from __future__ import annotations

from typing import get_args

import pytest

from tests.services.soak import Policy, soak


@pytest.mark.parametrize("policy", get_args(Policy))
def test_nothing_is_lost_in_the_background(policy: Policy) -> None:
    """Eight listeners that fail at random hear every event in order, and each failure is seen once."""
    assert soak(policy, 2000) == []
