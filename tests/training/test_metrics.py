"""Metrics: weighted by samples, read once, and never on the way."""

from __future__ import annotations

import tempfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from torchsystem.errors import InvalidLoss, InvalidMetric, MetricMismatch, NonFiniteLoss
from torchsystem.training.metrics import FOLD, ROOM, Measures, accuracy


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


def scores(count: int) -> Tensor:
    """Make scores of two classes that are the same in every run."""
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(count))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(0, 20))
@settings(max_examples=25)
def test_one_value_for_a_batch_is_that_of_each_sample(sizes: list[int], cut: int) -> None:
    """A metric that is a mean already comes to the same as one that says it of each sample, also after a cut."""

    def mean(predictions: Tensor, targets: Tensor) -> Tensor:
        return accuracy(predictions, targets).double().mean()

    measures = Measures({"each": accuracy, "mean": mean})
    for number, size in enumerate(sizes):
        if number == cut:
            state, measures = measures.state_dict(), Measures({"each": accuracy, "mean": mean})
            measures.load_state_dict(state)
        measures.update(scores(size), torch.arange(size) % 2, torch.tensor(1.0), size)
    computed = measures.compute()
    assert computed["mean"] == pytest.approx(computed["each"])


@pytest.mark.parametrize(
    ("predictions", "targets"),
    [((3,), (3, 1)), ((3, 1), (3,)), ((3, 2), (4,)), ((4,), (3,)), ((3, 2, 5), (3, 4)), ((1,), (3,)), ((), (3,))],
)
def test_accuracy_of_what_cannot_be_compared_is_refused(predictions: tuple[int, ...], targets: tuple[int, ...]) -> None:
    """Of other shapes each would be compared with each, and the highest of one score is always the same."""
    with pytest.raises(InvalidMetric, match="accuracy of predictions of shape"):
        accuracy(torch.zeros(predictions), torch.zeros(targets))


def test_a_loss_that_is_no_number_is_found_though_the_first_ones_were() -> None:
    """By its shape, and not by what some operation on all of them says."""
    measures = Measures({})
    for shape in ((), (), (1,)):
        measures.update(torch.zeros(1), torch.zeros(1), torch.zeros(shape), 1)
    with pytest.raises(InvalidLoss, match=r"the loss has the shape \(1,\)"):
        measures.compute()


@pytest.mark.parametrize("name", ["loss", "validation/accuracy"])
def test_names_that_mean_something_else_are_refused(name: str) -> None:
    """The loss is always there, and `/` parts splits from metrics."""
    with pytest.raises(InvalidMetric, match="Call it something else"):
        Measures({name: accuracy})


