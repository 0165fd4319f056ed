"""What `Optimization` promises of steps, accumulation and clipping, one rule per test."""

from __future__ import annotations

import copy
import cProfile
import pickle
import pstats
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn, optim
from torch.utils._python_dispatch import TorchDispatchMode

from torchsystem.errors import FrozenOptimizer, InvalidLoss, UnknownOptimizer
from torchsystem.training.optimization import Optimization

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))
Y = torch.arange(24) % 3


def network(seed: int = 0) -> nn.Module:
    """Make a small classifier."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def loss_of(model: nn.Module, batch: int) -> Tensor:
    """Compute the loss of a batch of two samples."""
    start = 2 * batch % len(X)
    return nn.functional.cross_entropy(model(X[start : start + 2]), Y[start : start + 2])


def weights(model: nn.Module) -> Tensor:
    """Return all weights in one row."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def by_hand(  # noqa: PLR0913 - the options of the loop that everybody writes
    model: nn.Module,
    optimizer: optim.Optimizer,
    groups: Sequence[int],
    *,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    loss: Callable[[nn.Module, int], Tensor] = loss_of,
) -> None:
    """Train as everybody writes it: so many losses for each step."""
    batch = 0
    for size in groups:
        optimizer.zero_grad()
        for _ in range(size):
            (loss(model, batch) / size).backward()
            batch += 1
        if clip_value is not None:
            nn.utils.clip_grad_value_(model.parameters(), clip_value)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()


def sgd(model: nn.Module, lr: float = 0.1) -> optim.Optimizer:
    """Make the optimizer of most tests."""
    return optim.SGD(model.parameters(), lr=lr, momentum=0.9)


class Ours(optim.SGD):
    """An optimizer with a `zero_grad` of its own."""

    cleared = 0

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - as torch has it
        self.cleared += 1
        super().zero_grad(set_to_none)


