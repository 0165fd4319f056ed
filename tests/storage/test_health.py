"""What is not finite is never saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.storage.models import Learner, advance
from torchsystem.errors import NonFiniteState
from torchsystem.storage import Repository
from torchsystem.storage.health import check

NAN, INF = float("nan"), float("inf")


def in_state(learner: Learner) -> Tensor:
    """Return something that the optimizer keeps."""
    buffer: Tensor = learner.optimizer.state[learner.nn.weight]["momentum_buffer"]
    return buffer


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("where", ["weight", "optimizer"])
def test_a_state_that_is_not_finite_is_never_saved(tmp_path: Path, where: str, value: float, *, wait: bool) -> None:
    """It is named, and what was saved before is as it was."""
    learner = advance(Learner(), 1)
    repository = Repository(tmp_path)
    repository.save(learner)
    with torch.no_grad():
        (learner.nn.weight if where == "weight" else in_state(learner))[0, 0] = value
    name = {"weight": r"nn\.weight", "optimizer": r"optimizer\.state\.nn\.weight\.momentum_buffer"}[where]
    with pytest.raises(NonFiniteState, match=name) as caught:
        repository.save(learner, wait=wait)
        repository.flush()
    assert isinstance(caught.value, ArithmeticError)
    assert [checkpoint.number for checkpoint in repository.checkpoints(learner)] == [1]
    assert repository.restore(Learner()).epoch == 1
    repository.close()


def test_it_is_never_saved_even_where_a_run_goes_on_without(tmp_path: Path) -> None:
    """`on_failure="continue"` is about the disk."""
    learner = Learner()
    nn.init.constant_(learner.nn.weight, NAN)
    with Repository(tmp_path, on_failure="continue") as repository, pytest.raises(NonFiniteState):
        repository.save(learner)


def test_buffers_may_be_infinite(tmp_path: Path) -> None:
    """A mask of attention is; but nothing may be NaN."""
    module = nn.Linear(2, 2)
    module.register_buffer("mask", torch.tensor([0.0, -INF]))
    with Repository(tmp_path) as repository:
        repository.save(module)
        module.mask = torch.tensor([0.0, -INF, NAN])
        with pytest.raises(NonFiniteState, match=r"mask has values that are not finite .of 3, 1 are not a number"):
            repository.save(module)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.full((70_000,), 1.0, dtype=torch.float16),
        torch.tensor([3e38, 3e38]),
        torch.tensor([3e38, 3e38, -3e38, -3e38, -3e38]),
        torch.ones(2, dtype=torch.float8_e4m3fn),
        torch.ones(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        torch.tensor([1 + 1j]),
        torch.tensor([2**62, 2**62]),
        torch.empty(0),
    ],
    ids=[
        "many halves",
        "sums to infinity",
        "to and fro",
        "small type",
        "smallest type",
        "complex",
        "whole numbers",
        "empty",
    ],
)
def test_a_finite_state_is_never_taken_for_another(tensor: Tensor) -> None:
    """A sum that overflows is only a reason to look closer."""
    check({"modules": {"weight": tensor}, "parts": {}}, {"weight"})


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.float8_e5m2]
)
@pytest.mark.parametrize("value", [NAN, INF])
def test_one_value_is_enough_in_any_type(dtype: torch.dtype, value: float) -> None:
    """Wherever it stands among others."""
    tensor = torch.ones(1000)
    tensor[345] = value
    with pytest.raises(NonFiniteState, match=r"weight has values that are not finite .of"):
        check({"modules": {"weight": tensor.to(dtype)}, "parts": {}}, {"weight"})


def test_both_infinities_are_found() -> None:
    """Their sum is NaN, and they are no such thing in a buffer."""
    both = torch.tensor([INF, -INF])
    check({"modules": {"mask": both}, "parts": {}}, ())
    with pytest.raises(NonFiniteState, match="2 are infinite"):
        check({"modules": {"mask": both}, "parts": {}}, {"mask"})


def test_an_option_of_an_optimizer_that_is_nan_is_found() -> None:
    """A learning rate of NaN poisons the next step; an infinite one may be a bound."""
    part = {"state": {}, "param_groups": [{"lr": 0.1, "max": INF}]}
    check({"modules": {}, "parts": {"optimizer": part}}, ())
    part["param_groups"][0]["lr"] = NAN  # type: ignore[index]
    with pytest.raises(NonFiniteState, match=r"optimizer\.param_groups\.0\.lr is nan"):
        check({"modules": {}, "parts": {"optimizer": part}}, ())


def test_what_other_parts_remember_may_be_infinite(tmp_path: Path) -> None:
    """The best value so far is, before there is one."""
    learner = advance(Learner(), 1)
    vars(learner)["plateau"] = torch.optim.lr_scheduler.ReduceLROnPlateau(learner.optimizer)
    with Repository(tmp_path) as repository:
        repository.save(learner, run={"best": INF, "last": NAN})


@pytest.mark.parametrize(
    "around",
    [lambda state: {"inner": state}, lambda state: {"all": [{"steps": 1}, state]}],
    ids=["inside", "in a list"],
)
def test_an_optimizer_inside_of_something_else_is_looked_at(around: Callable[[Any], Any]) -> None:
    """A part may say its own state with that of its optimizers in it."""
    state = {"state": {"weight": {"exp_avg": torch.tensor([NAN])}}, "param_groups": []}
    with pytest.raises(NonFiniteState, match=r"pair\.(inner|all\.1)\.state\.weight\.exp_avg has values"):
        check({"modules": {}, "parts": {"pair": around(state)}}, set())


@pytest.mark.parametrize(
    "part",
    [
        {"last_epoch": 1, "_last_lr": [NAN]},
        {"last_epoch": 1, "_last_lr": [0.1], "_schedulers": [{"base_lrs": [NAN]}]},
        {"scale": NAN, "growth_factor": 2.0},
        {"steps": 1, "averages": {"weight": torch.tensor([NAN])}},
    ],
    ids=["rate", "inner schedule", "scale", "average"],
)
def test_what_would_poison_a_later_step_is_found(part: Any) -> None:
    """A schedule, the scale of losses, or an average of weights that is not a number."""
    with pytest.raises(NonFiniteState, match=r"other\..* (is nan|has values)"):
        check({"modules": {}, "parts": {"other": part}}, set())


def test_gradients_of_an_unfinished_group_may_overflow() -> None:
    """A scaler will leave their step out."""
    check({"modules": {}, "parts": {"descent": {"gradients": {"weight": torch.tensor([NAN, INF])}}}}, set())
