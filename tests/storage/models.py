"""An aggregate in which every part of the state tells in which epoch it was taken."""

from __future__ import annotations

import torch
from torch import nn, optim

from torchsystem import Aggregate


class Learner(Aggregate):
    """A linear classifier, with an optimizer and a scheduler."""

    def __init__(self, *, features: int = 2, lr: float = 0.5, momentum: float = 0.9, smoothing: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.nn = nn.Linear(features, 2)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=smoothing)
        self.optimizer = optim.SGD(self.nn.parameters(), lr=lr, momentum=momentum)
        self.scheduler = optim.lr_scheduler.StepLR(self.optimizer, 2)


def advance(learner: Learner, epoch: int) -> Learner:
    """Let all parts of the state say the same number."""
    with torch.no_grad():
        learner.nn.weight.fill_(epoch)
        learner.nn.bias.fill_(epoch)
    for parameter in learner.nn.parameters():
        learner.optimizer.state[parameter]["momentum_buffer"] = torch.full_like(parameter, epoch)
    learner.epoch = epoch
    return learner


def told(learner: Learner) -> set[float]:
    """Return the numbers that the parts of the state say."""
    buffers = [state["momentum_buffer"] for state in learner.optimizer.state.values()]
    tensors = [*learner.nn.parameters(), *buffers]
    return {float(learner.epoch), *(value for tensor in tensors for value in tensor.flatten().tolist())}
