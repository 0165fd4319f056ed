"""Searches: what they suggest, and that afterwards nothing has happened."""

from __future__ import annotations

import math
import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset

from tests.training.fakes import Learner, loader
from torchsystem import Aggregate
from torchsystem.compiler import compile  # noqa: A004 - it is what torch calls it
from torchsystem.errors import InvalidSearch, NoSuggestion, UnknownOptimizer
from torchsystem.training import Optimization, Training, device
from torchsystem.training.averaging import WeightAverage
from torchsystem.training.search import (
    BatchSizes,
    LearningRates,
    is_out_of_memory,
    tune_batch_size,
    tune_learning_rate,
)
from torchsystem.training.settings import Settings

few = hypothesis_settings(max_examples=10)  # each searches several times
CPU = Settings(torch.device("cpu"), None, {})


class Regression(Aggregate):
    """A linear regression with everything that has a state: dropout, an average, a warm-up, a schedule, events."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.nn = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))
        optimizer = optim.Adam(self.nn.parameters(), lr=0.01)
        scheduler = OneCycleLR(optimizer, max_lr=0.1, total_steps=20)
        self.optimization = Optimization(optimizer, scheduler, per="step", warmup=5, **options)
        self.average = WeightAverage(self.nn, optimizer, decay=0.9)
        self.seen = [0]

    def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        self.seen[0] += 1
        random.random()  # noqa: S311 - what draws from every generator
        np.random.rand()  # noqa: NPY002 - (the same)
        self.events.enqueue("fitted")
        self.events.commit()
        predictions = self.nn(inputs)
        loss = nn.functional.mse_loss(predictions, targets)
        self.optimization.step(loss)
        return predictions, loss

    def onphase(self) -> None:
        self.seen[0] += 1000


class Quadratic(Aggregate):
    """Half the square of weights: with plain steps, a rate above 2 diverges, and 1 is at the goal in one step."""

    def __init__(self, curvature: float = 1.0, optimizer: Callable[..., Any] | None = None, **options: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), 4.0))
        self.curvature = curvature
        given = optim.SGD([self.weight], lr=0.5) if optimizer is None else optimizer([self.weight])
        self.optimization = Optimization(given, **options)
        self.rates: list[float] = []

    def fit(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        loss = self.curvature / 2 * (self.weight * inputs).square().sum()
        self.rates.append(float(self.optimization.learning_rates["optimizer"][0]))
        self.optimization.step(loss)
        return inputs, loss


def data() -> TensorDataset:
    """Make data for a regression."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(32, 4, generator=generator)
    return TensorDataset(inputs, inputs.sum(1, keepdim=True))


def shuffled() -> DataLoader[Any]:
    """Make a loader with a generator of its own."""
    return DataLoader(data(), batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(5))


def ones(count: int = 1) -> list[tuple[Tensor]]:
    """Make batches for a quadratic."""
    return [(torch.ones(3),) for _ in range(count)]


def plain(value: Any) -> Any:
    """Turn a state into what can be compared, bit by bit."""
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.detach().numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def generators(own: DataLoader[Any]) -> Any:
    """Look at all generators of random numbers."""
    kept = np.random.get_state(legacy=False)  # noqa: NPY002 - the one in use
    state = {**kept, "state": {**kept["state"], "key": kept["state"]["key"].tolist()}}
    return random.getstate(), state, plain(torch.get_rng_state()), plain(own.generator.get_state())


