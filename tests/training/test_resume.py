"""A run that is cut after any batch and goes on in fresh objects is the run left alone, bit by bit."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, Sampler, WeightedRandomSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from tests.training.resuming import Loaders, Net, Points, cut, data_loaders, of_ones_own, tell
from torchsystem.domain.continuation import attach
from torchsystem.errors import InexactLoader, MismatchedRun, UnnamedListener
from torchsystem.services import Consumer
from torchsystem.training import EarlyStopping, Training, accuracy, batches, device, epochs, metrics
from torchsystem.training.events import Lifecycle, ProcessStarted
from torchsystem.training.memories import ListenerLeft
from torchsystem.training.run import under_way


class Zigzag(Sampler[int]):
    """A sampler of one's own, that draws from Python's random numbers."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        import random  # noqa: PLC0415 - where it is used

        return iter(sorted(range(self.count), key=lambda _: random.random()))  # noqa: S311


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Data that can only be iterated, and knows where it is."""

    def __init__(self) -> None:
        self.points = Points()
        self.start = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while self.start < len(self.points):
            self.start += 1
            yield self.points[self.start - 1]
        self.start = 0

    def state_dict(self) -> dict[str, Any]:
        return {"start": self.start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start = state["start"]


def weighted() -> dict[str, Any]:
    """Draw some samples more often than others."""
    sampler = WeightedRandomSampler([0.5] * 11 + [1.5] * 11, 16)
    return {"train": DataLoader(Points(), sampler=sampler, batch_size=3), "validation": DataLoader(Points(9), 4)}


def with_replacement() -> dict[str, Any]:
    """Draw samples again and again, from a generator of the sampler."""
    generator = torch.Generator().manual_seed(4)
    sampler = RandomSampler(Points(), replacement=True, num_samples=40, generator=generator)
    return {"train": DataLoader(Points(), sampler=sampler, batch_size=8), "validation": DataLoader(Points(9), 4)}


def batch_sampler() -> dict[str, Any]:
    """Draw batches by a sampler that nobody knows."""
    sampler = BatchSampler(Zigzag(22), 5, drop_last=True)
    return {"train": DataLoader(Points(noisy=True), batch_sampler=sampler), "validation": DataLoader(Points(9), 4)}


def with_a_generator() -> dict[str, Any]:
    """Draw the order from a generator of the loader."""
    return data_loaders(generator=torch.Generator().manual_seed(2), noisy=True)()


def lists() -> dict[str, Any]:
    """Give batches that are ready."""
    points = Points()
    items = [(points.points[at : at + 4], (points.points[at : at + 4].sum(1) > 0).long()) for at in range(0, 22, 4)]
    return {"train": items, "validation": tuple(items[:2])}


def stream() -> dict[str, Any]:
    """Give data that can only be iterated."""
    return {"train": StatefulDataLoader(Stream(), batch_size=4), "validation": DataLoader(Points(9), 4)}


def stateful() -> dict[str, Any]:
    """Give torchdata's loader over data that could be asked for any sample."""
    return {"train": StatefulDataLoader(Points(noisy=True), batch_size=4, shuffle=True), "validation": lists()["train"]}


EXACT: dict[str, Loaders] = {
    "shuffled": data_loaders(noisy=True),
    "a generator of the loader": with_a_generator,
    "a generator of the data": data_loaders(own=True),
    "weighted": weighted,
    "with replacement": with_replacement,
    "a batch sampler of one's own": batch_sampler,
    "lists": lists,
    "a stream that knows where it is": stream,
    "a loader that knows where it is": stateful,
}


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
@pytest.mark.parametrize("loaders", EXACT.values(), ids=EXACT)
def test_a_run_goes_on_exactly_where_it_was(loaders: Loaders) -> None:
    """Cut after each batch of training and validation and after each epoch: state, metrics, history, events.

    The model has dropout, accumulation, clipping, a schedule per step and a warm-up; early stopping watches it.
    """
    whole, found = cut(loaders, epochs=3)
    assert len(whole.kept) >= 20
    assert found == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loop_of_ones_own_goes_on_exactly_too(workers: int) -> None:
    """Over `epochs` and `batches`, with what it gathers kept by `epoch.keep`, from training and validation alike."""
    loaders = data_loaders(noisy=True, num_workers=workers)
    whole, found = cut(loaders, every=7 if workers else 1, epochs=3, loop=of_ones_own)
    assert found == []
    assert whole.history == tell(loaders, epochs=3).history


def test_a_generator_that_is_shared_is_made_anew_for_each_run() -> None:
    """The table above would prove nothing if the loaders of two runs shared a generator."""
    first, second = EXACT["a generator of the data"](), EXACT["a generator of the data"]()
    assert first["train"].dataset.own is not second["train"].dataset.own