def error(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return values that have to be summed up in the same order, to be the same bit by bit."""
    return (predictions - targets).abs() / 3


def gathered(measures: Measures, numbers: range, *, bad: int | None = None) -> Measures:
    """Take in the batches of these numbers."""
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        predictions = torch.rand(1 + number % 5, generator=generator)
        loss = predictions.mean() if number != bad else torch.tensor(float("nan"))
        measures.update(predictions, torch.arange(1 + number % 5) % 2, loss, 1 + number % 5)
    return measures


@given(st.integers(0, 3 * FOLD), st.integers(0, 3 * FOLD), st.sampled_from(["kept", "stored"]))
@settings(max_examples=25)
def test_a_cut_anywhere_changes_not_a_bit(one: int, other: int, way: str) -> None:
    """Taken up by others, what was gathered comes to the same numbers: the sums are made of the same parts."""
    metrics = {"error": error, "accuracy": accuracy}
    cut, count = sorted((one, other))
    first, second = Measures(metrics), Measures(metrics)
    state = gathered(first, range(cut)).state_dict()
    if way == "stored":
        with tempfile.TemporaryFile() as file:
            torch.save(state, file)
            file.seek(0)
            state = torch.load(file, weights_only=True)
    second.load_state_dict(state)
    expected = gathered(Measures(metrics), range(count)).compute()
    assert gathered(second, range(cut, count)).compute() == expected
    assert gathered(first, range(cut, count)).compute() == expected, "taking the state changes nothing"


@pytest.mark.parametrize("cut", [3, FOLD - 1, FOLD, FOLD + 1])
@pytest.mark.parametrize("bad", [0, 2, FOLD - 1, FOLD, 2 * FOLD + 3])
def test_a_bad_batch_is_named_also_by_those_who_go_on(cut: int, bad: int) -> None:
    """Batches are counted from the last report, and not from where a run was cut."""
    first, second = Measures({"error": error}), Measures({"error": error})
    second.load_state_dict(gathered(first, range(cut), bad=bad).state_dict())
    with pytest.raises(NonFiniteLoss, match=rf"the loss of batch {bad} "):
        gathered(second, range(cut, 3 * FOLD), bad=bad).compute()


@pytest.mark.parametrize("count", [0, 1, FOLD - 1, FOLD, 2 * FOLD + 3])
def test_losses_are_checked_without_changing_anything(count: int) -> None:
    """With one read, if there is anything to read; as before a state is kept."""
    measures = gathered(Measures({"error": error}), range(count))
    with Reads() as reads:
        measures.check()
    assert reads.count == min(count, 1)
    assert measures.compute() == gathered(Measures({"error": error}), range(count)).compute()


@pytest.mark.parametrize("bad", [0, 2, FOLD - 1, FOLD, 2 * FOLD + 3])
def test_a_check_names_the_first_bad_batch_each_time(bad: int) -> None:
    """Whether it was folded by then, or not."""
    measures = gathered(Measures({"error": error}), range(2 * FOLD + 5), bad=bad)
    gathered(measures, range(bad, bad + 1), bad=bad)
    for _ in range(2):
        with pytest.raises(NonFiniteLoss, match=rf"the loss of batch {bad} "):
            measures.check()


def test_taking_the_state_reads_nothing() -> None:
    """Whoever writes it to a disk will wait for the device then."""
    measures = gathered(Measures({"error": error, "accuracy": accuracy}), range(FOLD + 5))
    with Reads() as reads:
        measures.state_dict()
    assert reads.count == 0


def test_the_state_of_other_metrics_is_refused() -> None:
    """Also the same in another order: their sums would be taken for one another's."""
    state = gathered(Measures({"error": error, "accuracy": accuracy}), range(3)).state_dict()
    with pytest.raises(MetricMismatch, match="of the metrics error, accuracy; these are accuracy, error"):
        Measures({"accuracy": accuracy, "error": error}).load_state_dict(state)


def test_many_values_are_not_kept_for_long() -> None:
    """A metric that gives a value per element is summed up before what is kept takes much memory."""

    def many(predictions: Tensor, targets: Tensor) -> Tensor:
        return torch.ones(1, dtype=torch.bool).expand(ROOM // 3)

    measures = Measures({"many": many})
    kept = []
    for _ in range(8):
        measures.update(torch.ones(1), torch.ones(1), torch.tensor(1.0), 1)
        kept.append(len(measures.state_dict()["weights"]))
    assert kept == [1, 2, 0, 1, 2, 0, 1, 2]
    assert measures.compute() == {"loss": 1.0, "many": 1.0}


def expanded(predictions: Tensor, targets: Tensor) -> Tensor:
    """Give as many values as a prediction says."""
    return torch.ones(1).expand(int(targets[0]))


@given(st.lists(st.sampled_from([0, 1, ROOM // 5, ROOM // 2, ROOM]), max_size=12), st.integers(0, 12))
@settings(max_examples=20)
def test_sums_are_made_of_the_same_parts_after_a_cut(sizes: list[int], cut: int) -> None:
    """However much is kept: when it is summed up does not depend on where a run was cut."""
    first, second = Measures({"expanded": expanded}), Measures({"expanded": expanded})
    for number, size in enumerate(sizes):
        if number == cut:
            second.load_state_dict(first.state_dict())
        for measures in (first, second):
            measures.update(torch.ones(1), torch.tensor([size]), torch.tensor(1.0), 1)
        if number >= cut:
            assert second.state_dict()["weights"] == first.state_dict()["weights"]


def test_a_bad_batch_is_named_where_much_is_kept() -> None:
    """Batches are counted one by one, however many are summed up together."""
    measures = Measures({"expanded": expanded})
    for number in range(8):
        loss = torch.tensor(float("nan") if number == 5 else 1.0)
        measures.update(torch.ones(1), torch.tensor([ROOM // 3]), loss, 1)
    with pytest.raises(NonFiniteLoss, match="the loss of batch 5 "):
        measures.compute()


def test_values_of_any_shape_count_each() -> None:
    """Those of a batch may be one, or rows of any length."""
    values = iter([torch.tensor(1.0), torch.ones(2, 3), torch.zeros(2, 2), torch.zeros(0)])

    def shaped(predictions: Tensor, targets: Tensor) -> Tensor:
        return next(values)

    measures = Measures({"shaped": shaped})
    for _ in range(4):
        measures.update(torch.ones(1), torch.ones(1), torch.tensor(1.0), 1)
    assert measures.compute()["shaped"] == 7 / 11


def test_a_metric_that_gave_no_values_has_no_mean() -> None:
    """As a metric of what is not padding, where all is."""
    measures = Measures({"error": error})
    measures.update(torch.ones(0), torch.ones(0), torch.tensor(1.0), 2)
    assert str(measures.compute()) == "{'loss': 1.0, 'error': nan}"