SEARCHES: dict[str, Callable[[Aggregate, DataLoader[Any]], object]] = {
    "rate": lambda model, own: tune_learning_rate(model, own, lowest=1e-4, highest=1.0, steps=50, settings=CPU),
    "size": lambda model, _: tune_batch_size(model, data(), settings=CPU),
    "size by loader": lambda model, _: tune_batch_size(
        model, lambda size: DataLoader(data(), batch_size=size, shuffle=True), limit=16, settings=CPU
    ),
}


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_after_a_search_nothing_has_happened(search: str, accumulate: int) -> None:
    """Bit by bit: weights, optimizer, schedule, average, gradients, counters, all else; no random number is gone."""
    model, own, heard = Regression(accumulate=accumulate), shuffled(), []
    model.events.on(str)(heard.append)
    model.phase = "evaluation"
    model.phase = "train"
    for batch in list(own)[:2]:
        model.fit(*batch)
    model.phase = "evaluation"
    heard.clear()
    state, numbers = plain(model.snapshot()), generators(own)
    gradients = [part.grad for part in model.parameters()]
    copies, seen = plain([None if part is None else part.clone() for part in gradients]), list(model.seen)
    identities = [id(part) for part in model.parameters()]
    assert SEARCHES[search](model, own)
    assert plain(model.snapshot()) == state
    assert generators(own) == numbers
    assert all(part.grad is gradient for part, gradient in zip(model.parameters(), gradients, strict=True))
    assert plain(gradients) == copies
    assert model.seen == seen
    assert identities == [id(part) for part in model.parameters()]
    assert heard == []
    assert not model.events.queue
    assert model.phase == "evaluation"


@pytest.mark.parametrize("search", SEARCHES)
def test_a_run_after_a_search_is_the_run_without(search: str) -> None:
    """Shuffling, dropout and all: the same weights, bit by bit."""
    states = []
    for searches in (False, True):
        model, own = Regression(), shuffled()
        torch.manual_seed(1)
        if searches:
            SEARCHES[search](model, own)
        for batch in own:
            model.fit(*batch)
        states.append(plain(model.snapshot()))
    assert states[0] == states[1]


def test_a_search_that_fails_has_done_nothing_either() -> None:
    """The error goes on; weights and generators are what they were."""

    class Failing(Regression):
        def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            predictions, loss = super().fit(inputs, targets)
            if self.seen[0] > 3:
                raise ZeroDivisionError
            return predictions, loss

    for search in SEARCHES.values():
        model, own = Failing(), shuffled()
        state, numbers = plain(model.snapshot()), generators(own)
        with pytest.raises(ZeroDivisionError):
            search(model, own)
        assert plain(model.snapshot()) == state
        assert generators(own) == numbers


@few
@given(st.sampled_from([0.01, 1.0, 100.0]), st.sampled_from([0.0, 0.9]))
def test_a_rate_is_suggested_at_which_the_loss_falls(curvature: float, smoothing: float) -> None:
    """Of a quadratic whose best rate is known: below where it diverges, and within a factor of 30 of the best."""
    found = tune_learning_rate(
        Quadratic(curvature),
        ones(),
        lowest=1e-5 / curvature,
        highest=1e3 / curvature,
        smoothing=smoothing,
        settings=CPU,
    )
    assert 1 / 30 < found.suggestion * curvature < 2
    assert found.suggestion in found.rates