@pytest.mark.parametrize("persistent", [False, True])
def test_a_run_with_workers_goes_on_exactly(persistent: bool) -> None:  # noqa: FBT001
    """Random data of two workers is the same after a cut, whether they stay from epoch to epoch or not."""
    whole, found = cut(data_loaders(noisy=True, num_workers=2, persistent_workers=persistent), every=5, epochs=2)
    assert len(whole.kept) >= 18
    assert found == []


@pytest.mark.parametrize("persistent", [False, True])
def test_no_worker_outlives_its_run(persistent: bool) -> None:  # noqa: FBT001
    """They end with the run, and not when garbage is collected, in whatever thread and at whatever moment that is."""
    gc.collect()
    gc.disable()
    try:
        before = set(multiprocessing.active_children())
        tell(data_loaders(num_workers=2, persistent_workers=persistent), epochs=2)
        assert set(multiprocessing.active_children()) <= before
    finally:
        gc.enable()


def test_the_number_of_workers_may_change() -> None:
    """Random numbers are seeded by batch: one worker goes on where two were."""
    two, one = data_loaders(noisy=True, num_workers=2), data_loaders(noisy=True, num_workers=1)
    _, found = cut(two, after=one, every=9, epochs=2)
    assert found == []


def test_workers_may_not_come_or_go_if_the_data_is_random() -> None:
    """What a worker draws is not what the loop would have drawn; data that draws nothing does not care."""
    none, two = data_loaders(noisy=True), data_loaders(noisy=True, num_workers=2)
    whole = tell(none, epochs=1)
    with pytest.raises(MismatchedRun, match=r"num_workers = none .* it is now one or more"):
        tell(two, checkpoint=whole.kept[2], epochs=1)
    whole = tell(two, epochs=1)
    with pytest.raises(MismatchedRun, match=r"num_workers = one or more .* it is now none"):
        tell(none, checkpoint=whole.kept[2], epochs=1)
    _, found = cut(data_loaders(), after=data_loaders(num_workers=2), every=6, epochs=1)
    assert found == []


@pytest.mark.parametrize(
    "loaders", [data_loaders(noisy=True), weighted, batch_sampler], ids=["plain", "weighted", "own"]
)
def test_the_batches_are_those_of_a_plain_loop(loaders: Loaders) -> None:
    """The order, and what the data set draws, are what plain iteration over the loader gives, epoch after epoch."""
    torch.manual_seed(0)
    _seed_python()
    plain = [batch[0] for _ in range(2) for batch in loaders()["train"]]
    torch.manual_seed(0)
    _seed_python()
    model, loader = Net(), None
    torch.manual_seed(0)
    seen = []
    for epoch in epochs(model, epochs=2):
        loader = loaders()["train"]
        for batch in batches(epoch, loader):
            seen.append(batch[0])
            model.optimization.step(model.nn[0](batch[0]).sum())
    assert len(seen) == len(plain)
    assert all(map(torch.equal, seen, plain))


def _seed_python() -> None:
    import random  # noqa: PLC0415 - where it is used

    import numpy as np  # noqa: PLC0415

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002


def test_the_loader_of_the_user_is_not_touched() -> None:
    """Its attributes are the same objects before and after."""
    loaders = data_loaders(num_workers=1)()
    before = {name: dict(vars(loader)) for name, loader in loaders.items()}
    tell(lambda: loaders, epochs=1)
    assert {name: dict(vars(loader)) for name, loader in loaders.items()} == before


class Asks(Consumer):
    """Say that the run will be kept, as checkpoints do."""

    def __init__(self, *, exact: bool = True) -> None:
        super().__init__("asks")
        self.exact = exact
        self.handler(self.ask)

    def ask(self, event: ProcessStarted) -> None:
        run = under_way(event.aggregate)
        assert run is not None
        run.keep(lambda: None, exact=self.exact)


class Endless(Sampler[int]):
    """A sampler that does not say how long it is."""

    def __iter__(self) -> Iterator[int]:
        yield from range(8)


def generated() -> Iterator[tuple[Tensor, Tensor]]:
    """Give one batch, once."""
    yield torch.ones(4, 3), torch.zeros(4).long()


INEXACT = {
    "in any order": (lambda: DataLoader(Points(), 4, num_workers=2, in_order=False), "in any order"),
    "only iterated": (lambda: DataLoader(Iterated(), 4), "only be iterated"),
    "no length": (lambda: DataLoader(Points(), 4, sampler=Endless()), "no length"),
    "a generator in workers": (lambda: data_loaders(own=True, num_workers=2)()["train"], "generators"),
    "no loader": (generated, "nobody can tell where a generator goes on"),
}


