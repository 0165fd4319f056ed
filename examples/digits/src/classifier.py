"""The aggregate: a network, its criterion and its optimizer, which change together."""

from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from torchsystem import Aggregate
from torchsystem.registry import gethash
from torchsystem.training import Optimization


class Classifier(Aggregate):
    """Tell classes apart; its identity is how its network was constructed."""

    def __init__(self, nn: Module, criterion: Module, optimizer: Optimizer) -> None:
        super().__init__()
        self.nn = nn
        self.criterion = criterion
        self.optimization = Optimization(optimizer)
        self.epoch = 0

    @property
    def id(self) -> str:
        return gethash(self.nn)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.nn(inputs)

    def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self(inputs)
        loss = self.criterion(outputs, targets)
        self.optimization.step(loss)
        return outputs.argmax(1), loss.detach()

    def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self(inputs)
        return outputs.argmax(1), self.criterion(outputs, targets)
