"""Metrics that are no means: each split's own, read with all others, and cut anywhere."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)
from torchmetrics.regression import ConcordanceCorrCoef, PearsonCorrCoef

from torchsystem.errors import InvalidMetric, MetricMismatch, NonFiniteLoss
from torchsystem.training.computed import details
from torchsystem.training.metrics import FOLD, Measures, accuracy

LOSS = torch.tensor(1.0)
CLASSES = 3


class Hits:
    """What was predicted right; all it remembers is in its attributes."""

    def __init__(self) -> None:
        self.right: Tensor | int = 0
        self.seen = 0
        self.sizes: list[int] = []

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        self.right = self.right + accuracy(predictions, targets).sum()
        self.seen += len(targets)
        self.sizes.append(len(targets))

    def compute(self) -> Any:
        assert self.seen == sum(self.sizes)
        return self.right / self.seen

    def reset(self) -> None:
        Hits.__init__(self)


class Told(Hits):
    """The same, with something that nobody can keep, and a say in what is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.secret = object()

    def state_dict(self) -> dict[str, Any]:
        return {"right": self.right, "seen": self.seen, "sizes": self.sizes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


MADE: dict[str, Callable[[], Any]] = {
    "states": lambda: MulticlassF1Score(CLASSES, validate_args=False),
    "lists": lambda: MulticlassAUROC(CLASSES, thresholds=None, validate_args=False),
    "a collection": lambda: MetricCollection([MulticlassPrecision(CLASSES), MulticlassRecall(CLASSES)]),
    "a composition": lambda: (
        MulticlassPrecision(CLASSES, average="micro") + MulticlassRecall(CLASSES, average="macro") * 2
    ),
    "attributes": Hits,
    "a state_dict": Told,
}


def samples(count: int) -> tuple[Tensor, Tensor]:
    """Make predictions, and what was to be predicted, with all classes in it."""
    generator = torch.Generator().manual_seed(count)
    scores = torch.rand(count, CLASSES, generator=generator).softmax(1)
    return scores, torch.arange(count) % CLASSES


def taken_in(measures: Measures, batches: list[tuple[Tensor, Tensor]]) -> Measures:
    """Take in batches, each with the same loss."""
    for predictions, targets in batches:
        measures.update(predictions, targets, LOSS.to(targets.device), len(targets))
    return measures


cuts = st.lists(st.integers(1, 39), max_size=6, unique=True).map(lambda cuts: [0, *sorted(cuts), 40])


@given(cuts)
@settings(max_examples=25)
def test_any_split_into_batches_comes_to_the_same(cuts: list[int]) -> None:
    """And to what torchmetrics says of all samples at once."""
    predictions, targets = samples(40)
    batches = [(predictions[a:b], targets[a:b]) for a, b in pairwise(cuts)]
    f1, hits = MulticlassF1Score(CLASSES), Hits()
    computed = taken_in(Measures({"accuracy": accuracy, "f1": f1, "hits": hits}), batches).compute()
    assert list(computed) == ["loss", "accuracy", "f1", "hits"]
    assert computed["f1"] == pytest.approx(MulticlassF1Score(CLASSES)(predictions, targets).item())
    assert computed["accuracy"] == accuracy(predictions, targets).float().mean(dtype=torch.float64).item()
    assert computed["hits"] == pytest.approx(computed["accuracy"])


@pytest.mark.parametrize("kind", MADE)
@given(cuts, st.integers(0, 7), st.booleans())
@settings(max_examples=15)
def test_a_cut_anywhere_changes_not_a_bit(kind: str, cuts: list[int], cut: int, placed: Any) -> None:
    """Whatever a metric is made of: one that takes up its state comes to what the other one would have."""
    predictions, targets = samples(40)
    batches = [(predictions[a:b], targets[a:b]) for a, b in pairwise(cuts)]
    first, second = (Measures({"it": MADE[kind](), "accuracy": accuracy}) for _ in range(2))
    state = taken_in(first, batches[:cut]).state_dict()
    kept = deepcopy(state)
    expected = taken_in(first, batches[cut:]).compute()
    assert str(state) == str(kept), "a state does not change when the other one goes on"
    second.load_state_dict(state, torch.device("cpu") if placed else None)
    assert taken_in(second, batches[cut:]).compute() == expected
    assert str(state) == str(kept), "nor when it was taken up"


def test_what_metrics_of_a_collection_share_is_kept_as_it_is() -> None:
    """In a group of a collection only the first one takes in batches; the others look at it when they are asked."""

    def made() -> Measures:
        return Measures({"both": MetricCollection([PearsonCorrCoef(), ConcordanceCorrCoef()])})

    generator = torch.Generator().manual_seed(0)
    batches = [(torch.rand(5, generator=generator), torch.rand(5, generator=generator)) for _ in range(6)]
    first, second = made(), made()
    second.load_state_dict(taken_in(first, batches[:4]).state_dict())
    assert taken_in(second, batches[4:]).compute() == taken_in(first, batches[4:]).compute()


def test_splits_that_share_a_metric_do_not_mix() -> None:
    """Each has a copy of its own, also when one is gone through in the middle of the other."""
    hits = Hits()
    train, validation = Measures({"hits": hits}), Measures({"hits": hits})
    right, wrong = (torch.tensor([1]), torch.tensor([1])), (torch.tensor([0]), torch.tensor([1]))
    taken_in(train, [right])
    assert taken_in(validation, [wrong]).compute() == {"loss": 1.0, "hits": 0.0}
    assert taken_in(train, [right]).compute() == {"loss": 1.0, "hits": 1.0}
    assert hits.seen == 0, "the one that was given is left alone"


def test_a_report_begins_anew() -> None:
    """What was reported is not reported again."""
    measures = Measures({"f1": MulticlassF1Score(CLASSES)})
    taken_in(measures, [(torch.tensor([0, 1]), torch.tensor([1, 2]))])
    assert measures.compute()["f1"] == 0.0
    taken_in(measures, [(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]))])
    assert measures.compute()["f1"] == 1.0