class Reads(TorchDispatchMode):
    """Count how often a value is read from a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default  # noqa: SLF001 - the name of the operator
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "make",
    [
        sgd,
        lambda model: optim.Adam(model.parameters(), lr=0.01),
        lambda model: optim.AdamW(model.parameters(), lr=0.01, foreach=True),
        lambda model: Ours(model.parameters(), lr=0.1),
    ],
    ids=["sgd", "adam", "foreach", "own"],
)
def test_a_plain_step_is_the_hand_written_one(make: Any) -> None:
    """Backward, step, zero: the weights are the same, bit by bit, and no gradient is left."""
    theirs, ours = network(), network()
    by_hand(theirs, make(theirs), [1] * 12)
    optimization = Optimization(make(ours))
    for batch in range(12):
        optimization.step(loss_of(ours, batch))
        assert all(parameter.grad is None for parameter in ours.parameters())
    assert torch.equal(weights(ours), weights(theirs))
    assert optimization.steps == 12


def test_a_plain_step_costs_two_calls_more() -> None:
    """`step` and what it forgets the gradients with, over a loop that sets them to None itself."""
    model = network()
    optimizer = sgd(model)
    optimization = Optimization(optimizer)

    def hand_written(loss: Tensor) -> None:
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def calls(step: Callable[[Tensor], None]) -> int:
        loss = loss_of(model, 0)
        with cProfile.Profile() as profile:
            step(loss)
        return pstats.Stats(profile).total_calls  # type: ignore[attr-defined]

    calls(hand_written)
    assert calls(optimization.step) <= calls(hand_written) + 1  # which is itself a call, as `fit` would be


def test_a_zero_grad_of_ones_own_is_called() -> None:
    """Elsewhere gradients are set to None, which says nothing to the profiler."""
    model = network()
    optimizer = Ours(model.parameters(), lr=0.1)
    Optimization(optimizer).step(loss_of(model, 0))
    assert optimizer.cleared == 1


@pytest.mark.parametrize("precision", [None, "bf16"])
def test_no_device_value_is_read(precision: Any) -> None:
    """Not in a plain step, nor with everything on."""
    model = network()
    plain = Optimization(sgd(model))
    optimizer = sgd(model)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 2)
    everything = Optimization(
        optimizer, scheduler, accumulate=2, clip_norm=1.0, clip_value=0.5, warmup=3, per="step", precision=precision
    )
    everything.listen(lambda *_: None, lambda *_: None)
    with Reads() as reads:
        for optimization in (plain, everything):
            optimization.begin(5)
            for batch in range(5):
                with optimization.autocast():
                    loss = loss_of(model, batch)
                optimization.step(loss)
            optimization.begin()
            optimization.step(loss_of(model, 0))
            optimization.finish()
            optimization.epoch_ended({})
    assert reads.count == 0
    with Reads() as reads:
        loss_of(model, 0).item()
    assert reads.count == 1


# Accumulation


def groups_of(batches: int, accumulate: int) -> list[int]:
    """Say how many losses each step is made of."""
    full, rest = divmod(batches, accumulate)
    return [accumulate] * full + [rest] * (rest > 0)


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize(("batches", "accumulate"), [(6, 2), (7, 3), (5, 4), (3, 8), (8, 3)])
def test_accumulated_steps_are_the_hand_written_ones(batches: int, accumulate: int, announced: bool) -> None:  # noqa: FBT001
    """Each of the mean of its group, the incomplete last one too; corrected afterwards if its size was not known."""
    theirs, ours = network(), network()
    by_hand(theirs, sgd(theirs), groups_of(batches, accumulate))
    optimization = Optimization(sgd(ours), accumulate=accumulate)
    optimization.begin(batches if announced else None)
    for batch in range(batches):
        optimization.step(loss_of(ours, batch))
    assert announced == (optimization.steps == len(groups_of(batches, accumulate))) or batches % accumulate == 0
    optimization.finish()
    assert optimization.steps == len(groups_of(batches, accumulate))
    if announced:
        assert torch.equal(weights(ours), weights(theirs))
    torch.testing.assert_close(weights(ours), weights(theirs))


@settings(max_examples=60)
@given(
    accumulate=st.integers(1, 5),
    epochs=st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["known", "unknown", "wrong"]), st.booleans())),
)
def test_steps_are_counted_as_a_simple_model_counts(accumulate: int, epochs: list[tuple[int, str, bool]]) -> None:
    """A step per full group, and one for the rest of an epoch; and each is of the mean of its losses."""
    parameter = nn.Parameter(torch.zeros(()))
    optimization = Optimization(optim.SGD([parameter], lr=1.0), accumulate=accumulate)
    heard: list[tuple[int, bool]] = []
    optimization.listen(on_gradients=lambda _, index, steps: heard.append((index, steps)))
    value, steps, group, expected = 0.0, 0, list[float](), list[tuple[int, bool]]()
    for epoch, (batches, known, finishes) in enumerate(epochs):
        left = {"known": batches, "unknown": None, "wrong": 2}[known]
        optimization.begin(left)
        size = accumulate
        for batch in range(batches):
            slope = float(epoch + batch % 3)
            optimization.step(parameter * slope)
            if not group:
                rest = 0 if left is None else left - batch
                size = min(accumulate, rest) if rest > 0 else accumulate
            group.append(slope)
            full = len(group) == size
            expected.append((len(group) - 1, full))
            if full:
                value, steps, group = value - sum(group) / len(group), steps + 1, []
        optimization.finish()
        if group:
            value, steps, group = value - sum(group) / len(group), steps + 1, []
        if finishes:
            optimization.finish()  # once more, with nothing to do
    assert heard == expected
    assert optimization.steps == steps
    assert parameter.item() == pytest.approx(value, rel=1e-4, abs=1e-4)


def test_a_group_goes_on_in_the_next_epoch_if_nobody_finishes_this_one() -> None:
    """What was computed is not thrown away."""
    model = network()
    optimization = Optimization(sgd(model), accumulate=2)
    for _ in range(2):
        optimization.begin()
        optimization.step(loss_of(model, 0))
    assert optimization.steps == 1


def test_gradients_of_others_are_forgotten_when_an_epoch_begins() -> None:
    """A backward pass that somebody made for a look at it is no part of the first step."""
    theirs, ours = network(), network()
    by_hand(theirs, sgd(theirs), [1])
    loss_of(ours, 3).backward()  # type: ignore[no-untyped-call]
    optimization = Optimization(sgd(ours))
    optimization.begin()
    optimization.step(loss_of(ours, 0))
    assert torch.equal(weights(ours), weights(theirs))


# Clipping


@pytest.mark.parametrize("bounds", [{"clip_norm": 0.1}, {"clip_value": 0.01}, {"clip_norm": 0.05, "clip_value": 0.02}])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_gradients_are_clipped_once_per_step(accumulate: int, bounds: dict[str, float]) -> None:
    """Those of the whole group, values before norm."""
    theirs, ours = network(), network()
    by_hand(theirs, sgd(theirs), groups_of(8, accumulate), **bounds)
    optimization = Optimization(sgd(ours), accumulate=accumulate, **bounds)  # type: ignore[arg-type]
    optimization.begin(8)
    for batch in range(8):
        optimization.step(loss_of(ours, batch))
    assert torch.equal(weights(ours), weights(theirs))


def test_each_optimizer_is_clipped_by_itself() -> None:
    """A large gradient of one does not shrink that of another; what is not named is not clipped."""
    parts = {name: nn.Parameter(torch.zeros(1)) for name in ("first", "second", "third")}
    optimizers = {name: optim.SGD([parameter], lr=1.0) for name, parameter in parts.items()}
    optimization = Optimization(optimizers, clip_norm={"first": 1.0, "second": 2.0})
    optimization.step(-(parts["first"] * 100 + parts["second"] + parts["third"] * 50).sum())
    assert [round(parameter.item(), 3) for parameter in parts.values()] == [1.0, 1.0, 50.0]


# Several optimizers


def adversaries(**options: Any) -> tuple[nn.Module, nn.Module, Optimization]:
    """Make a generator, a discriminator, and what moves them."""
    torch.manual_seed(0)
    generator, discriminator = nn.Linear(2, 2), nn.Linear(2, 1)
    optimizers = {"generator": sgd(generator), "discriminator": sgd(discriminator)}
    return generator, discriminator, Optimization(optimizers, **options)


def losses_of(generator: nn.Module, discriminator: nn.Module, batch: int) -> dict[str, Tensor]:
    """Compute the losses of both, which share the graph of the generator and of the discriminator."""
    judged = discriminator(generator(X[batch : batch + 2, :2]))
    return {"generator": -judged.mean(), "discriminator": judged.square().mean()}


def adversaries_by_hand(groups: Sequence[int]) -> tuple[nn.Module, nn.Module]:
    """Train both as everybody would: gradients of each loss for its own parameters alone, then the steps."""
    torch.manual_seed(0)
    generator, discriminator = nn.Linear(2, 2), nn.Linear(2, 1)
    modules = {"generator": generator, "discriminator": discriminator}
    optimizers = {name: sgd(module) for name, module in modules.items()}
    batch = 0
    for size in groups:
        for _ in range(size):
            losses = losses_of(generator, discriminator, batch)
            for name, module in modules.items():
                own = list(module.parameters())
                gradients = torch.autograd.grad(losses[name] / size, own, retain_graph=True)
                for parameter, gradient in zip(own, gradients, strict=True):
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            batch += 1
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
    return generator, discriminator


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("spelling", ["mapping", "keywords", "reversed"])
def test_a_loss_moves_the_parameters_of_its_own_optimizer_alone(spelling: str, accumulate: int) -> None:
    """Though the graphs are shared; in any order, since names travel with values, and no step comes in between."""
    theirs = adversaries_by_hand(groups_of(5, accumulate))
    generator, discriminator, optimization = adversaries(accumulate=accumulate)
    optimization.begin(5)
    for batch in range(5):
        losses = losses_of(generator, discriminator, batch)
        if spelling == "keywords":
            optimization.step(**losses)
        else:
            optimization.step(losses if spelling == "mapping" else dict(reversed(losses.items())))
    for ours, other in zip((generator, discriminator), theirs, strict=True):
        assert torch.equal(weights(ours), weights(other))


def test_a_loss_without_a_name_is_for_all_and_is_back_propagated_once() -> None:
    """Two optimizers for two parts of one network are one step."""
    theirs, ours = network(), network()
    by_hand(theirs, sgd(theirs), [1] * 6)
    body, head = ours[0], ours[2]  # type: ignore[index]
    optimization = Optimization({"body": sgd(body), "head": sgd(head)})
    passes = 0

    def count(_: Tensor) -> None:
        nonlocal passes
        passes += 1

    for batch in range(6):
        loss = loss_of(ours, batch)
        loss.register_hook(count)
        optimization.step(loss)
    assert torch.equal(weights(ours), weights(theirs))
    assert (passes, optimization.steps) == (6, 12)


def test_only_the_optimizers_that_are_given_a_loss_move() -> None:
    """So that one may learn more often than another, each with groups of its own."""
    generator, discriminator, optimization = adversaries(accumulate=2)
    before = weights(generator)
    heard: list[tuple[str, int, bool]] = []
    optimization.listen(on_gradients=lambda *fact: heard.append(fact))
    for batch in range(3):
        optimization.step(discriminator=losses_of(generator, discriminator, batch)["discriminator"])
    optimization.step(generator=losses_of(generator, discriminator, 3)["generator"])
    assert torch.equal(weights(generator), before)
    assert heard == [
        ("discriminator", 0, False),
        ("discriminator", 1, True),
        ("discriminator", 0, False),
        ("generator", 0, False),
    ]
    optimization.finish()
    assert not torch.equal(weights(generator), before)
    assert optimization.steps == 3


def test_losses_are_stepped_on_one_after_the_other_if_asked() -> None:
    """Each backward pass comes before any step, unless the optimization is sequential."""

    def order(*, sequential: bool) -> list[str]:
        generator, discriminator, optimization = adversaries(sequential=sequential)
        heard: list[str] = []
        optimization.listen(lambda name, *_: heard.append(f"{name} back"), lambda name: heard.append(f"{name} step"))
        optimization.step(generator=generator(X[:2, :2]).mean(), discriminator=discriminator(X[:2, :2]).mean())
        return heard

    assert order(sequential=False) == ["generator back", "discriminator back", "generator step", "discriminator step"]
    assert order(sequential=True) == ["generator back", "generator step", "discriminator back", "discriminator step"]


def test_optimizers_with_a_common_parameter_step_one_after_the_other() -> None:
    """Each on the gradient of its own loss."""
    shared = nn.Parameter(torch.zeros(1))
    optimization = Optimization(
        {"slow": optim.SGD([shared], lr=0.1), "fast": optim.SGD([shared], lr=1.0)}, sequential=True
    )
    optimization.step(slow=(shared * 1).sum(), fast=(shared * 2).sum())
    assert shared.item() == pytest.approx(-2.1)


# Mistakes


def test_a_loss_for_an_unknown_optimizer_says_what_is_near() -> None:
    """And nothing has moved."""
    generator, discriminator, optimization = adversaries()
    losses = losses_of(generator, discriminator, 0)
    with pytest.raises(UnknownOptimizer, match=r"no optimizer 'generatr'\. Did you mean 'generator'\?"):
        optimization.step(generatr=losses["generator"], discriminator=losses["discriminator"])
    assert all(parameter.grad is None for parameter in generator.parameters())


def mistaken(optimization: Optimization, loss: Tensor) -> Iterator[Callable[[], None]]:
    """Yield ways to call `step` that mean nothing."""
    yield optimization.step
    yield lambda: optimization.step({})
    yield lambda: optimization.step(0.5)  # type: ignore[arg-type]
    yield lambda: optimization.step(loss, generator=loss)
    yield lambda: optimization.step({"generator": loss}, discriminator=loss)
    yield lambda: optimization.step(generator=0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("several", [True, False])
def test_what_is_no_loss_is_refused(several: bool) -> None:  # noqa: FBT001
    """With what to write instead."""
    generator, discriminator, both = adversaries()
    loss = losses_of(generator, discriminator, 0)["generator"]
    for call in mistaken(both if several else Optimization({"generator": sgd(generator)}), loss):
        with pytest.raises(InvalidLoss, match="step"):
            call()


def test_a_loss_of_another_optimizer_is_refused() -> None:
    """Names that were swapped would teach nobody anything, in silence."""
    generator, discriminator, optimization = adversaries()
    alone = discriminator(X[:2, :2]).mean()
    with pytest.raises(InvalidLoss, match="'generator' depends on none of its parameters"):
        optimization.step(generator=alone)
    assert weights(generator).isfinite().all()


def test_a_loss_for_frozen_parameters_is_refused() -> None:
    """Nothing could come of it."""
    generator, discriminator, optimization = adversaries()
    discriminator.requires_grad_(requires_grad=False)
    losses = losses_of(generator, discriminator, 0)
    with pytest.raises(FrozenOptimizer, match="'discriminator'"):
        optimization.step(discriminator=losses["discriminator"])
    optimization.step(generator=losses["generator"])
    assert optimization.steps == 1


# Listeners


def test_listeners_hear_where_things_happen() -> None:
    """Gradients after each backward pass and before clipping; a step after it, before its gradients are cleared."""
    parameter = nn.Parameter(torch.zeros(()))
    optimization = Optimization(optim.SGD([parameter], lr=1.0), accumulate=2, clip_norm=1.0)
    heard: list[tuple[Any, ...]] = []

    def state() -> tuple[float, float]:
        assert parameter.grad is not None
        return round(parameter.item(), 3), round(parameter.grad.item(), 3)

    optimization.listen(lambda *fact: heard.append((*fact, *state())), lambda *fact: heard.append((*fact, *state())))
    for _ in range(2):
        optimization.step(parameter * 4)
    optimization.listen()
    optimization.step(parameter * 4)
    assert heard == [("optimizer", 0, False, 0, 2), ("optimizer", 1, True, 0, 4), ("optimizer", -1, 1)]


def test_a_listener_that_fails_leaves_everything_in_order() -> None:
    """The step is made and counted, and its gradients are gone."""
    model = network()
    optimization = Optimization(sgd(model))

    def fail(_: str) -> None:
        raise StopIteration

    optimization.listen(on_step=fail)
    with pytest.raises(StopIteration):
        optimization.step(loss_of(model, 0))
    assert optimization.steps == 1
    assert all(parameter.grad is None for parameter in model.parameters())


def pickled(value: Any) -> Any:
    """Send something through a pickle."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_copies_have_no_listeners_and_train_as_the_original(copied: Any) -> None:
    """Also those made in the midst of a group, whose gradients go with them."""
    original = network()
    optimizer = sgd(original)
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimization = Optimization(optimizer, scheduler, accumulate=3)
    heard: list[str] = []
    optimization.listen(on_step=lambda name: heard.append(name))  # noqa: PLW0108 - which no pickle can hold
    for batch in range(4):
        optimization.step(loss_of(original, batch))
    assert heard == ["optimizer"]
    model, twin = copied((original, optimization))
    for trained, by in ((original, optimization), (model, twin)):
        for batch in range(4, 9):
            by.step(loss_of(trained, batch))
        by.epoch_ended()
    assert heard == ["optimizer"] * 3
    assert torch.equal(weights(model), weights(original))
    assert twin.learning_rates == optimization.learning_rates == {"optimizer": [0.05]}
