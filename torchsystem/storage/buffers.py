"""Memory that is kept from one save to the next, to copy a state into: fresh memory is several times as slow."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from torchsystem.storage.tensors import check

# Where values are, and how they are read there: a conjugate view has the address of what it is a view of.
Place: TypeAlias = tuple[int, torch.device, torch.dtype, tuple[int, ...], tuple[int, ...], bool, bool]


class Buffers:
    """Copy the tensors of a state to the memory of the machine, each into what was kept for its name.

    What is shared among them is copied once. What was kept for a name that a state no longer has is freed.

    Args:
        keep: Whether memory is kept; otherwise every copy is made anew, and belongs to whoever has it.

    Examples:
        >>> import torch
        >>> from torchsystem.storage.buffers import Buffers
        >>> buffers = Buffers()
        >>> weight = torch.zeros(2)
        >>> buffers.begin()
        >>> first = buffers.copy("weight", weight)
        >>> buffers.begin()
        >>> second = buffers.copy("weight", weight.add_(1))
        >>> second is first, first
        (True, tensor([1., 1.]))
    """

    def __init__(self, *, keep: bool = True) -> None:
        self._keeps = keep
        self._kept: dict[tuple[str, int], Tensor] = {}
        self._used: dict[tuple[str, int], Tensor] = {}
        self._seen: dict[Place, tuple[StorageWeakRef, Tensor]] = {}
        self._times: dict[str, int] = {}

    def begin(self) -> None:
        """Begin to copy a state; the copies of the one before may be overwritten from now on."""
        self._kept = self._used if self._keeps else {}
        self._used, self._seen, self._times = {}, {}, {}

    def copy(self, name: str, tensor: Tensor) -> Tensor:
        """Copy a tensor, dense and in one piece.

        Raises:
            Unstorable: It has no values, or not in one piece.
        """
        check(name, tensor)
        tensor = tensor.detach()
        reading = tuple(tensor.shape), tensor.stride(), tensor.is_conj(), tensor.is_neg()
        place = tensor.data_ptr(), tensor.device, tensor.dtype, *reading
        known = self._seen.get(place) if place[0] else None
        if known is not None and not known[0].expired():  # type: ignore[no-untyped-call]  # an address alone may be that of another, made since
            return known[1]
        number = self._times[name] = self._times.get(name, 0) + 1
        buffer = self._kept.get((name, number))
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        buffer.copy_(tensor)
        self._used[name, number] = buffer
        self._seen[place] = StorageWeakRef(tensor.untyped_storage()), buffer  # type: ignore[no-untyped-call]
        return buffer