class Reads(TorchFunctionMode):
    """Count how often a value is read."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += getattr(function, "__name__", "") in {"tolist", "item", "__float__", "__bool__", "__int__"}
        return function(*args, **(kwargs or {}))


def test_all_is_read_at_once() -> None:
    """However many metrics there are, of whatever kind."""
    measures = Measures({"accuracy": accuracy, "one": Hits(), "more": Named(), "other": Hits()})
    with Reads() as reads:
        taken_in(measures, [samples(12)] * 3)
        assert reads.count == 0
        measures.compute()
    assert reads.count == 1


class Named(Hits):
    """One that comes to more than one number."""

    def compute(self) -> Any:
        return {"share": self.right / self.seen, "seen": self.seen, "deep": {"er": torch.tensor(7)}}


def test_numbers_by_name_are_metrics_each() -> None:
    """Named after the metric and themselves."""
    computed = taken_in(Measures({"hits": Named()}), [(torch.tensor([1]), torch.tensor([1]))]).compute()
    assert computed == {"loss": 1.0, "hits.share": 1.0, "hits.seen": 1.0, "hits.deep.er": 7.0}


class Came(Hits):
    """One that comes to whatever it was told."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def compute(self) -> Any:
        return self.result

    def reset(self) -> None:
        self.seen = 0


def came_to(result: Any) -> Measures:
    """Let a metric come to something."""
    measures = Measures({"it": Came({}), "accuracy": accuracy})
    measures._own["it"]._one.result = result  # noqa: SLF001 - what cannot be kept is refused before it comes that far
    return taken_in(measures, [(torch.tensor([1]), torch.tensor([1]))])


def test_what_is_more_than_one_number_is_beside_the_numbers() -> None:
    """A matrix has no place in a table of numbers; whoever wants it has it all the same."""
    matrix = torch.ones(2, 2)
    computed = came_to(
        {
            "matrix": matrix,
            "share": torch.tensor(0.5),
            "row": torch.ones(1),
            "curve": (torch.arange(3), [2, 1j * torch.ones(1)]),
        }
    )
    measured = computed.compute()
    matrix.zero_()
    assert measured == {"loss": 1.0, "it.share": 0.5, "it.curve.1.0": 2.0, "accuracy": 1.0}
    assert list(measured) == ["loss", "it.share", "it.curve.1.0", "accuracy"]
    assert {name: value.tolist() for name, value in details(measured).items()} == {
        "it.matrix": [[1.0, 1.0], [1.0, 1.0]],
        "it.row": [1.0],
        "it.curve.0": [0, 1, 2],
        "it.curve.1.1": [1j],
    }


