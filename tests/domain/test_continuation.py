"""What waits beside an aggregate: taken once, by one, and never in its state."""

from __future__ import annotations

import gc
import weakref
from copy import deepcopy

from torch import Tensor, nn, optim

from torchsystem import Aggregate
from torchsystem.domain.continuation import attach, take


class Classifier(Aggregate):
    """Something with weights and moments."""

    def __init__(self) -> None:
        super().__init__()
        self.nn = nn.Linear(2, 2)
        self.optimizer = optim.Adam(self.nn.parameters())
        self.nn(next(self.nn.parameters())).sum().backward()
        self.optimizer.step()


def test_it_is_taken_once() -> None:
    """What is attached replaces what waited; None takes it away."""
    aggregate = Aggregate()
    attach(aggregate, {"position": 1})
    attach(aggregate, {"position": 2})
    assert take(aggregate) == {"position": 2}
    assert take(aggregate) is None
    attach(aggregate, {"position": 1})
    attach(aggregate, None)
    assert take(aggregate) is None


def test_it_is_no_part_of_the_aggregate() -> None:
    """Neither the state nor a copy has it, and it goes with the aggregate."""
    aggregate = Classifier()
    before = aggregate.snapshot().keys()
    attach(aggregate, {"position": 1})
    assert aggregate.snapshot().keys() == before
    assert take(deepcopy(aggregate)) is None
    alive = weakref.ref(aggregate)
    del aggregate
    gc.collect()
    assert alive() is None


def test_tensors_are_copied_by_what_is_given() -> None:
    """Each tensor is handed out once, under a name of its own, and what comes back stands in the snapshot."""
    aggregate, seen = Classifier(), dict[str, Tensor]()

    def copy(name: str, tensor: Tensor) -> Tensor:
        assert name not in seen
        assert not tensor.requires_grad
        seen[name] = tensor.clone()
        return seen[name]

    snapshot = aggregate.snapshot(copy=copy)
    assert snapshot["modules"]["nn.weight"] is seen["nn.weight"]
    assert {"optimizer.state.nn.weight.exp_avg", "optimizer.state.nn.weight.step"} <= seen.keys()
    assert not any(value is own for value in seen.values() for own in aggregate.parameters())
