"""Seeding: the same random numbers for a step, whenever it is run."""

from __future__ import annotations

import hashlib
import random
import sys

# Whose random numbers belong to no object that could be seeded by itself.
SHARED = ("numpy", "torch")


def seed(number: int) -> None:
    """Seed Python's random numbers, and those of NumPy and torch where they are imported.

    Args:
        number: 0 or more, below 2**32.
    """
    random.seed(number)
    numpy, torch = map(sys.modules.get, SHARED)
    if numpy is not None:
        numpy.random.seed(number)
    if torch is not None:
        # `torch.manual_seed` seeds all devices, and is a hundred times slower than the generator of the CPU.
        (torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed)(number)


def seed_of(plan: str, key: str) -> int:
    """Return the seed of a step: another for each, and always the same."""
    return int.from_bytes(hashlib.sha256(f"{plan}/{key}".encode()).digest()[:4], "big")


def imported() -> list[str]:
    """Return whose random numbers are in use."""
    return [name for name in SHARED if name in sys.modules]