@pytest.mark.parametrize(
    ("result", "what"),
    [
        ("much", "'it' came to 'much', which is a str"),
        (None, "'it' came to None, which is a NoneType"),
        ({"deep": [{1, 2}]}, "'it.deep.0' came to {1, 2}, which is a set"),
        ({"a/b": 1.0}, "'it.a/b': the name has a '/'"),
        (1j, "'it' came to 1j"),
    ],
)
def test_what_is_neither_is_refused(result: Any, what: str) -> None:
    """By name."""
    with pytest.raises(InvalidMetric, match=what):
        came_to(result).compute()


def test_two_that_come_to_the_same_name_are_refused() -> None:
    """One would hide the other."""
    measures = Measures({"hits.seen": accuracy, "hits": Named()})
    with pytest.raises(InvalidMetric, match=r"two metrics come to a 'hits.seen'"):
        taken_in(measures, [(torch.tensor([1]), torch.tensor([1]))]).compute()


class Slotted:
    """One that remembers where nobody looks."""

    __slots__ = ("seen",)

    def update(self, predictions: Tensor, targets: Tensor) -> None: ...

    def compute(self) -> float:
        return 0.0

    def reset(self) -> None: ...


@pytest.mark.parametrize(("metric", "what"), [(Slotted(), "Slotted"), (Came(object()), "Came")])
def test_one_that_cannot_be_kept_is_refused_at_once(metric: Any, what: str) -> None:
    """And not only when a run is killed, and should go on."""
    with pytest.raises(InvalidMetric, match=rf"'it': nobody can keep what {what} remembers: .* Give it a state_dict"):
        Measures({"it": metric})


@pytest.mark.parametrize("metric", [MulticlassF1Score, Hits, 3, None])
def test_what_is_no_metric_is_refused_at_once(metric: Any) -> None:
    """A class is callable, too."""
    with pytest.raises(InvalidMetric, match=r"metric 'it' is .*\(not its class\)"):
        Measures({"it": metric})


def test_a_function_that_gives_no_tensor_is_refused_at_its_first_batch() -> None:
    """And not when it is summed up, much later."""

    def half(predictions: Tensor, targets: Tensor) -> float:
        return 0.5

    with pytest.raises(InvalidMetric, match=r"metric 'it' gave 0.5, which is no tensor"):
        taken_in(Measures({"it": half}), [(torch.tensor([1]), torch.tensor([1]))])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (MulticlassF1Score(3), MulticlassAUROC(3, thresholds=None)),
        (MulticlassF1Score(3), MetricCollection([MulticlassF1Score(3)])),
        (Hits(), Came(1.0)),
        (Hits(), accuracy),
    ],
)
def test_the_state_of_another_metric_of_the_same_name_is_refused(one: Any, other: Any) -> None:
    """It would be taken for what it is not."""
    with pytest.raises(MetricMismatch, match=r"[Gg]o on with the same metric"):
        Measures({"it": other}).load_state_dict(Measures({"it": one}).state_dict())


