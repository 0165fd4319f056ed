"""What the services of this program work with, said as protocols: they know no classifier, no file and no device."""

from collections.abc import Iterator
from typing import Literal, Protocol

from torch import Tensor

from torchsystem import Events

Results = dict[str, float]  # by metric


class Model(Protocol):
    """Something that learns, and tells by its events what it wants to happen."""

    phase: Literal["train", "evaluation"]
    epoch: int
    events: Events

    @property
    def id(self) -> str: ...

    def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]: ...

    def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]: ...


class Loader(Protocol):
    """Batches of inputs and targets."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...


class Metrics(Protocol):
    """Figures that are gathered batch by batch, and read once per epoch."""

    def update(self, predictions: Tensor, targets: Tensor, loss: Tensor) -> None: ...

    def compute(self) -> Results: ...