@few
@given(st.floats(1e-8, 1e-3), st.floats(1.5, 1e4), st.integers(10, 40))
def test_rates_rise_exponentially(lowest: float, factor: float, steps: int) -> None:
    """From the lowest to the highest, with one ratio; each step is made at its rate, warm-up or not."""
    seen: list[float] = []

    class Seen(Quadratic):
        def fit(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            self.rates = seen
            return super().fit(inputs)

    highest = lowest * factor
    rates = [lowest * factor ** (index / (steps - 1)) for index in range(steps)]
    found = tune_learning_rate(Seen(1e-3, warmup=7), ones(), lowest=lowest, highest=highest, steps=steps, settings=CPU)
    assert found.rates == pytest.approx(rates)
    assert seen == pytest.approx(rates)


def test_a_curve_is_the_hand_written_one() -> None:
    """Losses before each step, and their moving average without what it began with."""
    found = tune_learning_rate(Quadratic(), ones(), lowest=1e-3, highest=1.0, steps=20, smoothing=0.8, settings=CPU)
    weight, average = 4.0, 0.0
    for index, rate in enumerate(found.rates):
        loss = 3 * weight**2 / 2
        average = 0.8 * average + 0.2 * loss
        assert found.losses[index] == pytest.approx(loss, rel=1e-4)
        assert found.smoothed[index] == pytest.approx(average / (1 - 0.8 ** (index + 1)), rel=1e-4)
        weight -= rate * weight
    slopes = [
        (found.smoothed[index + 1] - found.smoothed[index - 1])
        / math.log(found.rates[index + 1] / found.rates[index - 1])
        for index in range(2, 19)
    ]
    assert found.suggestion == found.rates[2 + slopes.index(min(slopes))]


def test_a_test_ends_where_the_loss_has_risen_too_much() -> None:
    """Or where it is no number any more, which is no part of the curve."""
    found = tune_learning_rate(Quadratic(), ones(), lowest=1e-3, highest=1e6, steps=200, smoothing=0.0, settings=CPU)
    assert len(found.rates) == len(found.losses) == len(found.smoothed) < 200
    assert found.losses[-1] > 4 * min(found.losses)
    assert all(loss <= 4 * min(found.losses[: index + 1]) for index, loss in enumerate(found.losses[:-1]))

    class Overflowing(Quadratic):
        def fit(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            predictions, loss = super().fit(inputs)
            return predictions, loss if len(self.rates) < 30 else loss * float("inf")

    found = tune_learning_rate(Overflowing(), ones(), lowest=1e-3, highest=0.5, steps=50, settings=CPU)
    assert len(found.losses) == 29
    assert all(map(math.isfinite, found.losses))


@few
@given(st.integers(1, 4), st.integers(1, 5))
def test_a_rate_is_tried_in_one_real_step(accumulate: int, batches: int) -> None:
    """Whatever is accumulated for it, and however few batches the loader has: it is gone through again."""
    seen: list[float] = []

    class Seen(Quadratic):
        def fit(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            self.rates = seen
            return super().fit(inputs)

    found = tune_learning_rate(
        Seen(accumulate=accumulate), ones(batches), lowest=1e-3, highest=0.1, steps=12, settings=CPU
    )
    assert seen == pytest.approx([rate for rate in found.rates for _ in range(accumulate)])


def test_groups_keep_their_ratios_and_tensors_stay_tensors() -> None:
    """The rate is that of the first group."""
    seen: list[list[Any]] = []

    class Grouped(Learner):
        def __init__(self) -> None:
            super().__init__()
            groups = [
                {"params": [self.nn.weight], "lr": torch.tensor(0.1)},
                {"params": [self.nn.bias], "lr": 0.3},
            ]
            self.optimizer = optim.SGD(groups, lr=0.1)

        def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            seen.append([group["lr"] for group in self.optimizer.param_groups])
            assert isinstance(seen[-1][0], Tensor)
            seen[-1][0] = seen[-1][0].item()
            return super().fit(inputs, targets)

    model = Grouped()
    found = tune_learning_rate(model, loader(1), lowest=1e-3, highest=1.0, steps=20, settings=CPU)
    assert [first for first, _ in seen] == pytest.approx(found.rates)
    assert [second for _, second in seen] == pytest.approx([3 * rate for rate in found.rates])
    assert [float(group["lr"]) for group in model.optimizer.param_groups] == pytest.approx([0.1, 0.3])


def test_of_several_optimizers_one_is_named() -> None:
    """None of them is guessed; a name that is none says what is near."""

    class Two(Quadratic):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Parameter(torch.ones(1))
            self.optimizer_of_other = optim.SGD([self.other], lr=0.25)

    with pytest.raises(InvalidSearch, match="are optimizer, optimizer_of_other"):
        tune_learning_rate(Two(), ones(), settings=CPU)
    with pytest.raises(UnknownOptimizer, match="Did you mean 'optimizer'"):
        tune_learning_rate(Two(), ones(), optimizer="optimiser", settings=CPU)
    assert tune_learning_rate(Two(), ones(), optimizer="optimizer", settings=CPU).suggestion > 0


def test_a_loss_that_does_not_fall_is_no_suggestion() -> None:
    """Neither one that rises, nor one that stays, nor one that is no number from the beginning."""

    class Constant(Quadratic):
        factor = 0.0

        def fit(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            predictions, loss = super().fit(inputs)
            return predictions, (loss * 0 + 1 + self.factor * len(self.rates)).detach()

    rising, broken = Constant(), Constant()
    rising.factor, broken.factor = 0.01, float("nan")
    for model in (Constant(), rising, broken):
        with pytest.raises(NoSuggestion, match="has not fallen"):
            tune_learning_rate(model, ones(), settings=CPU)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lowest", {"lowest": 0.0}),
        ("highest", {"lowest": 1.0, "highest": 1.0}),
        ("steps", {"steps": 9}),
        ("steps", {"steps": True}),
        ("smoothing", {"smoothing": 1.0}),
        ("divergence", {"divergence": 1.0}),
    ],
    ids=str,
)
def test_a_range_without_meaning_is_refused(name: str, options: dict[str, Any]) -> None:
    """Before anything is tried."""
    with pytest.raises(InvalidSearch, match=f"tune_learning_rate: {name} has no meaning"):
        tune_learning_rate(Quadratic(), ones(), **options, settings=CPU)


def test_batches_that_come_once_are_not_taken_away() -> None:
    """A run would miss what the test has taken; and a loader without batches would be gone through for ever."""
    with pytest.raises(InvalidSearch, match="begins anew"):
        tune_learning_rate(Quadratic(), iter(ones()), settings=CPU)
    with pytest.raises(InvalidSearch, match="no batches"):
        tune_learning_rate(Quadratic(), [], settings=CPU)


def exhausted() -> list[Callable[[], object]]:
    """List ways in which memory ends."""

    def raises(error: BaseException) -> Callable[[], object]:
        def end() -> None:
            raise error

        return end

    return [
        raises(MemoryError()),
        raises(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
        raises(RuntimeError("CUDA error: out of memory")),
        raises(RuntimeError("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
        lambda: torch.empty(2**55),  # what torch says of the memory of the CPU
        lambda: bytearray(2**60),
    ]


class Sized(Learner):
    """Has room for so many samples."""

    def __init__(self, room: int, end: Callable[[], object], sizes: list[int]) -> None:
        super().__init__()
        self.optimization = Optimization(self.optimizer, accumulate=4)
        self.room, self.end, self.sizes = room, (end,), sizes

    def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        self.sizes.append(len(inputs))
        if len(inputs) > self.room:
            self.end[0]()
        loss = self.criterion(self.nn(inputs), targets)
        self.optimization.step(loss)
        return inputs, loss

    def __deepcopy__(self, memo: dict[int, Any]) -> Sized:
        twin = Sized(self.room, self.end[0], self.sizes)
        memo[id(self)] = twin
        return twin


def samples(size: int) -> list[tuple[Tensor, Tensor]]:
    """Make batches of a size."""
    return [(torch.ones(size, 2), torch.zeros(size, dtype=torch.long)) for _ in range(3)]


@few
@given(st.integers(1, 100), st.integers(1, 9), st.integers(9, 70), st.sampled_from(exhausted()))
def test_the_largest_size_that_fits_is_suggested(room: int, first: int, limit: int, end: Callable[[], object]) -> None:
    """Doubled until memory ends, however it says so, or up to the limit, which is tried as well."""
    sizes = [first]
    while sizes[-1] < limit and sizes[-1] <= room:
        sizes.append(min(2 * sizes[-1], limit))
    heard: list[int] = []
    model = Sized(room, end, heard)
    if first > room:
        with pytest.raises(NoSuggestion, match=f"not even {first} samples"):
            tune_batch_size(model, samples, first=first, limit=limit, settings=CPU)
        return
    found = tune_batch_size(model, samples, first=first, limit=limit, settings=CPU)
    assert found.tried == {size: size <= room for size in sizes}
    assert found.suggestion == max(size for size in sizes if size <= room)
    assert found.reason == ("memory" if sizes[-1] > room else "limit")
    assert heard == [size for size in sizes for _ in range(2 if size <= room else 1)]


@few
@given(st.integers(2, 40), st.integers(1, 5))
def test_a_batch_is_no_larger_than_the_data(length: int, first: int) -> None:
    """A size of which the data has no whole batch proves nothing, and is not tried."""
    dataset = TensorDataset(torch.ones(length, 2), torch.zeros(length, dtype=torch.long))
    model = Sized(1000, lambda: None, [])
    if first > length:
        with pytest.raises(InvalidSearch, match=f"no batch of {first} samples"):
            tune_batch_size(model, dataset, first=first, settings=CPU)
        return
    found = tune_batch_size(model, dataset, first=first, settings=CPU)
    assert found.suggestion <= length < 2 * found.suggestion
    assert found.reason == "data"


def test_each_size_is_tried_with_a_step() -> None:
    """What the optimizer keeps is there, also where more is accumulated for a step than is tried."""
    steps: list[int] = []

    class Stepping(Sized):
        def __deepcopy__(self, memo: dict[int, Any]) -> Sized:
            twin = super().__deepcopy__(memo)
            twin.optimizer.register_step_post_hook(lambda *_: steps.append(self.sizes[-1]))
            return twin

    tune_batch_size(Stepping(9, lambda: torch.empty(2**55), []), samples, first=1, settings=CPU)
    assert steps == [1, 2, 4, 8]


def test_another_error_is_no_lack_of_memory() -> None:
    """It goes on as itself."""

    def end() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        tune_batch_size(Sized(4, end, []), samples, settings=CPU)
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("first", {"first": 0}),
        ("first", {"first": True}),
        ("limit", {"first": 8, "limit": 7}),
        ("limit", {"limit": 2.5}),
        ("batches", {"batches": 0}),
    ],
    ids=str,
)
def test_sizes_without_meaning_are_refused(name: str, options: dict[str, Any]) -> None:
    """Before anything is tried; and a loader, whose size is fixed, is told from what makes one."""
    with pytest.raises(InvalidSearch, match=f"tune_batch_size: {name} has no meaning"):
        tune_batch_size(Sized(9, lambda: None, []), samples, **options, settings=CPU)
    with pytest.raises(InvalidSearch, match="DataLoader has batches of one size"):
        tune_batch_size(Sized(9, lambda: None, []), shuffled(), settings=CPU)  # type: ignore[arg-type]


def test_searches_are_handlers() -> None:
    """Called by name, on the device that is bound; an aggregate that is compiled is tried eagerly."""
    service = Training()
    service.override(device, lambda: "cpu")
    model = compile(Regression(), backend="eager")
    state = plain(model.snapshot())
    rates = service.handle("tune-learning-rate", model, shuffled(), lowest=1e-4, highest=1.0)
    sizes = service.handle("tune-batch-size", model, data(), limit=8)
    assert isinstance(rates, LearningRates)
    assert isinstance(sizes, BatchSizes)
    assert sizes.suggestion == 8
    assert service.tune_batch_size(model, data(), limit=8) == sizes
    assert plain(model.snapshot()) == state


def test_a_copy_is_trained_where_the_aggregate_evaluates() -> None:
    """Whatever phase the aggregate is in, its copy learns; the hook of the phase does not run."""
    phases: list[str] = []

    class Phased(Quadratic):
        def fit(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            phases.append(self.phase)
            return super().fit(inputs)

        def onphase(self) -> None:
            phases.append("a change")

    model = Phased()
    model.phase = "evaluation"
    phases.clear()
    tune_learning_rate(model, ones(), lowest=1e-3, highest=0.5, settings=CPU)
    assert set(phases) == {"train"}


def test_a_loader_is_left_where_it_can_be_gone_through_again() -> None:
    """It is asked for its batches anew for each pass, and none of them is held."""
    passes: list[int] = []

    class Counted:
        def __iter__(self) -> Iterator[Any]:
            passes.append(0)
            for batch in ones(4):
                passes[-1] += 1
                yield batch

    tune_learning_rate(Quadratic(), Counted(), lowest=1e-3, highest=0.1, steps=10, settings=CPU)
    assert passes == [4, 4, 2]


def test_the_memory_of_the_copy_is_given_back() -> None:
    """When the search is over, nothing holds it, whatever hooks hold of one another."""
    copies: list[Any] = []

    class Referred(Regression):
        def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            copies.append(weakref.ref(self))
            return super().fit(inputs, targets)

    for search in SEARCHES.values():
        assert search(Referred(), shuffled())
        assert copies
        assert {copy() for copy in copies} == {None}
