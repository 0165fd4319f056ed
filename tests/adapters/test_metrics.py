"""Metrics that make a report: what is in it, where it goes, and how nobody would miss it without noticing."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAUROC,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)
from torchmetrics.wrappers import MinMaxMetric

from tests.training.fakes import Learner, loader
from torchsystem import Aggregate
from torchsystem.adapters.bootstrap import Bootstrap, Interval
from torchsystem.adapters.metrics import Metrics, Reported
from torchsystem.domain.continuation import attach
from torchsystem.errors import InvalidMetric, InvalidReport, MissingMetric, UnheardReport
from torchsystem.progress import Progress
from torchsystem.services import Consumer, Producer
from torchsystem.training import Training, accuracy, device, metrics
from torchsystem.training.events import Validated
from torchsystem.training.metrics import Measures
from torchsystem.training.run import under_way

CLASSES = 3
LOSS = torch.tensor(1.0)


def reports(producer: Producer) -> list[Reported]:
    """Return the list to which reports are written."""
    log: list[Reported] = []
    consumer = Consumer("reader")

    @consumer.handler
    def write(event: Reported) -> None:
        log.append(event)

    producer.register(consumer)
    return log


def registered(*args: Any, **kwargs: Any) -> tuple[Metrics, list[Reported]]:
    """Make metrics that are heard."""
    measured, producer = Metrics(*args, **kwargs), Producer()
    producer.register(measured)
    return measured, reports(producer)


def samples(count: int) -> tuple[Tensor, Tensor]:
    """Make predictions that are often right."""
    generator = torch.Generator().manual_seed(count)
    targets = torch.randint(CLASSES, (count,), generator=generator)
    wrong = torch.rand(count, generator=generator) < 0.3
    return torch.where(wrong, (targets + 1) % CLASSES, targets), targets


def evaluated(measured: Metrics, batches: list[tuple[Tensor, Tensor]], split: str = "validation") -> dict[str, float]:
    """Evaluate a split as the training does, and tell of it."""
    measures = Measures(measured)
    with torch.no_grad():
        for predictions, targets in batches:
            measures.update(predictions, targets, LOSS, len(targets))
    computed = measures.compute()
    measured.consume(Validated(Aggregate(), Progress(), split, computed))
    return computed


def test_in_a_training_it_is_metrics_and_listener() -> None:
    """Numbers are metrics as any other; reports are of what was evaluated, and hold the matrix, too."""
    measured = Metrics(
        {"accuracy": accuracy, "f1": MulticlassF1Score(2), "confusion": MulticlassConfusionMatrix(2)},
        groups={"report": ["accuracy", "confusion"], "all": ["loss", "f1"]},
        bootstrap=Bootstrap(resamples=50),
    )
    training = Training()
    training.override(device, lambda: "cpu")
    training.override(metrics, lambda: measured)
    training.producer.register(measured)
    log = reports(training.producer)
    learner, batches = Learner(), loader()
    history = training.handle("fit", learner, {"train": batches, "validation": batches, "test": batches}, epochs=2)
    kinds = ("loss", "accuracy", "f1")
    assert set(history[0]) == {f"{split}/{kind}" for split in ("train", "validation", "test") for kind in kinds}
    assert [(report.group, report.split) for report in log] == [
        ("report", "validation"),
        ("all", "validation"),
        ("report", "test"),
        ("all", "test"),
    ] * 2
    report, other = log[-2:]
    predictions = torch.cat([learner.nn(inputs).argmax(1) for inputs, _ in batches])
    targets = torch.cat([targets for _, targets in batches])
    confusion = MulticlassConfusionMatrix(2)(predictions, targets)
    assert list(report.values) == ["accuracy", "confusion"]
    assert report.values["accuracy"] == history[-1]["test/accuracy"]
    assert torch.equal(torch.as_tensor(report.values["confusion"]), confusion)
    assert set(report.intervals) == {"accuracy"}
    assert set(other.intervals) == {"f1"}
    assert other.values["loss"] == history[-1]["test/loss"]


def trained(learner: Learner, cut: int | None) -> tuple[list[dict[str, float]], list[Reported], list[Any]]:
    """Train, with all kinds of metrics; keep the state of the run after so many batches, of whatever split."""
    taken: list[Any] = []
    count = 0

    def counted(predictions: Tensor, targets: Tensor) -> Tensor:
        nonlocal count
        count += 1
        run = under_way(learner)
        if count == cut and run is not None:
            run.when_safe(lambda: taken.extend([run.state(), learner.snapshot()]))
        return torch.ones(1)

    measured = Metrics(
        {
            "accuracy": accuracy,
            "f1": MulticlassF1Score(2),
            "confusion": MulticlassConfusionMatrix(2),
            "auroc": MulticlassAUROC(2, thresholds=None),
            "both": MetricCollection([MulticlassPrecision(2), MulticlassRecall(2)]),
            "counted": counted,
        },
        groups={"report": ["accuracy", "confusion", "both"]},
        bootstrap=Bootstrap(resamples=5),
    )
    training = Training()
    training.override(device, lambda: "cpu")
    training.override(metrics, lambda: measured)
    training.producer.register(measured)
    log = reports(training.producer)
    history = training.handle("fit", learner, {"train": loader(5), "validation": loader(4)}, epochs=2)
    return history, log, taken


class Scorer(Learner):
    """One that predicts scores."""

    def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.nn(inputs).softmax(1), super().evaluate(inputs, targets)[1]

    def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        super().fit(inputs, targets)
        output = self.nn(inputs)
        return output.softmax(1), self.criterion(output, targets)


@pytest.mark.parametrize("cut", [1, 3, 5, 6, 8, 9, 12, 16, 18])
def test_a_run_that_goes_on_comes_to_the_same_report(cut: int) -> None:
    """Wherever it was cut, in what is learned from or in what is evaluated, and bit by bit."""
    history, log, (run, snapshot) = trained(Scorer(), cut)
    attach(other := Scorer().restore(snapshot), run)
    history_of_other, log_of_other, _ = trained(other, None)
    assert history_of_other[-1] == history[-1]
    one, two = log[-1], log_of_other[-1]
    assert two.intervals == one.intervals
    assert torch.equal(torch.as_tensor(two.values["confusion"]), torch.as_tensor(one.values["confusion"]))


def test_a_report_may_have_numbers_of_a_collection() -> None:
    """Each has its interval, as those of one metric alone have."""
    collection = MetricCollection({"precision": MulticlassPrecision(CLASSES), "recall": MulticlassRecall(CLASSES)})
    measured, log = registered(
        {"both": collection, "recall": MulticlassRecall(CLASSES)},
        groups={"report": ["recall", "both"]},
        bootstrap=Bootstrap(resamples=20),
    )
    computed = evaluated(measured, [samples(40)])
    assert set(computed) == {"loss", "both.precision", "both.recall", "recall"}
    assert list(log[0].values) == ["recall", "both.precision", "both.recall"]
    assert log[0].intervals["both.recall"] == log[0].intervals["recall"] != log[0].intervals["both.precision"]


cuts = st.lists(st.integers(1, 59), max_size=6, unique=True).map(lambda cuts: [0, *sorted(cuts), 60])


@given(cuts)
@settings(max_examples=10)
def test_any_split_into_batches_makes_the_same_report(cuts: list[int]) -> None:
    """Intervals are of samples, and not of batches."""
    predictions, targets = samples(60)
    whole, log = registered(
        {"accuracy": accuracy, "f1": MulticlassF1Score(CLASSES), "confusion": MulticlassConfusionMatrix(CLASSES)},
        groups={"report": ["accuracy", "f1", "confusion"]},
        bootstrap=Bootstrap(resamples=20),
    )
    evaluated(whole, [(predictions, targets)])
    evaluated(whole, [(predictions[a:b], targets[a:b]) for a, b in pairwise(cuts)])
    one, other = log
    assert one.intervals == other.intervals
    assert {name: torch.as_tensor(value).tolist() for name, value in one.values.items()} == {
        name: torch.as_tensor(value).tolist() for name, value in other.values.items()
    }


def test_intervals_are_percentiles_of_what_drawn_samples_come_to() -> None:
    """By hand: as many as there are, drawn with replacement by a generator of one's own."""
    predictions, targets = samples(50)
    generator = torch.Generator().manual_seed(7)
    drawn = [torch.randint(50, (50,), generator=generator) for _ in range(200)]
    bootstrap = Bootstrap(resamples=200, confidence=0.9, seed=7)
    for name, metric in {"accuracy": accuracy, "f1": MulticlassF1Score(CLASSES)}.items():
        values = sorted(
            float(accuracy(predictions[draw], targets[draw]).double().mean())
            if name == "accuracy"
            else float(MulticlassF1Score(CLASSES)(predictions[draw], targets[draw]))
            for draw in drawn
        )
        low, high = bootstrap.intervals(name, metric, predictions, targets)[name]
        assert values[9] <= low <= values[10]
        assert values[189] <= high <= values[190]


