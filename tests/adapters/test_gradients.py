"""Gradients: their norms on an interval, and a word when they leave their bounds."""

from __future__ import annotations

import logging
import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

from tests.adapters.boards import loaders, network, take_turns, training
from tests.training.fakes import Learner
from torchsystem import Aggregate
from torchsystem.adapters.gradients import Gradients, GradientsExploded, GradientsVanished
from torchsystem.adapters.learning_rate import LearningRate
from torchsystem.adapters.tensorboard import TensorBoard
from torchsystem.errors import InvalidOption, InvalidState, MissingOptimization
from torchsystem.progress import Progress
from torchsystem.services import Consumer, Producer, background, deferred
from torchsystem.training import Optimization, Supervised
from torchsystem.training.events import GradientsUpdated
from torchsystem.triggers import every


class Pair(Aggregate):
    """Two layers whose gradients are set by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(2, 1), nn.Linear(2, 1, bias=False)
        self.optimization = Optimization(
            optim.SGD([{"params": self.one.parameters()}, {"params": self.two.parameters()}])
        )

    def have(self, one: float, two: float) -> Pair:
        """Set all gradients of a layer to one value."""
        for layer, value in ((self.one, one), (self.two, two)):
            for parameter in layer.parameters():
                parameter.grad = torch.full_like(parameter, value)
        return self


def update(model: Aggregate, batch: int = 0, *, steps: bool = True) -> GradientsUpdated:
    """Make the event of a backward pass."""
    return GradientsUpdated(model, Progress(batch=batch, step=batch), "optimizer", 0, steps)


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("layer", {"one": 3 * math.sqrt(3), "two": 4 * math.sqrt(2)}),
        ("group", {"group 0": 3 * math.sqrt(3), "group 1": 4 * math.sqrt(2)}),
        ("parameter", {"one.weight": 3 * math.sqrt(2), "one.bias": 3.0, "two.weight": 4 * math.sqrt(2)}),
    ],
)
def test_norms_are_those_of_each_part_and_of_all(by: Any, expected: dict[str, float]) -> None:
    """The Euclidean norm of what belongs together."""
    gradients = Gradients(every(1, "batches"), by=by)
    gradients.consume(update(Pair().have(3.0, 4.0), 1))
    [record] = gradients.records
    assert record.norms == pytest.approx({**expected, "total": math.sqrt(27 + 32)})


@pytest.mark.parametrize(
    ("dtypes", "value", "norm"),
    [
        ([torch.float64], 3e150, math.sqrt(3) * 3e150),
        ([torch.float64, torch.float32], 2.0, math.sqrt(20)),
        ([torch.float32, torch.bfloat16], 2.0, math.sqrt(20)),
        ([torch.complex64], 3 + 4j, math.sqrt(3) * 5),
        ([torch.complex128, torch.float32], 2.0, math.sqrt(20)),
    ],
)
def test_gradients_may_be_of_any_type_that_can_be_learned(dtypes: list[torch.dtype], value: Any, norm: float) -> None:
    """Also of double precision, where a norm may be larger than a smaller type knows, and complex."""
    model = Pair()
    for (_, layer), dtype in zip(model.named_children(), dtypes, strict=False):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Complex modules are a new feature")
            layer.to(dtype)
        for parameter in layer.parameters():
            parameter.grad = torch.full_like(parameter, value)
    gradients = Gradients(every(1, "batches"))
    gradients.consume(update(model, 1))
    [record] = gradients.records
    assert record.norms["total"] == pytest.approx(norm)


def test_it_looks_on_its_interval_and_only_before_steps() -> None:
    """What an accumulated group has gathered is the gradient; and of a moment that it missed it looks at the next."""
    gradients, model = Gradients(every(4, "batches")), Pair().have(1.0, 1.0)
    for batch in range(15):
        gradients.consume(update(model, batch, steps=batch % 3 == 2))
    assert [record.batch for record in gradients.records] == [5, 8, 14]


def test_the_norm_is_that_before_clipping() -> None:
    """So that what is clipped away is seen."""
    layers = network()
    model = Supervised(
        layers, nn.CrossEntropyLoss(), Optimization(optim.SGD(layers.parameters(), lr=0.1), clip_norm=1e-3)
    )
    gradients = Gradients(every(1, "batches"))
    training(gradients).fit(model, loaders(3), epochs=1)
    assert [record.batch for record in gradients.records] == [1, 2]
    assert all(record.norms["total"] > 1e-2 for record in gradients.records)


def test_all_norms_are_read_in_one_go() -> None:
    """One read for all parts of a moment, and none in between."""
    reads: list[str] = []

    class Spy(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            reads.append(func.__name__)
            return super().__torch_function__(func, types, args, kwargs or {})

    gradients, model = Gradients(every(4, "batches")), Pair().have(1.0, 1.0)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter).as_subclass(Spy)
    for batch in range(4):
        gradients.consume(update(model, batch))
    assert not {"linalg_vector_norm", "tolist", "item"} & set(reads)
    gradients.consume(update(model, 4))
    assert reads.count("tolist") == 1
    assert not {"item", "__float__", "__bool__", "cpu", "numpy"} & set(reads)


def heard(*kinds: Any) -> tuple[Consumer, list[Any]]:
    """Make a listener of alerts, and the list it writes them to."""
    log: list[Any] = []
    consumer = Consumer()

    @consumer.handler
    def write(event: GradientsVanished | GradientsExploded) -> None:
        log.append((type(event).__name__, event.part, event.progress.batch))

    return consumer, log


def test_what_leaves_its_bounds_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Until it comes back; what is not finite has exploded."""
    gradients, producer, model = Gradients(every(1, "batches"), vanishing=0.1, exploding=10), Producer(), Pair()
    consumer, log = heard()
    producer.register(gradients, consumer)
    course = [(1.0, 1.0), (0.0, 1.0), (0.0, 1.0), (1.0, 1.0), (1.0, math.nan), (1.0, math.inf), (0.0, 1.0)]
    for batch, (one, two) in enumerate(course, start=1):
        producer.dispatch(update(model.have(one, two), batch))
    assert log == [
        ("GradientsVanished", "one", 2),
        ("GradientsExploded", "two", 5),
        ("GradientsExploded", "total", 5),
        ("GradientsVanished", "one", 7),
    ]
    assert caplog.records == []


