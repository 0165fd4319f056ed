"""Metrics: weighted by samples, read once, and never on the way."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from torchsystem.errors import InvalidMetric, NonFiniteLoss
from torchsystem.training.metrics import FOLD, Measures, accuracy


class Reads(TorchDispatchMode):
    """Count how often the value of a tensor is read from its device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        self.count += func.overloadpacket is torch.ops.aten._local_scalar_dense  # noqa: SLF001
        return func(*args, **(kwargs or {}))


batches = st.lists(st.tuples(st.integers(1, 5), st.floats(0, 10, width=32)), min_size=1, max_size=3 * FOLD)


@given(batches)
def test_means_are_weighted_by_samples(sizes: list[tuple[int, float]]) -> None:
    """Whatever the sizes of the batches, and however many: the mean is that over all samples."""
    measures = Measures({"accuracy": accuracy})
    hits = 0
    for number, (size, loss) in enumerate(sizes):
        predictions = torch.full((size,), number % 2)
        targets = torch.arange(size) % 2
        hits += int((predictions == targets).sum())
        measures.update(predictions, targets, torch.tensor(loss), size)
    samples = sum(size for size, _ in sizes)
    computed = measures.compute()
    assert computed["loss"] == pytest.approx(sum(size * loss for size, loss in sizes) / samples)
    assert computed["accuracy"] == hits / samples
    assert measures.compute() == {}


def test_nothing_is_read_on_the_way() -> None:
    """Over several folds not one value is read; `compute` reads a tensor once, as a whole."""
    measures = Measures({"accuracy": accuracy, "same": accuracy})
    with Reads() as reads:
        for _ in range(3 * FOLD + 5):
            measures.update(torch.tensor([1, 0]), torch.tensor([1, 1]), torch.tensor(0.5), 2)
    assert reads.count == 0
    assert measures.compute() == {"loss": 0.5, "accuracy": 0.5, "same": 0.5}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("number", [0, 5, FOLD - 1, FOLD, 2 * FOLD + 3])
def test_the_first_loss_that_is_not_finite_is_named(bad: float, number: int) -> None:
    """At the next report, with the number of its batch, also when others follow."""
    measures = Measures({})
    for index in range(3 * FOLD):
        loss = bad if index == number or index == number + 7 else 1.0
        measures.update(torch.tensor([0]), torch.tensor([0]), torch.tensor(loss), 1)
    with pytest.raises(NonFiniteLoss, match=rf"the loss of batch {number} "):
        measures.compute()
    measures.update(torch.tensor([0]), torch.tensor([0]), torch.tensor(1.0), 1)
    assert measures.compute() == {"loss": 1.0}


def test_accuracy_takes_classes_and_scores() -> None:
    """Scores have one dimension more than targets."""
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2]])
    targets = torch.tensor([1, 1])
    assert accuracy(scores, targets).tolist() == accuracy(scores.argmax(1), targets).tolist() == [True, False]


def test_a_metric_may_give_any_number_of_values() -> None:
    """Per sample or per element: the mean over all of them is reported."""

    def error(predictions: Tensor, targets: Tensor) -> Tensor:
        return (predictions - targets).abs()

    measures = Measures({"error": error})
    measures.update(torch.ones(2, 3), torch.zeros(2, 3), torch.tensor(1.0), 2)
    measures.update(torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor(1.0), 1)
    assert measures.compute()["error"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", ["loss", "validation/accuracy"])
def test_names_that_mean_something_else_are_refused(name: str) -> None:
    """The loss is always there, and `/` parts splits from metrics."""
    with pytest.raises(InvalidMetric, match="Call it something else"):
        Measures({name: accuracy})
