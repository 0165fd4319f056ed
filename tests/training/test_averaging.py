"""Averages of weights: the formula, bit by bit, when it is applied, and that it leaves no trace."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, optim
from torch.amp import GradScaler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode

from tests.training.fakes import loader
from torchsystem import Aggregate
from torchsystem.compiler import compile  # noqa: A004 - it is what torch calls it
from torchsystem.errors import AveragedWeights, InvalidAverage
from torchsystem.training import Optimization, Training, device
from torchsystem.training.averaging import WeightAverage


class Averaged(Aggregate):
    """A network with a batch normalization, an optimization, and an average."""

    def __init__(
        self,
        *,
        average: Mapping[str, Any] | None = None,
        dtype: torch.dtype = torch.float32,
        fused: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.nn = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).to(dtype)
        self.criterion = nn.CrossEntropyLoss()
        optimizer = optim.SGD(self.nn.parameters(), lr=0.5, momentum=0 if fused else 0.9, fused=fused)
        self.optimization = Optimization(optimizer, **options)
        self.average = WeightAverage(self.nn, optimizer, **(average or {"decay": 0.9}))
        self.evaluated: list[Tensor] = []

    def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        predictions = self.nn(inputs)
        loss = self.criterion(predictions, targets)
        self.optimization.step(loss)
        return predictions.detach(), loss.detach()

    def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        self.evaluated.append(self.nn[0].weight.detach().clone())
        predictions = self.nn(inputs)
        return predictions, self.criterion(predictions, targets)


def training() -> Training:
    """Make a training on the CPU."""
    made = Training()
    made.override(device, lambda: "cpu")
    return made


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Copy the whole state of a module."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: Any, other: Any) -> bool:
    """Compare two states bit by bit."""
    if isinstance(one, Tensor):
        integers = (part.contiguous().view(torch.uint8) if part.ndim else part.reshape(1) for part in (one, other))
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*integers)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def averages(model: Averaged) -> dict[str, Tensor]:
    """Copy the averages, by name."""
    return {name: value.clone() for name, value in model.average.state_dict()["averages"].items()}


@given(
    st.sampled_from([0.0, 0.3, 0.9, 0.999]),
    st.booleans(),
    st.sampled_from(["keep", "average"]),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 12),
)
def test_an_average_is_the_hand_written_one(
    decay: float,
    warmup: bool,  # noqa: FBT001 - hypothesis gives it
    buffers: str,
    dtype: torch.dtype,
    steps: int,
) -> None:
    """Bit by bit, for every decay, with and without warm-up, of weights and of buffers."""
    model = Averaged(average={"decay": decay, "warmup": warmup, "buffers": buffers}, dtype=dtype)
    kept = dict(model.nn.named_parameters())
    if buffers == "average":
        kept |= {name: buffer for name, buffer in model.nn.named_buffers() if buffer.is_floating_point()}
    expected = {name: value.detach().clone() for name, value in kept.items()}
    for step, (inputs, targets) in enumerate(loader(steps), start=1):
        model.fit(inputs.to(dtype), targets)
        rate = min(decay, (1 + step) / (10 + step)) if warmup else decay
        for name, value in expected.items():
            value.lerp_(kept[name].detach(), 1 - rate)
    assert model.average.steps == steps
    assert same(averages(model), expected)


def test_an_average_is_that_of_torch() -> None:
    """`AveragedModel` makes the same of the same weights, from its second update on; its first takes them over."""
    model = Averaged()
    theirs = AveragedModel(model.nn, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(model.nn)
    for batch in loader(9):
        model.fit(*batch)
        theirs.update_parameters(model.nn)
    assert same(averages(model), {name: value.detach() for name, value in theirs.module.named_parameters()})


@given(st.integers(1, 4), st.integers(0, 9))
def test_only_real_steps_count(accumulate: int, batches: int) -> None:
    """Losses that are accumulated for a step do not; the last, smaller group does."""
    model = Averaged(accumulate=accumulate)
    training().handle("fit", model, {"train": loader(batches)}, epochs=1) if batches else None
    assert model.average.steps == model.optimization.steps == -(-batches // accumulate)


def test_a_step_that_a_scaler_skips_does_not_count() -> None:
    """Neither where the optimizer is not called, nor where a fused one finds out by itself."""
    for fused in (False, True):
        model = Averaged(precision="fp16", scaler=GradScaler("cpu", init_scale=2.0**40), fused=fused)
        training().handle("fit", model, {"train": loader(60)}, epochs=1)
        assert 0 < model.average.steps == model.optimization.steps < 60


def test_of_several_optimizers_the_one_of_the_network_counts() -> None:
    """The steps of the others leave its average alone."""
    generator, discriminator = nn.Linear(1, 2), nn.Linear(2, 1)
    own = {"generator": optim.SGD(generator.parameters()), "discriminator": optim.SGD(discriminator.parameters())}
    optimization = Optimization(own)
    average = WeightAverage(generator, own["generator"], decay=0.9)
    for _ in range(3):
        optimization.step(discriminator=discriminator(generator(torch.ones(4, 1))).mean())
    assert average.steps == 0
    judged = discriminator(generator(torch.ones(4, 1))).mean()
    optimization.step(generator=-judged, discriminator=judged)
    assert average.steps == 1


def test_a_step_reads_nothing_and_costs_one_operation() -> None:
    """The average is moved by one operation for all weights."""

    class Calls(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append(func.__name__)
            return func(*args, **(kwargs or {}))

    model, calls = Averaged(), cast("list[str]", [])
    with Calls():
        model.average._stepped(*model.optimization.optimizers.values())  # noqa: SLF001 - the hook itself
    assert calls.count("_foreach_lerp_") == 1
    assert not {"item", "tolist", "cpu", "__bool__", "__float__", "copy_", "lerp_", "to"} & set(calls)


@pytest.mark.parametrize("buffers", ["keep", "average"])
@pytest.mark.parametrize("fails", [False, True])
def test_averages_are_in_place_for_a_block_and_leave_no_trace(*, fails: bool, buffers: str) -> None:
    """Bit by bit: weights that are no numbers, buffers that the block changed, optimizers, averages; on error too."""
    model = Averaged(average={"decay": 0.9, "buffers": buffers})
    for batch in loader(3):
        model.fit(*batch)
    with torch.no_grad():
        model.nn[2].bias[0] = float("nan")
        model.nn[2].bias[1] = -0.0
    before, inside = model.snapshot(), averages(model)
    identities = [id(tensor) for tensor in model.parameters()]
    addresses = [tensor.data_ptr() for tensor in model.parameters()]
    try:
        with model.average.applied():
            shown = dict(model.nn.named_parameters()) | dict(model.nn.named_buffers())
            assert same({name: shown[name].detach() for name in inside}, inside)
            assert not same(model.nn[0].weight.detach(), before["modules"]["nn.0.weight"])
            running = model.nn[1].running_mean
            assert same(running, before["modules"]["nn.1.running_mean"]) == (buffers == "keep")
            model.train()
            model.nn(torch.randn(4, 2))  # moves the running means
            if fails:
                raise ZeroDivisionError  # noqa: TRY301 - it is what leaves the block
    except ZeroDivisionError:
        assert fails
    assert same(model.snapshot(), before)
    assert identities == [id(tensor) for tensor in model.parameters()]
    assert addresses == [tensor.data_ptr() for tensor in model.parameters()]


def test_a_block_that_is_left_goes_on_training_as_if_nothing_had_happened() -> None:
    """Evaluating with averages between steps changes no later weight."""
    alone, looked = Averaged(), Averaged()
    for inputs, targets in loader(5):
        for model in (alone, looked):
            model.fit(inputs, targets)
        with looked.average.applied():
            looked.evaluate(inputs, targets)
            looked.nn[1].reset_running_stats()
    assert same(alone.snapshot(), looked.snapshot())


def test_what_needs_the_weights_of_the_training_is_refused_inside() -> None:
    """A snapshot would keep averages as weights, and a step would be lost: each says so."""
    model = Averaged()
    with model.average.applied():
        for refused in (
            model.snapshot,
            lambda: deepcopy(model),
            lambda: pickle.dumps(model),
            model.average.reset,
            lambda: model.fit(*loader(1)[0]),
            lambda: model.average.load_state_dict({}),
            lambda: model.average.applied().__enter__(),
        ):
            with pytest.raises(AveragedWeights, match="Leave the block"):
                refused()
        assert deepcopy(model.nn).state_dict().keys() == model.nn.state_dict().keys()
    model.fit(*loader(1)[0])
    assert model.average.steps == 1


def test_an_average_is_a_part_of_the_snapshot() -> None:
    """A run that is restored goes on with the same average, bit by bit; of the `state_dict` it is no part."""
    alone, cut = Averaged(), Averaged()
    batches = loader(6)
    for batch in batches[:3]:
        alone.fit(*batch)
        cut.fit(*batch)
    resumed = Averaged()
    resumed.fit(*batches[0])
    resumed.restore(cut.snapshot())
    for batch in batches[3:]:
        alone.fit(*batch)
        resumed.fit(*batch)
    assert resumed.average.steps == 6
    assert same(alone.snapshot(), resumed.snapshot())
    assert "average" in alone.snapshot()["parts"]
    assert not any("average" in name for name in alone.state_dict())


def test_the_state_of_another_network_is_refused() -> None:
    """By the names of what does not fit; nothing is changed."""
    model, other = Averaged(), nn.Linear(2, 2)
    state = WeightAverage(other, optim.SGD(other.parameters()), decay=0.5).state_dict()
    before = averages(model)
    with pytest.raises(InvalidAverage, match="bias"):
        model.average.load_state_dict(state)
    assert same(averages(model), before)


@pytest.mark.parametrize("copied", [deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deep", "pickle"])  # noqa: S301
def test_a_copy_goes_on_by_itself(copied: Any) -> None:
    """Its average follows its own optimizer, and that of the original is left alone; once per step."""
    model, batches = Averaged(), loader(6)
    for batch in batches[:3]:
        model.fit(*batch)
    twin = copied(model)
    before = model.snapshot()
    for batch in batches[3:]:
        twin.fit(*batch)
    assert same(model.snapshot(), before)
    assert twin.average.steps == 6
    for batch in batches[3:]:
        model.fit(*batch)
    assert same(model.snapshot(), twin.snapshot())


@pytest.mark.parametrize("step", [False, True], ids=["forward", "step"])
def test_a_compiled_aggregate_is_averaged(*, step: bool) -> None:
    """Compiling changes neither the count of steps nor a bit of the averages, and makes no graph per step."""
    eager, compiled = Averaged(), Averaged()
    compile(compiled, backend="eager", step=step)
    torch._dynamo.utils.counters.clear()  # noqa: SLF001 - where dynamo counts
    graphs = []
    for batch in loader(12):
        eager.fit(*batch)
        compiled.fit(*batch)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])  # noqa: SLF001
    assert graphs[0] > 0
    assert graphs[3] == graphs[-1]
    assert compiled.average.steps == 12
    assert same(eager.snapshot(), compiled.snapshot())
    batch = loader(1)[0]
    eager.phase = compiled.phase = "evaluation"
    with torch.no_grad(), eager.average.applied(), compiled.average.applied():
        assert same(eager.evaluate(*batch), compiled.evaluate(*batch))


def test_small_changes_of_small_types_are_not_lost() -> None:
    """The average of bfloat16 weights has 32 bits; applied, it is rounded, and the weights come back exactly."""
    network = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    nn.init.zeros_(network.weight)
    optimizer = optim.SGD(network.parameters(), lr=1.0)
    average = WeightAverage(network, optimizer, decay=0.999)
    with torch.no_grad():
        network.weight.fill_(1.0)
    network.weight.grad = torch.zeros_like(network.weight)
    for _ in range(700):
        optimizer.step()
    expected = 1 - 0.999**700
    assert average.state_dict()["averages"]["weight"].item() == pytest.approx(expected, rel=1e-4)
    with average.applied():
        assert network.weight.item() == pytest.approx(expected, rel=1e-2)
    assert network.weight.item() == 1.0


def test_a_network_that_has_got_other_weights_is_not_averaged_in_silence() -> None:
    """Where the average would be applied or kept, it is refused; `reset` begins anew."""
    model = Averaged()
    model.nn[2] = nn.Linear(3, 2)
    for asked in (model.average.state_dict, lambda: model.average.applied().__enter__()):
        with pytest.raises(InvalidAverage, match="other weights"):
            asked()
    model.average.reset()
    assert same(averages(model)["2.weight"], model.nn[2].weight.detach())


def test_an_average_without_meaning_is_refused() -> None:
    """When it is made."""
    network = nn.Linear(2, 2)
    optimizer, other = optim.SGD(network.parameters()), optim.SGD(nn.Linear(2, 2).parameters())
    for decay in (-0.1, 1.0, float("nan"), True):
        with pytest.raises(InvalidAverage, match="from 0 up to"):
            WeightAverage(network, optimizer, decay=decay)
    with pytest.raises(InvalidAverage, match="moves none"):
        WeightAverage(network, other, decay=0.9)
    with pytest.raises(InvalidAverage, match="no parameters"):
        WeightAverage(nn.ReLU(), optimizer, decay=0.9)
    with pytest.raises(InvalidAverage, match="'keep' or 'average'"):
        WeightAverage(network, optimizer, decay=0.9, buffers=cast("Any", "both"))


class Evaluating(Averaged):
    """Evaluates with its average."""

    def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with self.average.applied():
            return super().evaluate(inputs, targets)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_is_validated_with_averages(*, compiled: bool) -> None:
    """All splits but the one that learns; the training goes on as if nobody had looked."""
    model, plain = Evaluating(), Averaged()
    if compiled:
        compile(model, backend="eager")
    loaders = {"train": loader(3), "validation": loader(2), "test": loader(1)}
    history = training().handle("fit", model, loaders, epochs=2)
    training().handle("fit", plain, {"train": loader(3)}, epochs=1)
    assert all(same(shown, averages(plain)["0.weight"]) for shown in model.evaluated[:3])
    assert len(model.evaluated) == 6
    training().handle("fit", plain, {"train": loader(3)}, epochs=2)
    assert same(weights(model), weights(plain))
    assert same(averages(model), averages(plain))
    with plain.average.applied():
        expected = training().handle("validate", plain, loader(2))
    assert history[-1]["validation/loss"] == expected["loss"]


def test_a_run_is_kept_while_it_is_validated_with_averages() -> None:
    """Between two batches of any split, the weights of the training are where they belong."""
    kept: list[Any] = []

    class Kept(Evaluating):
        def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            kept.append(self.snapshot()["modules"])
            return super().evaluate(inputs, targets)

    model, plain = Kept(), Averaged()
    training().handle("fit", model, {"train": loader(3), "validation": loader(2)}, epochs=1)
    for batch in loader(3):
        plain.fit(*batch)
    assert len(kept) == 2
    assert all(same(modules, plain.snapshot()["modules"]) for modules in kept)


def test_a_run_that_fails_leaves_the_weights_of_the_training() -> None:
    """Where evaluating with averages fails, they are put back first."""

    class Failing(Averaged):
        def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            with self.average.applied():
                raise ZeroDivisionError(inputs, targets)

    model, plain = Failing(), Averaged()
    with pytest.raises(ZeroDivisionError):
        training().handle("fit", model, {"train": loader(3), "validation": loader(2)}, epochs=2)
    for batch in loader(3):
        plain.fit(*batch)
    assert same(weights(model), weights(plain))
    assert model.average.steps == 3
