"""Random numbers: all generators seeded at once, kept and put back, and found where they are held."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, RandomSampler, Subset

from tests.training.resuming import Points
from torchsystem.domain.plain import plain
from torchsystem.errors import InvalidSeed
from torchsystem.training import seed
from torchsystem.training.held import MANY, generators_in, generators_of
from torchsystem.training.randomness import are_equal, capture, in_use, is_generator, put_back, untouched

# What can be drawn: of the generators in use, and of those that one holds.
GLOBAL: dict[str, Callable[[], Any]] = {
    "python": random.random,
    "python gauss": lambda: random.gauss(0, 1),
    "python bits": lambda: random.getrandbits(37),
    "numpy": lambda: np.random.random(3).tolist(),  # noqa: NPY002 - it is what people use
    "numpy gauss": np.random.standard_normal,
    "numpy small": lambda: np.random.randint(0, 255, dtype=np.uint8),  # noqa: NPY002
    "torch": lambda: torch.rand(3).tolist(),
    "torch normal": lambda: torch.randn(1).item(),
    "torch order": lambda: torch.randperm(9).tolist(),
    "torch seed": torch.initial_seed,
}
HELD: dict[str, Callable[[], tuple[Any, Callable[[Any], Any]]]] = {
    "torch": lambda: (torch.Generator().manual_seed(3), lambda g: torch.rand(2, generator=g).tolist()),
    "torch normal": lambda: (torch.Generator().manual_seed(3), lambda g: torch.randn(3, generator=g).tolist()),
    "python": lambda: (random.Random(3), lambda g: (g.random(), g.gauss(0, 1))),  # noqa: S311
    "legacy": lambda: (np.random.RandomState(3), lambda g: (g.rand(), g.standard_normal(), g.randint(99))),
    "pcg64": lambda: (np.random.default_rng(3), _of_numpy),
    "mt19937": lambda: (np.random.Generator(np.random.MT19937(3)), _of_numpy),
    "philox": lambda: (np.random.Generator(np.random.Philox(3)), _of_numpy),
    "sfc64": lambda: (np.random.Generator(np.random.SFC64(3)), _of_numpy),
    "pcg64dxsm": lambda: (np.random.Generator(np.random.PCG64DXSM(3)), _of_numpy),
}


def _of_numpy(generator: Any) -> Any:
    """Draw numbers of 64 and of 32 bits, the second half of which waits in the state."""
    return generator.random(), int(generator.integers(0, 100, dtype=np.uint32)), generator.standard_normal()


def as_it_is(state: Any) -> Any:
    """Return the state itself."""
    return state


def as_a_snapshot(state: Any) -> Any:
    """Return the state as a checkpoint holds it."""
    return plain(state, "randomness")


def as_json(state: Any) -> Any:
    """Return the state as it comes back from JSON, tensors apart, as storages keep them."""
    tensors: list[Tensor] = []

    def out(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors.append(value.clone())
            return {"tensor": len(tensors) - 1}
        if isinstance(value, dict):
            return {key: out(each) for key, each in value.items()}
        return [out(each) for each in value] if isinstance(value, list) else value

    def back(value: Any) -> Any:
        if isinstance(value, dict):
            if value.keys() == {"tensor"}:
                return tensors[value["tensor"]]
            return {key: back(each) for key, each in value.items()}
        return [back(each) for each in value] if isinstance(value, list) else value

    return back(json.loads(json.dumps(out(state))))


@pytest.mark.parametrize("name", GLOBAL)
def test_a_seed_is_for_every_generator_in_use(name: str) -> None:
    """The same seed, the same draws; another one, others."""
    drawn = []
    for number in (7, 7, 8):
        seed(number)
        drawn.append([GLOBAL[name]() for _ in range(20)])
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("number", [0, 2**32 - 1, 2**32, 2**64 - 1])
def test_a_seed_may_be_as_large_as_torch_allows(number: int) -> None:
    """NumPy's, which takes 32 bits, has the lower ones."""
    seed(number)
    assert torch.initial_seed() == number


@pytest.mark.parametrize("wrong", [-1, 2**64, 1.5, "7", None, True])
def test_what_is_no_seed_is_refused(wrong: Any) -> None:
    """And nothing is seeded."""
    before = capture()
    with pytest.raises(InvalidSeed, match="whole number"):
        seed(wrong)
    assert are_equal(before, capture())


@given(
    st.lists(st.sampled_from(list(GLOBAL)), max_size=12),
    st.lists(st.sampled_from(list(GLOBAL)), min_size=1, max_size=12),
    st.lists(st.sampled_from(list(GLOBAL)), max_size=12),
    st.sampled_from([as_it_is, as_a_snapshot, as_json]),
)
def test_what_is_drawn_after_it_was_put_back_is_what_was_drawn(
    before: list[str], drawn: list[str], between: list[str], kept: Callable[[Any], Any]
) -> None:
    """Whatever was drawn before, whatever in between, of all generators in use, and however the state was stored."""
    seed(11)
    for name in before:
        GLOBAL[name]()
    state = kept(capture())
    first = [GLOBAL[name]() for name in drawn]
    for name in between:
        GLOBAL[name]()
    put_back(state)
    assert [GLOBAL[name]() for name in drawn] == first


