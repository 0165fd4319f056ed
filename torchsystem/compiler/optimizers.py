"""The optimizers of an aggregate, and what can be compiled of them."""

# ruff: noqa: PLC0415 - torch is imported where it is used, so that importing the compiler stays quick

from __future__ import annotations

import functools
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.nn import Module
    from torch.optim import Optimizer


def optimizers(aggregate: Module) -> Iterator[tuple[str, Optimizer]]:
    """Find the optimizers that are attributes of an aggregate or of a module inside it, or in a list or dict there.

    What is made of parts, and says so by a method `parts`, is looked into as well: an `Optimization` is.
    """
    from torch.optim import Optimizer

    seen: set[int] = set()
    for prefix, module in aggregate.named_modules():
        for name, value in vars(module).items():
            for key, part in _parts(value):
                if isinstance(part, Optimizer) and id(part) not in seen:
                    seen.add(id(part))
                    yield ".".join(filter(None, (prefix, name, key))), part


def _parts(value: Any) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from ((f"{key}.{inner}".rstrip("."), found) for inner, found in _parts(part))
    elif not isinstance(value, type) and callable(getattr(value, "parts", None)):
        yield from _parts(value.parts())
    elif isinstance(value, list | tuple):
        yield from ((str(index), part) for index, part in enumerate(value))
    else:
        yield "", value


def method_of(optimizer: Optimizer, original: Callable[..., Any], function: Callable[..., Any]) -> MethodType:
    """Make a function a method that passes for the original: schedulers look for both, a method and its marks."""

    @functools.wraps(original)
    def method(_: Optimizer, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return MethodType(method, optimizer)


def with_rates_as_tensors(optimizer: Optimizer, step: Callable[..., Any]) -> Callable[..., Any]:
    """Hand the learning rates to a compiled step as tensors, where a number would become a constant of the graph.

    Then each value of a schedule would be a graph of its own, until dynamo has enough and runs the step eagerly.
    """
    import torch
    from torch import optim

    if not isinstance(optimizer, optim.SGD | optim.RMSprop | optim.Adadelta):
        return step
    rates: list[torch.Tensor] = []

    def stepped(*args: Any, **kwargs: Any) -> Any:
        groups = [group for group in optimizer.param_groups if isinstance(group["lr"], float)]
        numbers = [group["lr"] for group in groups]
        rates.extend(torch.zeros((), dtype=torch.float64) for _ in numbers[len(rates) :])
        try:
            for group, rate, number in zip(groups, rates, numbers, strict=False):
                group["lr"] = rate.fill_(number)
            return step(*args, **kwargs)
        finally:
            for group, number in zip(groups, numbers, strict=True):
                group["lr"] = number

    return stepped


def separate_step(optimizer: Optimizer, step: Callable[..., Any]) -> MethodType:
    """Make a ``step`` that is compiled by itself also where compiled code calls it.

    Traced together with what follows ``backward``, a step is no faster; and what it is given could not be changed.
    """
    from torch.compiler import disable

    separate: Callable[..., Any] = disable(with_rates_as_tensors(optimizer, step), recursive=False)  # type: ignore[no-untyped-call]
    return method_of(optimizer, optimizer.step, separate)


def traceable_zero_grad(optimizer: Optimizer) -> Callable[..., None]:
    """Make a ``zero_grad`` that can be traced, which torch's own cannot; one of the class itself stays as it is."""
    from torch.optim import Optimizer as Base

    original = optimizer.zero_grad
    if type(optimizer).zero_grad is not Base.zero_grad:
        return original

    def zero_grad(set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - as torch has it
        if not set_to_none:
            original(set_to_none=False)
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    return method_of(optimizer, original, zero_grad)
