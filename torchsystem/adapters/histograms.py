"""Histograms of tensors, for TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.utils.tensorboard import SummaryWriter

from torchsystem.domain import Aggregate


def weights(aggregate: Aggregate) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters, by name; but for those whose shape is not known yet."""
    return ((name, each) for name, each in aggregate.named_parameters() if not is_lazy(each))


def gradients(aggregate: Aggregate) -> Iterator[tuple[str, Tensor]]:
    """Yield the gradients of the parameters that have one, by the names of the parameters."""
    return ((name, each.grad) for name, each in aggregate.named_parameters() if each.grad is not None)


def write_histograms(writer: SummaryWriter, family: str, tensors: Iterable[tuple[str, Tensor]], step: int) -> None:
    """Write a histogram of the finite values of each tensor; how many others there are is a curve, if there are any.

    Args:
        writer: Where to.
        family: What stands before each name: `"weights"`.
        tensors: The tensors, by name.
        step: When it was.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
        ...     write_histograms(writer, "weights", [("bias", torch.zeros(3))], 1)
    """
    for name, tensor in tensors:
        values = tensor.detach()
        values = values.coalesce().values() if values.is_sparse else values
        values = torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
        values = values.to("cpu", torch.float32).reshape(-1)
        finite = values[values.isfinite()]
        if len(finite) < len(values):
            writer.add_scalar(f"{family} not finite/{name}", len(values) - len(finite), step)
        if len(finite) > 0:
            writer.add_histogram(f"{family}/{name}", finite, step)
