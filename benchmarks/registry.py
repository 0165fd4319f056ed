"""What identity costs: a construction, a hash, a fingerprint.

    taskset -c 0 python benchmarks/registry.py

What is compared is measured in turns, in one process, and the best of the rounds counts: the rest is what else the
machine did.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from hashlib import sha256
from itertools import repeat
from time import perf_counter

import torch
from torch import Tensor, nn

from torchsystem.registry import fingerprint, gethash, getmetadata, register

ROUNDS = 15


class Plain:
    """A class of five arguments."""

    def __init__(self, a: object, b: object, c: object = 3, d: object = 4, e: object = 5) -> None:
        """Take them."""


@register
class Registered(Plain):
    """The same class, registered."""

    def __init__(self, a: object, b: object, c: object = 3, d: object = 4, e: object = 5) -> None:
        """Take them."""


def best(*functions: Callable[[], object], number: int) -> list[float]:
    """Time functions in turns, in seconds per call."""
    times = [float("inf")] * len(functions)
    for _ in range(ROUNDS):
        for index, function in enumerate(functions):
            start = perf_counter()
            for _ in repeat(None, number):
                function()
            times[index] = min(times[index], (perf_counter() - start) / number)
    return times


def construction(what: str, *args: object, **kwargs: object) -> None:
    """Compare a construction with that of the same class unregistered."""
    plain, registered = best(lambda: Plain(*args, **kwargs), lambda: Registered(*args, **kwargs), number=10_000)
    print(f"  {what:34} {plain * 1e6:8.2f} {registered * 1e6:8.2f} {(registered - plain) * 1e6:+8.2f} µs")


def asking(what: str, obj: object) -> None:
    """Time the questions to one object."""
    hashed, described = best(lambda: gethash(obj), lambda: getmetadata(obj), number=2_000)
    print(f"  {what:34} {hashed * 1e6:8.2f} {described * 1e6:8.2f} µs")


def weights(what: str, module: nn.Module) -> None:
    """Compare a fingerprint with the bare hash of the same bytes."""
    blocks: list[bytes] = [_bytes(tensor) for tensor in module.state_dict().values()]
    size = sum(map(len, blocks))
    number = max(1, 20_000_000 // size)
    bare, ours = best(lambda: _hash(blocks), lambda: fingerprint(module), number=number)
    speeds = f"{size / bare / 1e9:6.2f} {size / ours / 1e9:6.2f} GB/s  {bare / ours:.2f}x"
    print(f"  {what:26} {len(blocks):4} tensors {size / 1e6:8.2f} MB {speeds}")


def _bytes(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def _hash(blocks: list[bytes]) -> str:
    digest = sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def main() -> None:
    """Print all measurements."""
    torch.set_num_threads(1)
    gc.disable()
    part = Registered(1, 2)
    print("One construction of five arguments: unregistered, registered, difference")
    construction("plain values", 1, 2.0, "three", d=None, e=False)
    construction("two short lists", [1, 2], [3, 4], 5, d=6, e=7)
    construction("two registered parts", part, part, 5, d=6, e=7)
    construction("a dtype and a class", torch.float32, nn.ReLU, 5, d=6, e=7)
    construction("a tensor of 64 values", torch.ones(64), 2, 5, d=6, e=7)
    print("One question: gethash, getmetadata")
    asking("five plain values", Registered(1, 2.0, "three", d=None, e=False))
    asking("ten parts, three deep", Registered([Registered([Registered(i, 2)], 2) for i in range(10)], 2))
    print("Weights: SHA-256 of the bytes, fingerprint, ratio")
    weights("small perceptron", nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
    weights("perceptron for MNIST", nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10)))
    weights("50 small convolutions", nn.Sequential(*[_block() for _ in range(50)]))
    weights("6 transformer layers", nn.Sequential(*[nn.TransformerEncoderLayer(256, 4, 1024) for _ in range(6)]))
    weights("one large layer", nn.Linear(8192, 6400))


def _block() -> nn.Module:
    return nn.Sequential(nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64))


if __name__ == "__main__":
    main()