@given(
    st.sampled_from(list(HELD)),
    st.integers(0, 5),
    st.integers(1, 5),
    st.sampled_from([as_it_is, as_a_snapshot, as_json]),
)
def test_a_generator_that_one_holds_is_kept_too(name: str, before: int, count: int, kept: Callable[[Any], Any]) -> None:
    """Of whatever kind; put into another one of the kind, which need not have been seeded alike."""
    generator, draw = HELD[name]()
    for _ in range(before):
        draw(generator)
    state = kept(capture({"it": generator}))
    drawn = [draw(generator) for _ in range(count)]
    other, _ = HELD[name]()
    draw(other)
    put_back(state, {"it": other})
    assert [draw(other) for _ in range(count)] == drawn


def test_keeping_a_state_changes_nothing() -> None:
    """Neither in the generators, nor in the state when they go on."""
    generators = {name: make()[0] for name, make in HELD.items()}
    first = capture(generators)
    second = capture(generators)
    assert are_equal(first, second)
    for name, make in HELD.items():
        make()[1](generators[name])
    assert are_equal(first, second)
    assert not any(are_equal(first[name], state) for name, state in capture(generators).items())


def test_who_has_no_state_is_left_alone() -> None:
    """A generator that came later, and one that is gone."""
    here, there = random.Random(1), random.Random(2)  # noqa: S311
    state = capture({"gone": there})
    before = here.getstate()
    put_back(state, {"new": here})
    assert here.getstate() == before


@pytest.mark.parametrize("fails", [False, True])
def test_a_block_may_leave_no_trace(fails: bool) -> None:  # noqa: FBT001
    """Whatever is drawn in it, and however it is left; generators in use and others."""
    own = torch.Generator().manual_seed(4)
    before, held = capture(), capture({"own": own})
    with pytest.raises(ValueError, match="7") if fails else nullcontext(), untouched({"own": own}):
        for draw in GLOBAL.values():
            draw()
        torch.rand(1, generator=own)
        seed(3)
        int("7" if not fails else "x7")
    assert are_equal(before, capture())
    assert are_equal(held, capture({"own": own}))


def test_generators_in_use_are_those_that_code_draws_from_without_naming_one() -> None:
    """Python's, torch's, and NumPy's, as it was imported here."""
    assert {"python", "numpy", "torch"} <= set(in_use())


def test_the_system_s_own_entropy_is_no_generator() -> None:
    """It has no state, so that nobody could keep it."""
    assert not is_generator(random.SystemRandom())
    assert generators_in(SimpleNamespace(secret=random.SystemRandom())) == {}


class Slotted:
    """Holds what it holds in slots."""

    __slots__ = ("__weakref__", "numbers", "unset")

    def __init__(self, numbers: Any) -> None:
        self.numbers = numbers


class Deeper(Slotted):
    """Has slots of its own."""

    __slots__ = "more"  # noqa: PLC0205 - a single one may be a string

    def __init__(self, numbers: Any, more: Any) -> None:
        super().__init__(numbers)
        self.more = more


def test_generators_are_found_wherever_they_are_held() -> None:
    """In attributes of attributes, slots, lists, dictionaries and sets, under the path to them."""
    one, two, three, four = (torch.Generator() for _ in range(4))
    holder = SimpleNamespace(
        flip=SimpleNamespace(noise={"draws": [1, one]}),
        slotted=Deeper(two, random.Random(1)),  # noqa: S311
        both=(three, frozenset({four})),
    )
    found = generators_in(holder)
    assert found.keys() == {"flip.noise.draws.1", "slotted.numbers", "slotted.more", "both.0", "both.1.0"}
    assert found["flip.noise.draws.1"] is one


def test_generators_of_loaders_are_found_through_torchs_own_wrappers() -> None:
    """A loader's, a sampler's, and those of data sets inside subsets and concatenations."""
    own = [torch.Generator() for _ in range(4)]
    data: ConcatDataset[Any] = ConcatDataset(
        [Subset(Points(own=own[0]), range(4)), Subset(Points(own=own[1]), range(4))]
    )
    sampler = RandomSampler(data, generator=own[2])
    found = generators_in(DataLoader(data, sampler=sampler, generator=own[3]))
    assert {id(generator) for generator in found.values()} == {id(generator) for generator in own}
    assert {path.split(".")[0] for path in found} == {"dataset", "generator", "sampler"}


def test_a_generator_that_is_held_twice_is_found_once_and_cycles_end() -> None:
    """The first path is its name."""
    generator = random.Random(1)  # noqa: S311
    holder = SimpleNamespace(first=generator, second=[generator])
    holder.itself = holder
    holder.parts = [holder, {"again": holder.second}]
    assert generators_in(holder) == {"first": generator}


def test_long_containers_are_data_and_not_looked_into() -> None:
    """Looking through a million samples would take longer than fetching them."""
    generator = random.Random(1)  # noqa: S311
    short = [0] * (MANY - 1) + [generator]
    assert list(generators_in(SimpleNamespace(items=short)).values()) == [generator]
    assert generators_in(SimpleNamespace(items=[*short, 0])) == {}
    assert generators_in(SimpleNamespace(items=dict(enumerate([*short, 0])))) == {}


def test_generators_in_use_are_not_a_loaders_own() -> None:
    """They are kept already, once."""
    own = torch.Generator()
    loader = DataLoader(Points(own=own), sampler=RandomSampler(range(3), generator=torch.default_generator))
    assert list(generators_of(loader).values()) == [own]
