"""What the services of this program work with, said as protocols: they know no file, no writer and no device."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor

Results = dict[str, float]  # by metric


class Loader(Protocol):
    """Batches of inputs and targets."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...


class Metrics(Protocol):
    """Figures that are gathered batch by batch, read once per split, and kept when a run is interrupted."""

    def update(self, predictions: Tensor, targets: Tensor, loss: Tensor) -> None: ...

    def compute(self) -> Results: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
