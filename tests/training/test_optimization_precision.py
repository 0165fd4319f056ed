"""What `Optimization` promises of mixed precision, one rule per test."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.amp import GradScaler

from torchsystem.errors import InvalidOptimization
from torchsystem.training.optimization import Optimization

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))


def network() -> nn.Module:
    """Make a small network, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


def weights(model: nn.Module) -> Tensor:
    """Return all weights in one row."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def sgd(model: nn.Module, **options: Any) -> optim.Optimizer:
    """Make the optimizer of most tests."""
    return optim.SGD(model.parameters(), lr=0.1, **options)


def loss_of(model: nn.Module) -> Tensor:
    """Compute a loss."""
    return (model(X) - 1).square().mean()


TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("surrounds", [True, False])
def test_mixed_precision_is_the_hand_written_one(precision: Any, surrounds: bool) -> None:  # noqa: FBT001
    """Forward inside autocast, backward outside, also where `step` is called inside; fp16 with a scaler."""
    theirs, ours = network(), network()
    optimizer, scaler = sgd(theirs), GradScaler("cpu", enabled=precision == "fp16")
    for _ in range(4):
        with torch.autocast("cpu", TYPES[precision]):
            loss = loss_of(theirs)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    optimization = Optimization(sgd(ours), precision=precision, clip_norm=0.5)
    assert (optimization.scaler is not None) == (precision == "fp16")
    for _ in range(4):
        with optimization.autocast():
            assert ours(X).dtype == TYPES[precision]
            loss = loss_of(ours)
            if surrounds:
                optimization.step(loss)
        if not surrounds:
            optimization.step(loss)
    assert torch.equal(weights(ours), weights(theirs))
    assert optimization.steps == (4 if precision == "bf16" else 2)  # the first two overflow under the default scale


@pytest.mark.parametrize("precision", [None, "fp32", torch.float32])
def test_full_precision_needs_no_autocast(precision: Any) -> None:
    """And no scaler."""
    model = network()
    optimization = Optimization(sgd(model), precision=precision)
    with optimization.autocast():
        assert model(X).dtype == torch.float32
    assert optimization.scaler is None


def test_backward_is_outside_of_autocast() -> None:
    """Where torch does not want it to be."""
    model = network()
    optimization = Optimization(sgd(model), precision="bf16")
    inside: list[bool] = []
    optimization.listen(on_gradients=lambda *_: inside.append(torch.is_autocast_enabled("cpu")))
    with optimization.autocast():
        optimization.step(loss_of(model))
        assert torch.is_autocast_enabled("cpu")
    assert inside == [False]


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"accumulate": 2}])
@pytest.mark.parametrize("several", [False, True])
def test_an_optimizer_that_no_loss_has_reached_is_stepped_as_without_a_scaler(
    several: bool,  # noqa: FBT001
    options: Any,
) -> None:
    """While its part is frozen, say: the scaler has nothing to say about it, and goes on when a loss reaches it."""

    def trained(precision: Any) -> tuple[int, Tensor, Tensor]:
        torch.manual_seed(0)
        model, other = network(), nn.Linear(4, 1)
        optimizers: Any = {"model": sgd(model), "other": sgd(other)} if several else sgd(other)
        optimization = Optimization(optimizers, precision=precision, **options)
        for reaches in (False, True, False, True):
            for _ in range(options.get("accumulate", 1)):
                optimization.step(loss_of(model) + (loss_of(other) if reaches else 0))
        return optimization.steps, weights(model), weights(other)

    (scaled, *ours), (plain, *expected) = trained("fp16"), trained(None)
    assert scaled == plain == (8 if several else 4)
    assert all(map(torch.allclose, ours, expected))


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}])
@pytest.mark.parametrize("fused", [False, True])
def test_a_skipped_step_is_no_step(fused: bool, options: Any) -> None:  # noqa: FBT001
    """It moves no weight, no schedule and no warm-up; it is not counted, and nobody hears of it."""
    model = network()
    optimizer = sgd(model, fused=fused)
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    scaler = GradScaler("cpu", init_scale=4.0)
    optimization = Optimization(optimizer, scheduler, scaler=scaler, per="step", warmup=2, **options)
    heard: list[str] = []
    optimization.listen(on_step=heard.append)
    before = weights(model)
    optimization.step(loss_of(model) * torch.inf)
    assert torch.equal(weights(model), before)
    assert (optimization.steps, heard, optimization.learning_rates) == (0, [], {"optimizer": [0.05]})
    assert all(parameter.grad is None for parameter in model.parameters())
    assert scaler.get_scale() == 2.0
    optimization.step(loss_of(model))
    assert not torch.equal(weights(model), before)
    assert (optimization.steps, heard, optimization.learning_rates) == (1, ["optimizer"], {"optimizer": [0.05]})


def test_listeners_and_clipping_see_unscaled_gradients() -> None:
    """Whatever the scale is."""
    parameter = nn.Parameter(torch.zeros(()))
    optimization = Optimization(
        optim.SGD([parameter], lr=1.0), scaler=GradScaler("cpu", init_scale=1024.0), clip_norm=1.0, accumulate=2
    )
    heard: list[float] = []

    def note(_name: str, _index: int, steps: bool) -> None:  # noqa: FBT001 - as it is called
        assert parameter.grad is not None
        heard.extend([parameter.grad.item()] * steps)

    optimization.listen(on_gradients=note)
    for _ in range(2):
        optimization.step(parameter * 4)
    assert heard == [4]
    assert parameter.item() == pytest.approx(-1)


@pytest.mark.parametrize("clip", [{}, {"clip_norm": 100.0}])
def test_an_incomplete_group_is_corrected_under_a_scaler_too(clip: Any) -> None:
    """The mean of three losses is the mean of three losses."""
    parameter = nn.Parameter(torch.zeros(()))
    optimizer = optim.SGD([parameter], lr=1.0)
    optimization = Optimization(optimizer, scaler=GradScaler("cpu"), accumulate=4, **clip)
    for slope in (1, 2, 3):
        optimization.step(parameter * slope)
    optimization.finish()
    assert parameter.item() == pytest.approx(-2)


def test_gradients_that_wait_follow_the_scale() -> None:
    """An optimizer may be in the midst of its group when the step of another changes the scale."""
    parts = {name: nn.Parameter(torch.zeros(())) for name in ("first", "second")}
    scaler = GradScaler("cpu", init_scale=8.0, growth_interval=1)
    optimizers = {name: optim.SGD([parameter], lr=1.0) for name, parameter in parts.items()}
    optimization = Optimization(optimizers, scaler=scaler, accumulate=2)
    optimization.step(second=parts["second"] * 2)
    for _ in range(4):
        optimization.step(first=parts["first"] * 1)
    assert scaler.get_scale() == 32.0
    optimization.step(second=parts["second"] * 4)
    assert [parameter.item() for parameter in parts.values()] == [-2.0, -3.0]


def test_a_scaler_that_is_off_is_no_scaler() -> None:
    """Nothing is scaled, and its empty state is kept."""
    theirs, ours = network(), network()
    Optimization(sgd(theirs)).step(loss_of(theirs))
    Optimization(sgd(ours), scaler=GradScaler("cpu", enabled=False)).step(loss_of(ours))
    assert torch.equal(weights(ours), weights(theirs))


def test_a_copy_scales_as_the_original() -> None:
    """Its scaler goes with it."""
    model = network()
    optimization = Optimization(sgd(model), scaler=GradScaler("cpu", init_scale=8.0, growth_interval=1))
    optimization.step(loss_of(model))
    twin_model, twin = copy.deepcopy((model, optimization))
    assert twin.scaler is not optimization.scaler
    for trained, by in ((model, optimization), (twin_model, twin)):
        by.step(loss_of(trained))
        assert by.scaler is not None
        assert by.scaler.get_scale() == 32.0
    assert torch.equal(weights(twin_model), weights(model))


@pytest.mark.parametrize("precision", ["half", torch.float64, "bfloat16"])
def test_an_unknown_precision_is_refused(precision: Any) -> None:
    """With those that there are."""
    with pytest.raises(InvalidOptimization, match="'bf16' or 'fp16'"):
        Optimization(sgd(network()), precision=precision)


def test_a_scaler_without_use_is_refused() -> None:
    """Gradients in bf16 do not vanish."""
    with pytest.raises(InvalidOptimization, match="Leave the scaler out"):
        Optimization(sgd(network()), precision="bf16", scaler=GradScaler("cpu"))
