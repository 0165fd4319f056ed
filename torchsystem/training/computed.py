"""What metrics came to: numbers by name, and what is more than one number beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, SupportsFloat, TypeAlias

import torch
from torch import Tensor

from torchsystem.errors import InvalidMetric

Result: TypeAlias = Tensor | float


class Computed(dict[str, float]):
    """The metrics of a report: numbers by name.

    Args:
        numbers: The numbers.
        details: What is more than one number each, such as a confusion matrix, by name.

    Attributes:
        details: The same. No table or curve of numbers has it; who listens to `Validated` may take it from there.
    """

    def __init__(self, numbers: Mapping[str, float], details: Mapping[str, Tensor]) -> None:
        super().__init__(numbers)
        self.details = details


def details(metrics: Mapping[str, float]) -> Mapping[str, Tensor]:
    """Return what the metrics of an event have beside numbers: tensors by name, where they were computed.

    Examples:
        >>> from torchsystem.training.computed import Computed, details
        >>> details(Computed({"loss": 1.0}, {"confusion": torch.eye(2)}))
        {'confusion': tensor([[1., 0.],
                [0., 1.]])}
        >>> details({"loss": 1.0})
        {}
    """
    return metrics.details if isinstance(metrics, Computed) else {}


def flat(name: str, result: Any) -> dict[str, Result]:
    """Name the results of a metric: by its name, or by that and their own: `"report.f1"`, `"curve.0"`.

    Raises:
        InvalidMetric: Something among them is neither a number nor a tensor, or has a name that means something else.
    """
    return dict(_named(name, result))


def is_number(result: Result) -> bool:
    """Tell whether a result is one number: by its kind alone, so that a row of one is a row, as one of two is."""
    return not isinstance(result, Tensor) or (result.ndim == 0 and not result.is_complex())


def merged(results: Iterable[Mapping[str, Result]]) -> dict[str, Result]:
    """Put the results of all metrics together.

    Raises:
        InvalidMetric: Two of them have the same name.
    """
    together: dict[str, Result] = {}
    for result in results:
        for name in result.keys() & together.keys():
            message = f"two metrics come to a {name!r}. Call one of them something else."
            raise InvalidMetric(message)
        together |= result
    return together


def read(first: Tensor, *others: Result) -> list[list[float]]:
    """Read all values at once, where the first one is and as precisely; what are no tensors need not be read."""
    values = (first, *others)
    tensors = [value.to(first).reshape(-1) for value in values if isinstance(value, Tensor)]
    numbers = iter(torch.cat(tensors).tolist())
    return [list(islice(numbers, value.numel())) if isinstance(value, Tensor) else [value] for value in values]


def _named(name: str, result: Any) -> Iterator[tuple[str, Result]]:
    if "/" in name:
        message = f"metric {name!r}: the name has a '/', which parts splits from metrics. Call it something else."
        raise InvalidMetric(message)
    if isinstance(result, Tensor):
        yield name, result.detach()
    elif isinstance(result, SupportsFloat) and getattr(result, "shape", ()) == ():
        yield name, float(result)
    elif isinstance(result, Mapping):
        for key, part in result.items():
            yield from _named(f"{name}.{key}", part)
    elif isinstance(result, Sequence) and not isinstance(result, str | bytes):
        for number, part in enumerate(result):
            yield from _named(f"{name}.{number}", part)
    else:
        message = (
            f"metric {name!r} came to {result!r}, which is a {type(result).__qualname__}. Let it come to a number, "
            f"a tensor, or a mapping of such by name."
        )
        raise InvalidMetric(message)
