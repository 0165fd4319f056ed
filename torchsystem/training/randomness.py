"""Random numbers: every generator in use seeded at once, and all of them kept and put back.

A generator is anything that has a state: Python's `random`, NumPy's, torch's on the CPU and on each device, and those
that a loader, a sampler or a data set holds. All are told apart by name and treated alike, so that nobody who draws
from one is forgotten.
"""

from __future__ import annotations

import random
import sys
from array import array
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor

from torchsystem.errors import InvalidSeed

# What a state is kept as: tensors, and what JSON knows.
Plain: TypeAlias = Any

_ACCELERATORS = ("cuda", "xpu")


def seed(number: int) -> None:
    """Seed every generator in use: Python's, NumPy's if something has imported it, torch's on the CPU and on devices.

    Args:
        number: The seed, 0 or more and below 2**64; of NumPy's legacy generator, its lower 32 bits.

    Raises:
        InvalidSeed: It is no such number.

    Examples:
        >>> import torch
        >>> from torchsystem.training import seed
        >>> seed(7)
        >>> first = torch.rand(2)
        >>> seed(7)
        >>> bool((torch.rand(2) == first).all())
        True
    """
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**64:
        message = f"seed({number!r}): that is no seed. Write a whole number, 0 or more and below 2**64."
        raise InvalidSeed(message)
    seed_quickly(number)
    torch.manual_seed(number)


def seed_quickly(number: int) -> None:
    """Seed the generators of this process that a data set may draw from, and none of a device."""
    random.seed(number)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(number % 2**32)
    torch.default_generator.manual_seed(number)  # `torch.manual_seed` takes a hundred times as long


def in_use() -> dict[str, Any]:
    """Return the generators that code draws from without naming one."""
    generators: dict[str, Any] = {"python": random, "torch": torch.default_generator}
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        generators["numpy"] = numpy.random
    for kind in _ACCELERATORS:
        module = getattr(torch, kind)
        if module.is_initialized():
            generators |= {f"{kind}:{index}": each for index, each in enumerate(module.default_generators)}
    if torch.backends.mps.is_available():
        generators["mps"] = torch.mps._get_default_mps_generator()  # noqa: SLF001 - torch tells it nowhere else
    return generators


def is_generator(value: object) -> bool:
    """Tell whether something is a generator of random numbers that `capture` can keep; the system's has no state."""
    if isinstance(value, torch.Generator | random.Random) and not isinstance(value, random.SystemRandom):
        return True
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.random.Generator | numpy.random.RandomState)


def capture(generators: Mapping[str, Any] | None = None) -> dict[str, Plain]:
    """Return the states of generators, by name, as plain values; of those in use, if none are given."""
    chosen = in_use() if generators is None else generators
    return {name: _state(generator) for name, generator in chosen.items()}


def put_back(states: Mapping[str, Plain], generators: Mapping[str, Any] | None = None) -> None:
    """Give generators the states that `capture` returned; one that has none, or is not there, is left alone."""
    if generators is None:
        _wake(states)
        generators = in_use()
    for name, generator in generators.items():
        if name in states:
            _set_state(generator, states[name])


def are_equal(one: Plain, other: Plain) -> bool:
    """Tell whether two states are the same."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(are_equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(are_equal, one, other))
    return bool(one == other)


@contextmanager
def untouched(others: Mapping[str, Any] | None = None) -> Generator[None]:
    """Leave the generators in use, and others by name, as they were before the block, whatever is drawn in it."""
    held = {} if others is None else others
    before, before_of_others = capture(), capture(held)
    try:
        yield
    finally:
        put_back(before)
        put_back(before_of_others, held)


def _wake(states: Mapping[str, Plain]) -> None:
    """Have NumPy and devices there whose generators were in use, so that they can be put back."""
    if "numpy" in states:
        torch.empty(0).numpy()  # torch imports it, if it is there
    for kind in _ACCELERATORS:
        if any(name.startswith(f"{kind}:") for name in states) and getattr(torch, kind).is_available():
            getattr(torch, kind).init()


def _state(generator: Any) -> Plain:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if hasattr(generator, "getstate"):  # Python's
        version, numbers, gauss = generator.getstate()
        buffer = array("q", numbers)  # `torch.tensor(numbers)` takes five times as long
        return [version, torch.frombuffer(buffer, dtype=torch.int64), gauss]
    if hasattr(generator, "get_state"):  # NumPy's legacy ones
        return _plain(generator.get_state(legacy=False))
    return _plain(generator.bit_generator.state)


def _set_state(generator: Any, state: Plain) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif hasattr(generator, "setstate"):
        version, numbers, gauss = state
        generator.setstate((version, tuple(numbers.tolist()), gauss))
    elif hasattr(generator, "set_state"):
        generator.set_state(_numpy(state))
    else:
        generator.bit_generator.state = _numpy(state)


def _plain(state: Any) -> Plain:
    """Return a state of NumPy's as plain values: arrays of 32 or 64 bits become tensors."""
    if isinstance(state, Mapping):
        return {key: _plain(value) for key, value in state.items()}
    if not hasattr(state, "dtype"):
        return state
    return state.item() if state.ndim == 0 else {"bits": state.dtype.name, "numbers": torch.from_numpy(_signed(state))}


def _numpy(state: Plain) -> Any:
    if not isinstance(state, Mapping):
        return state
    if state.keys() == {"bits", "numbers"}:
        numbers: Any = state["numbers"].numpy()
        return numbers.view("uint64").astype(state["bits"])
    return {key: _numpy(value) for key, value in state.items()}


def _signed(array: Any) -> Any:
    """Return an array of unsigned numbers as one of 64 bits with a sign, which is what tensors have."""
    return array.astype("uint64").view("int64")