def test_intervals_hold_what_they_promise() -> None:
    """About so many of them as was asked for contain what is true of all samples there could be."""
    held = 0
    for seed in range(100):
        right = torch.rand(200, generator=torch.Generator().manual_seed(seed)) < 0.7
        low, high = Bootstrap(resamples=200, confidence=0.9).intervals(
            "accuracy", accuracy, right.long(), torch.ones(200, dtype=torch.long)
        )["accuracy"]
        held += low <= 0.7 <= high
    assert 82 <= held <= 97


def test_nobody_elses_random_numbers_are_touched() -> None:
    """A run with reports is, bit by bit, the run without."""
    measured, _ = registered({"accuracy": accuracy}, groups={"report": ["accuracy"]}, bootstrap=Bootstrap(resamples=9))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    evaluated(measured, [samples(9)])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_metric_that_gives_rows_is_drawn_by_rows() -> None:
    """Samples are drawn, and not their elements."""

    def error(predictions: Tensor, targets: Tensor) -> Tensor:
        return (predictions - targets).abs()

    values = torch.arange(6.0).reshape(3, 2)
    found = Bootstrap(resamples=100).intervals("error", error, values, torch.zeros(3, 2))["error"]
    assert found.low >= 0.5
    assert found.high <= 4.5


def test_an_evaluation_of_one_sample_is_none_of_many_numbers() -> None:
    """What was kept of it does not become a metric because there is only one."""
    measured, log = registered({"accuracy": accuracy}, groups={"r": ["accuracy"]}, bootstrap=Bootstrap(resamples=3))
    assert evaluated(measured, [(torch.tensor([1]), torch.tensor([1]))]) == {"loss": 1.0, "accuracy": 1.0}
    assert log[0].intervals == {"accuracy": Interval(1.0, 1.0)}


