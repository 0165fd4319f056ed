"""What identity costs: a construction, a hash, a fingerprint.

    taskset -c 0 python benchmarks/registry.py

A construction of five arguments is to cost no more than 5 µs (but for the content of tensors), and a fingerprint to
reach 0.8 of the speed of the bare hash where weights are large; exits with 1 where that is missed.
"""

from __future__ import annotations

import sys
from hashlib import sha256

import torch
from timing import Operation, measure
from torch import Tensor, nn

from torchsystem.registry import fingerprint, gethash, getmetadata, register

CONSTRUCTION_NS = 5_000
SPEED = 0.8
LARGE = 100_000  # bytes per tensor


class Plain:
    """A class of five arguments."""

    def __init__(self, a: object, b: object, c: object = 3, d: object = 4, e: object = 5) -> None:
        """Take them."""


@register
class Registered(Plain):
    """The same class, registered."""

    def __init__(self, a: object, b: object, c: object = 3, d: object = 4, e: object = 5) -> None:
        """Take them."""


def construction(what: str, *args: object, **kwargs: object) -> bool:
    """Compare a construction with that of the same class unregistered; tell whether the target is kept."""
    plain, registered = measure(
        [
            Operation("plain", lambda: Plain(*args, **kwargs)),
            Operation("torchsystem", lambda: Registered(*args, **kwargs)),
        ]
    )
    kept = registered - plain <= CONSTRUCTION_NS or any(isinstance(value, Tensor) for value in args)
    print(f"  {what:34} {_us(plain)} {_us(registered)} {_us(registered - plain)} µs {'' if kept else '✗'}")
    return kept


def asking(what: str, obj: object) -> None:
    """Time the questions to one object."""
    hashed, described = measure(
        [
            Operation("gethash", gethash, (obj,)),
            Operation("getmetadata", getmetadata, (obj,)),
        ]
    )
    print(f"  {what:34} {_us(hashed)} {_us(described)} µs")


def weights(what: str, module: nn.Module) -> bool:
    """Compare a fingerprint with the bare hash of the same bytes; tell whether the target is kept."""
    blocks = [_bytes(tensor) for tensor in module.state_dict().values()]
    size = sum(map(len, blocks))
    bare, ours = measure(
        [
            Operation("sha256", _hash, (blocks,)),
            Operation("torchsystem", fingerprint, (module,)),
        ]
    )
    kept = bare / ours >= SPEED or size / len(blocks) < LARGE
    speeds = f"{size / bare:6.2f} {size / ours:6.2f} GB/s  {bare / ours:.2f}x {'' if kept else '✗'}"
    print(f"  {what:26} {len(blocks):4} tensors {size / 1e6:8.2f} MB {speeds}")
    return kept


def _us(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e3:8.2f}"


def _bytes(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def _hash(blocks: list[bytes]) -> str:
    digest = sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def main() -> int:
    """Print all measurements; return 1 where a target is missed."""
    torch.set_num_threads(1)
    part = Registered(1, 2)
    print("One construction of five arguments: unregistered, registered, difference")
    kept = [
        construction("plain values", 1, 2.0, "three", d=None, e=False),
        construction("two short lists", [1, 2], [3, 4], 5, d=6, e=7),
        construction("two registered parts", part, part, 5, d=6, e=7),
        construction("a dtype and a class", torch.float32, nn.ReLU, 5, d=6, e=7),
        construction("a tensor of 64 values", torch.ones(64), 2, 5, d=6, e=7),
    ]
    print("One question: gethash, getmetadata")
    asking("five plain values", Registered(1, 2.0, "three", d=None, e=False))
    asking("ten parts, three deep", Registered([Registered([Registered(i, 2)], 2) for i in range(10)], 2))
    print("Weights: SHA-256 of the bytes, fingerprint, ratio")
    kept += [
        weights("small perceptron", nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))),
        weights("perceptron for MNIST", nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))),
        weights("50 small convolutions", nn.Sequential(*[_block() for _ in range(50)])),
        weights("6 transformer layers", nn.Sequential(*[nn.TransformerEncoderLayer(256, 4, 1024) for _ in range(6)])),
        weights("one large layer", nn.Linear(8192, 6400)),
    ]
    return int(not all(kept))


def _block() -> nn.Module:
    return nn.Sequential(nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64))


if __name__ == "__main__":
    sys.exit(main())
