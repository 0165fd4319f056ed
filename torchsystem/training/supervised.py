"""An aggregate for those who have none yet: any module, a criterion and an optimizer."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from torchsystem.domain import Aggregate
from torchsystem.training.optimization import Optimization


class Supervised(Aggregate):
    """Learn targets from inputs. With it a quick start needs no class of one's own.

    Args:
        nn: The network.
        criterion: The loss of predictions and targets.
        optimizer: An optimizer, or an `Optimization` that says more.
        id: What to call it, if it shall have an identity.

    Examples:
        >>> from torch import nn, optim, tensor
        >>> network = nn.Linear(2, 1)
        >>> model = Supervised(network, nn.MSELoss(), optim.SGD(network.parameters(), lr=0.1))
        >>> predictions, loss = model.fit(tensor([[1.0, 2.0]]), tensor([[3.0]]))
        >>> predictions.shape
        torch.Size([1, 1])
    """

    def __init__(
        self,
        nn: Module,
        criterion: Module,
        optimizer: Optimizer | Optimization,
        *,
        id: object = None,  # noqa: A002 - it is the id
    ) -> None:
        super().__init__()
        self.nn = nn
        self.criterion = criterion
        self.optimization = optimizer if isinstance(optimizer, Optimization) else Optimization(optimizer)
        if id is not None:
            self.initialize(id)

    def forward(self, *inputs: Any) -> Any:
        """Predict."""
        return self.nn(*inputs)

    def fit(self, inputs: Any, targets: Tensor) -> tuple[Any, Tensor]:
        """Learn from one batch; return the predictions and the loss."""
        predictions = self(inputs)
        loss = self.criterion(predictions, targets)
        self.optimization.step(loss)
        return predictions.detach(), loss.detach()

    def evaluate(self, inputs: Any, targets: Tensor) -> tuple[Any, Tensor]:
        """Predict one batch without learning; return the predictions and the loss."""
        predictions = self(inputs)
        return predictions, self.criterion(predictions, targets)
