"""What a loader's data is, in plain values, so that a run notices when it goes on over another."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from torch.utils.data import DataLoader

from torchsystem.domain.plain import Plain
from torchsystem.errors import RegistryError
from torchsystem.registry import getmetadata


def description(loader: object) -> dict[str, Plain]:
    """Describe the data of a loader: what it is, how much there is of it, and how it is batched and drawn.

    What is registered is described by its metadata, anything else by the name of its class.

    Examples:
        >>> from torch.utils.data import DataLoader
        >>> description(DataLoader(range(10), batch_size=4))["samples"]
        10
    """
    if not isinstance(loader, DataLoader):
        return {"kind": _named(loader), **_length("batches", loader)}
    drawn: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    return {
        "dataset": _known(loader.dataset),
        **_length("samples", loader.dataset),
        "batch_size": loader.batch_size if loader.batch_size is not None else getattr(drawn, "batch_size", None),
        "drop_last": bool(getattr(drawn, "drop_last", False)),
        "sampler": _known(getattr(drawn, "sampler", drawn)),
    }


def agree(one: Plain, other: Plain) -> bool:
    """Tell whether two descriptions are of the same; a file is another module when it is run than when it is imported.

    Examples:
        >>> agree("Digits", "data.Digits"), agree("Digits", "data.OtherDigits")
        (True, False)
    """
    if isinstance(one, str) and isinstance(other, str):
        return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")
    return bool(one == other)


def _length(name: str, sized: object) -> dict[str, Plain]:
    try:
        return {name: len(sized)} if isinstance(sized, Sized) else {}
    except (TypeError, NotImplementedError):
        return {}


def _known(thing: object) -> Plain:
    try:
        return getmetadata(thing)
    except RegistryError:
        return _named(thing)


def _named(thing: object) -> str:
    kind = type(thing)
    return kind.__qualname__ if kind.__module__ == "__main__" else f"{kind.__module__}.{kind.__qualname__}"