def test_of_what_is_learned_from_no_samples_are_kept() -> None:
    """Where torch keeps gradients, a split may be large, and has no report; to ask for one is an error."""
    measured, _ = registered({"accuracy": accuracy}, groups={"r": ["accuracy"]}, bootstrap=Bootstrap(resamples=3))
    measures = Measures(measured)
    measures.update(torch.tensor([1]), torch.tensor([1]), LOSS, 1)
    computed = measures.compute()
    assert not computed.details
    with pytest.raises(InvalidReport, match="no samples were kept to find intervals by"):
        measured.consume(Validated(Learner(), Progress(), "validation", computed))


def test_metrics_are_one_thing_whatever_they_measure() -> None:
    """Two listeners with the same metrics are two."""
    one, other = Metrics({"accuracy": accuracy}), Metrics({"accuracy": accuracy})
    assert one != other
    assert len({one, other}) == 2
    assert list(one) == ["accuracy"]
    assert dict(one) == {"accuracy": accuracy}
    assert len(one) == 1


def test_reports_that_nobody_would_see_are_refused() -> None:
    """Metrics that are made anew for each call are not those that listen."""
    training = Training()
    training.override(device, lambda: "cpu")
    training.override(metrics, lambda: Metrics({"accuracy": accuracy}, groups={"report": ["accuracy"]}))
    with pytest.raises(UnheardReport, match=r"metrics: nobody would see the reports report\. .*producer\.register"):
        training.handle("validate", Learner(), loader())


def test_a_report_of_what_was_not_measured_is_refused() -> None:
    """Listening alone measures nothing."""
    measured, _ = registered({"accuracy": accuracy}, groups={"report": ["accuracy"]})
    with pytest.raises(MissingMetric, match=r"the report 'report' wants 'accuracy'; measured were: loss\. Bind it"):
        measured.consume(Validated(Learner(), Progress(), "validation", {"loss": 1.0}))