class Placed(Hits):
    """One that is brought somewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def to(self, device: torch.device) -> None:
        self.places.append(device.type)

    def reset(self) -> None:
        self.right, self.seen = 0, 0

    def update(self, predictions: Any, targets: Any) -> None: ...


def test_it_is_brought_to_where_the_predictions_are() -> None:
    """Once, and again only when they come from elsewhere."""
    measures = Measures({"it": Placed()})
    for device in ("cpu", "cpu", "meta"):
        measures.update({"many": [torch.ones(1, device=device)]}, None, LOSS, 1)
    assert list(measures._own["it"]._one.places) == ["cpu", "meta"]  # noqa: SLF001


@pytest.mark.parametrize("kind", ["lists", "attributes"])
@pytest.mark.parametrize("placed", ["when it is taken up", "by the next batch"])
def test_a_state_is_brought_to_where_the_run_goes_on(kind: str, placed: str) -> None:
    """It comes from a file, and a file knows no devices."""
    meta = torch.device("meta")
    first, second = (Measures({"it": MADE[kind](), "accuracy": accuracy}) for _ in range(2))
    state = taken_in(first, [samples(9)] * (FOLD + 3)).state_dict()
    if placed == "when it is taken up":
        second.load_state_dict(state, meta)
    else:
        second.load_state_dict(state)
        taken_in(second, [(scores.to(meta), targets.to(meta)) for scores, targets in [samples(9)]] * FOLD)
    tensors = [value for value in leaves(second.state_dict()) if isinstance(value, Tensor)]
    assert tensors
    assert {tensor.device for tensor in tensors} == {meta}


def leaves(value: Any) -> list[Any]:
    """Return what is in a state."""
    if isinstance(value, dict | list):
        return [leaf for part in (value.values() if isinstance(value, dict) else value) for leaf in leaves(part)]
    return [value]


def test_predictions_stay_what_they_are() -> None:
    """Those that tell their parts by name still do, to whoever measures."""

    class Output(OrderedDict[str, Tensor]):
        def __getattr__(self, name: str) -> Tensor:
            return self[name]

    def logits(predictions: Any, _: Any) -> Any:
        return predictions.logits

    measures = Measures({"logits": logits})
    output = Output(logits=torch.ones(2, requires_grad=True) * 2)
    measures.update(output, None, LOSS, 2)
    assert output.logits.requires_grad
    assert not measures.state_dict()["kept"]["logits"].requires_grad
    assert measures.compute()["logits"] == 2.0


def test_nothing_that_is_kept_can_be_differentiated() -> None:
    """Or the graphs of many batches would be kept with it."""
    seen: list[Any] = []

    class Listed(Hits):
        def update(self, predictions: Any, _: Any) -> None:
            seen.append(predictions)

        def compute(self) -> float:
            return 0.0

    def function(predictions: Any, targets: Tensor) -> Tensor:
        return (predictions if isinstance(predictions, Tensor) else predictions[0]) * 2

    measures = Measures({"it": Listed(), "function": function})
    weight = torch.ones(2, requires_grad=True)
    for predictions in (weight * 2, (weight * 2, [weight * 3]), [weight * 2, {"a": weight * 2}]):
        measures.update(predictions, weight, weight.sum(), 2)
    assert not seen[0].requires_grad
    assert not seen[1][0].requires_grad
    assert not seen[1][1][0].requires_grad
    assert not seen[2][1]["a"].requires_grad
    state = measures.state_dict()
    assert not state["losses"].requires_grad
    assert not state["kept"]["function"].requires_grad


def test_a_loss_that_is_not_finite_is_named_before_what_came_of_it() -> None:
    """A metric that cannot be computed of such predictions is not what is wrong."""

    class Picky(Hits):
        def compute(self) -> float:
            raise ValueError("these are no probabilities")

    measures = Measures({"it": Picky()})
    measures.update(torch.ones(1), torch.ones(1), torch.tensor(float("nan")), 1)
    with pytest.raises(NonFiniteLoss, match="batch 0"):
        measures.compute()
    measures.reset()
    with pytest.raises(ValueError, match="no probabilities"):
        taken_in(measures, [(torch.ones(1), torch.ones(1))]).compute()


def test_a_confusion_matrix_is_what_torchmetrics_says() -> None:
    """Over all batches."""
    predictions, targets = samples(40)
    measures = Measures({"confusion": MulticlassConfusionMatrix(CLASSES), "accuracy": MulticlassAccuracy(CLASSES)})
    computed = taken_in(measures, [(predictions[:30], targets[:30]), (predictions[30:], targets[30:])]).compute()
    assert list(computed) == ["loss", "accuracy"]
    assert computed.details["confusion"].equal(MulticlassConfusionMatrix(CLASSES)(predictions, targets))