class Iterated(IterableDataset[tuple[Tensor, Tensor]]):
    """Data that can only be iterated, and does not know where it is."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from (Points()[number] for number in range(12))


@pytest.mark.parametrize(("loader", "why"), INEXACT.values(), ids=INEXACT)
def test_what_cannot_be_continued_exactly_is_refused_before_the_first_batch(loader: Any, why: str) -> None:
    """By name, if somebody keeps the run, in any split; accepted by a word; and nobody's business if nobody does."""
    for split in ("train", "validation"):
        heard: list[str] = []
        training = Training()
        training.override(device, lambda: "cpu")
        training.producer.register(Asks(), listener(heard))
        with pytest.raises(InexactLoader, match=why) as caught:
            training.handle("fit", Net(), {"train": lists()["train"], split: loader()}, epochs=1)
        assert f"the loader of {split!r}" in str(caught.value)
        assert "BatchStarted" not in heard
    for asks in ([], [Asks(exact=False)]):
        accepting = Training()
        accepting.override(device, lambda: "cpu")
        accepting.producer.register(*asks)
        assert accepting.handle("fit", Net(), {"train": loader()}, epochs=1)


def listener(heard: list[str]) -> Consumer:
    """Make what writes down the names of events."""
    consumer = Consumer()

    @consumer.handler
    def hear(event: Lifecycle) -> None:
        heard.append(type(event).__name__)

    return consumer


def test_other_data_is_refused_by_name_or_accepted_by_a_word() -> None:
    """Another data set, size or batch size is a mistake, unless it is said to be none."""
    whole = tell(data_loaders(), epochs=2)
    smaller = data_loaders(batch_size=3)
    with pytest.raises(MismatchedRun, match="batch_size = 4 in the split 'train', where it is now 3"):
        tell(smaller, checkpoint=whole.kept[1], epochs=2)
    assert tell(smaller, checkpoint=whole.kept[1], epochs=2, accept="train.*").history


def test_a_class_is_the_same_when_its_file_is_run_and_when_it_is_imported() -> None:
    """Then it is of `__main__`, which is not the name of a module; one of another name is another one."""
    checkpoint = tell(data_loaders(), epochs=2).kept[1]
    data = checkpoint.run["loaders"]["train"]["data"]
    data["dataset"] = "Points"
    assert tell(data_loaders(), checkpoint=checkpoint, epochs=2).history
    data["dataset"] = "ints"
    with pytest.raises(MismatchedRun, match=r"dataset = ints .* now tests\.training\.resuming\.Points"):
        tell(data_loaders(), checkpoint=checkpoint, epochs=2)


def test_a_listener_that_remembers_needs_a_name_of_its_own() -> None:
    """Refused before the first batch: one without a name, and two of the same."""
    nameless = Consumer()

    @nameless.handler(every=2)
    def count(event: Lifecycle) -> None:
        """Count."""

    for listeners in ([nameless], [EarlyStopping("train/loss", "min", patience=1) for _ in range(2)]):
        training = Training()
        training.override(device, lambda: "cpu")
        training.producer.register(Asks(), *listeners)
        with pytest.raises(UnnamedListener):
            training.handle("fit", Net(), lists(), epochs=1)


def test_a_listener_that_left_is_said() -> None:
    """What it remembered is lost, and not in silence."""
    whole = tell(lists, epochs=1)
    training = Training()
    training.override(device, lambda: "cpu")
    training.override(metrics, lambda: {"accuracy": accuracy})
    model = Net().restore(whole.kept[0].snapshot)
    attach(model, whole.kept[0].run)
    with pytest.warns(ListenerLeft, match="early stopping on validation/loss"):
        training.handle("fit", model, lists(), epochs=1)


def test_a_run_that_was_asked_to_stop_stays_stopped() -> None:
    """The reason is part of the run: whoever goes on does not train another epoch, even with a larger budget."""
    whole = tell(lists, epochs=30)
    assert whole.events[-1].startswith("TrainingEnded")
    assert len(whole.history) < 30
    again = tell(lists, checkpoint=whole.kept[-1], epochs=60)
    assert again.history == whole.history


def test_a_budget_that_was_used_up_may_be_enlarged() -> None:
    """A run that was cut by its budget in the middle of an epoch goes on there: 9 steps and then 18 are 18."""
    whole = tell(data_loaders(noisy=True), steps=8)
    part = tell(data_loaders(noisy=True), steps=4)
    again = tell(data_loaders(noisy=True), checkpoint=part.kept[-1], steps=8)
    assert whole.final["modules"].keys() == again.final["modules"].keys()
    assert all(torch.equal(value, again.final["modules"][name]) for name, value in whole.final["modules"].items())