def test_what_nobody_hears_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An alert is never silent."""
    gradients, model = Gradients(every(1, "batches"), exploding=10), Pair()
    with caplog.at_level(logging.WARNING, "torchsystem.adapters"):
        gradients.consume(update(model.have(1.0, 100.0), 1))
    assert "the gradient of two (optimizer) exploded at batch 1" in caplog.text


@given(st.integers(1, 4), st.integers(0, 3), st.integers(1, 7))
@settings(max_examples=8)
def test_a_resumed_run_has_neither_gaps_nor_doubles(kept: int, lost: int, interval: int) -> None:
    """However far it had come before."""
    alone, first, second = (Gradients(every(interval, "batches")) for _ in range(3))
    take_turns(alone, first, second, kept=kept, lost=lost)
    assert second.records == alone.records


def test_it_remembers_of_what_was_told() -> None:
    """A run that goes on does not tell the same again."""
    first, second = (Gradients(every(1, "batches"), exploding=1.0) for _ in range(2))
    model = Pair().have(5.0, 5.0)
    first.consume(update(model, 1))
    second.load_state_dict(first.state_dict())
    consumer, log = heard()
    producer = Producer()
    producer.register(second, consumer)
    producer.dispatch(update(model, 2))
    assert log == []


def test_an_aggregate_that_steps_by_hand_is_named() -> None:
    """Nobody would tell of its gradients."""
    with pytest.raises(ExceptionGroup) as caught:
        training(Gradients()).fit(Learner(), loaders(), epochs=1)
    assert caught.group_contains(MissingOptimization, match="gradients: Learner has no Optimization")


def test_the_state_of_something_else_is_refused() -> None:
    """And nothing is changed."""
    gradients = Gradients(every(1, "batches"))
    gradients.consume(update(Pair().have(1.0, 1.0), 1))
    before = gradients.state_dict()
    for state in ({"handlers": {}}, {**before, "records": [[1]]}, {**before, "moments": {"optimizer": {}}}):
        with pytest.raises(InvalidState):
            gradients.load_state_dict(state)
    assert gradients.state_dict() == before


@pytest.mark.parametrize(
    "options",
    [
        {"when": 10},
        {"by": "module"},
        {"vanishing": -1.0},
        {"vanishing": "low"},
        {"vanishing": 2.0, "exploding": 1.0},
        {"exploding": math.nan},
    ],
)
def test_options_without_meaning_are_refused(options: dict[str, Any]) -> None:
    """When it is made."""
    with pytest.raises(InvalidOption, match="has no meaning"):
        Gradients(**options)


@pytest.mark.parametrize("delivery", [background(), deferred])
@pytest.mark.parametrize("kind", [Gradients, LearningRate, TensorBoard])
def test_who_looks_at_what_is_trained_is_delivered_to_at_once(kind: Any, delivery: Any) -> None:
    """Later, or in a thread, it would look at other weights, or at memory that is let go of: it is refused."""
    producer, listener = Producer(), kind()
    with pytest.raises(InvalidOption, match="without `delivery=`"):
        producer.register(listener, delivery=delivery)
    assert producer.listeners() == []
    producer.register(listener, where="leader")
    assert producer.listeners() == [listener]
