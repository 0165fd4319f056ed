"""Gradients that no `Optimization` keeps: who accumulates by hand goes on exactly, too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn, optim

from tests.training.resuming import Loop, Net, cut, data_loaders, of_ones_own, ready_made
from torchsystem import Aggregate
from torchsystem.training import Optimization
from torchsystem.training.leftover import gradients_of, put_back_gradients


class ByHand(Aggregate):
    """A classifier that steps after every third batch, without an `Optimization`."""

    fitted: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.nn = nn.Sequential(nn.Linear(3, 6), nn.Dropout(0.3), nn.Linear(6, 2))
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = optim.SGD(self.nn.parameters(), lr=0.1, momentum=0.9)
        self.register_buffer("fitted", torch.tensor(0))

    def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        output, loss = self.evaluate(inputs, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        self.fitted += 1
        if self.fitted % 3 == 0:
            self.optimizer.step()
            self.optimizer.zero_grad()
        return output, loss

    def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        output = self.nn(inputs)
        return output.argmax(1), self.criterion(output, targets)


class Thawing(Net):
    """A network whose first layer is learned from the second epoch on."""

    def __init__(self) -> None:
        super().__init__()
        self.nn[0].requires_grad_(False)  # noqa: FBT003 - as torch has it

    def onepoch(self) -> None:
        self.nn[0].requires_grad_(self.epoch > 0)


def test_what_was_thawed_stays_so() -> None:
    """No hook runs when the epoch is restored, so it is part of the run which parameters are learned."""
    whole, found = cut(data_loaders(), every=2, model=Thawing, epochs=3)
    assert found == []
    assert whole.kept[0].run["frozen"] == ["nn.0.weight", "nn.0.bias"]
    assert whole.kept[-1].run["frozen"] == []


@pytest.mark.parametrize("loop", [ready_made, of_ones_own], ids=["fit", "own"])
def test_who_accumulates_by_hand_goes_on_exactly(loop: Loop) -> None:
    """In the middle of a group there are gradients, which are part of the run."""
    _, found = cut(data_loaders(), model=ByHand, loop=loop, epochs=2)
    assert found == []


def test_an_optimization_keeps_its_own() -> None:
    """They are not kept twice, and are not touched by who puts back the others."""
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    network(torch.ones(1, 2)).sum().backward()
    optimization = Optimization(optim.SGD(network[0].parameters(), lr=0.1))
    kept = gradients_of(network, [optimization])
    assert kept.keys() == {"1.weight"}
    put_back_gradients(network, [optimization], {})
    assert network[0].weight.grad is not None
    assert network[1].weight.grad is None
    put_back_gradients(network, [optimization], kept)
    again = gradients_of(network, [optimization])
    assert torch.equal(again["1.weight"], kept["1.weight"])


def test_a_copy_is_kept() -> None:
    """What is learned later does not change it."""
    weight = nn.Parameter(torch.ones(2))
    weight.sum().backward()  # type: ignore[no-untyped-call]
    kept = gradients_of(nn.ParameterList([weight]), [])
    weight.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(kept["0"], torch.ones(2))


def test_sparse_gradients_stay_sparse() -> None:
    """Those of an embedding are of few rows, and no file of tensors knows their layout."""
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1, 3, 1])).sum().backward()
    expected = embedding.weight.grad
    assert expected is not None
    kept = gradients_of(embedding, [])
    assert {name: part.layout for name, part in kept["weight"].items()} == {
        "indices": torch.strided,
        "values": torch.strided,
    }
    put_back_gradients(embedding, [], kept)
    assert embedding.weight.grad is not None
    assert embedding.weight.grad.is_sparse
    assert torch.equal(embedding.weight.grad.to_dense(), expected.to_dense())