@pytest.mark.parametrize("names", ["accuracy", [], ["accuracy", "acuracy"], None, 5])
def test_a_report_of_nothing_is_refused_at_once(names: Any) -> None:
    """Also a name alone, whose letters would be taken for names."""
    with pytest.raises(InvalidReport, match=r"the report 'report' is to have .* there are: loss, accuracy"):
        Metrics({"accuracy": accuracy}, groups={"report": names})


@pytest.mark.parametrize("groups", [["accuracy"], "accuracy", {5: ["accuracy"]}])
def test_reports_without_names_are_refused(groups: Any) -> None:
    """Where they are asked for; and so are metrics without names."""
    with pytest.raises(InvalidReport, match="by the name of their report"):
        Metrics({"accuracy": accuracy}, groups=groups)
    with pytest.raises(InvalidMetric, match="has no names"):
        Metrics([accuracy])  # type: ignore[arg-type]


def test_intervals_without_a_report_are_refused() -> None:
    """They would be in none."""
    with pytest.raises(InvalidReport, match="intervals are part of a report"):
        Metrics({"accuracy": accuracy}, bootstrap=Bootstrap())


@pytest.mark.parametrize(
    "options", [{"resamples": 1}, {"resamples": True}, {"confidence": 95}, {"confidence": "95 %"}, {"seed": 0.5}]
)
def test_intervals_of_no_meaning_are_refused_at_once(options: dict[str, Any]) -> None:
    """A confidence in percent, for one."""
    with pytest.raises(InvalidReport, match=r"Bootstrap\(.*\) has no meaning"):
        Bootstrap(**options)


@pytest.mark.parametrize("name", ["a.b", "bootstrap", "", 5])
def test_names_that_mean_something_else_are_refused(name: Any) -> None:
    """A `.` parts metrics from what they come to."""
    with pytest.raises(InvalidMetric, match="Call it something else"):
        Metrics({name: accuracy}, groups={"report": [name]}, bootstrap=Bootstrap())


@pytest.mark.parametrize("collected", [False, True])
def test_a_metric_that_remembers_other_evaluations_is_refused(collected: Any) -> None:
    """It would be told of one, and report that as the best of many."""
    metric: Any = MinMaxMetric(MulticlassF1Score(CLASSES))
    with pytest.raises(InvalidMetric, match="a MinMaxMetric remembers more than one evaluation"):
        Metrics({"best": MetricCollection({"f1": metric}) if collected else metric})


@pytest.mark.parametrize(
    ("predictions", "targets"),
    [((torch.ones(2),), torch.ones(2)), (torch.ones(2), None), (torch.ones(2), torch.ones(3))],
)
def test_samples_that_cannot_be_drawn_from_are_refused(predictions: Any, targets: Any) -> None:
    """At the first batch."""

    def nothing(*_: Any) -> Tensor:
        return torch.ones(2)

    measured, _ = registered({"nothing": nothing}, groups={"r": ["nothing"]}, bootstrap=Bootstrap())
    with torch.no_grad(), pytest.raises(InvalidReport, match="no samples can be drawn from"):
        Measures(measured).update(predictions, targets, LOSS, 2)


def test_a_function_that_gives_no_value_per_sample_has_no_interval() -> None:
    """It is refused by name."""

    def mean(predictions: Tensor, targets: Tensor) -> Tensor:
        return (predictions == targets).float().mean()

    with pytest.raises(InvalidReport, match=r"metric 'mean' gave values of shape \(\) for 3 samples"):
        Bootstrap().intervals("mean", mean, torch.ones(3), torch.ones(3))


def test_without_torchmetrics_the_extra_is_named() -> None:
    """The rest of the library does without."""
    program = (
        "import sys; sys.modules['torchmetrics'] = None\n"
        "import torchsystem.training\n"
        "try:\n    import torchsystem.adapters.metrics\n"
        "except ImportError as error:\n    print(type(error).__name__, error)"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout  # noqa: S603
    assert "MissingExtra" in said
    assert "torchsystem[metrics]" in said
