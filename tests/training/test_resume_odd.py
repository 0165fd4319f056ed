"""Odd loaders, odd loops and odd moments: a run over them goes on exactly too, or says why it cannot."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, Subset

from tests.training.resuming import Loop, Net, Points, cut, data_loaders, differences, equal, ready_made, tell
from torchsystem.adapters.checkpoints import Checkpoints
from torchsystem.domain.continuation import attach
from torchsystem.errors import InexactLoader, InvalidOption, InvalidSplit, MismatchedRun
from torchsystem.services import Consumer, Producer
from torchsystem.storage import Repository
from torchsystem.training import EarlyStopping, Epoch, Training, batches, device, epochs, interrupts
from torchsystem.training.cursor import Cursor
from torchsystem.training.events import EpochEnded
from torchsystem.training.memories import EventLost, remind


class Rows(Sampler[Any]):
    """Batches drawn as soon as they are asked for, as rows of a tensor or as lists."""

    def __init__(self, *, as_lists: bool) -> None:
        self.as_lists = as_lists

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[Any]:
        rows = torch.randperm(22)[:20].view(5, 4)
        return iter(rows.tolist() if self.as_lists else rows)


class Bulk(Points):
    """Points that are asked for many at once, by a list of numbers."""

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        one = super().__getitem__
        points = [one(each) for each in index]
        return torch.stack([point for point, _ in points]), torch.stack([target for _, target in points])


def in_bulk(workers: int) -> DataLoader[Any]:
    """Have the sampler give whole batches, where the loader makes none."""
    sampler = BatchSampler(RandomSampler(Points()), 4, drop_last=False)
    return DataLoader(Bulk(), batch_size=None, sampler=sampler, num_workers=workers)


def by_name(workers: int) -> DataLoader[Any]:
    """Ask for samples by their names."""
    named: Any = {"first": (torch.ones(3), 1), "second": (torch.zeros(3), 0)}
    return DataLoader(named, batch_size=None, sampler=["first", "second"], num_workers=workers)


PLAIN: dict[str, Callable[[], DataLoader[Any]]] = {
    "a batch sampler that draws at once": lambda: DataLoader(
        Points(noisy=True),
        batch_sampler=Rows(as_lists=True),
    ),
    "rows of a tensor": lambda: DataLoader(Points(), batch_sampler=Rows(as_lists=False), num_workers=1),
    "in bulk": lambda: in_bulk(0),
    "in bulk, by a worker": lambda: in_bulk(1),
    "by name, by a worker": lambda: by_name(1),
}


@pytest.mark.parametrize("loader", PLAIN.values(), ids=PLAIN)
def test_odd_batches_are_those_of_a_plain_loop(loader: Callable[[], DataLoader[Any]]) -> None:
    """Whatever a sampler gives, and whenever it draws, samples are those that plain iteration over the loader gives."""
    model = Net()
    _seed()
    plain = [batch[0] for made in [loader()] for _ in range(2) for batch in made]
    _seed()
    made = loader()
    seen = [batch[0] for epoch in epochs(model, epochs=2) for batch in batches(epoch, made)]
    assert len(seen) == len(plain)
    assert all(map(torch.equal, seen, plain))


def _seed() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - it is what people use


def test_workers_that_stay_draw_one_seed_for_all_epochs() -> None:
    """Whoever goes on makes new ones, which draw another; so cut anywhere around the end of an epoch."""
    _, found = cut(data_loaders(noisy=True, num_workers=1, persistent_workers=True), every=2, epochs=2, limit=1)
    assert found == []


def test_workers_that_stayed_are_remembered_by_who_has_not_opened_them_yet() -> None:
    """A run that goes on, and is cut again before it has validated, knows that those of the validation had stayed."""

    def loaders() -> dict[str, Any]:
        staying: dict[str, Any] = {"batch_size": 12, "num_workers": 1, "persistent_workers": True}
        train = DataLoader(Points(noisy=True), shuffle=True, **staying)
        return {"train": train, "validation": DataLoader(Points(10, noisy=True), **staying)}

    whole = tell(loaders, epochs=2)
    second = next(kept for kept in whole.kept if kept.run["at"]["epoch"] == 1)
    cut_once = tell(loaders, checkpoint=second, epochs=2)
    in_epoch = cut_once.kept[0]
    cut_twice = tell(loaders, checkpoint=in_epoch, epochs=2)
    assert in_epoch.run["epoch"] is not None
    assert [*differences(whole, cut_once, second)] == []
    assert [*differences(cut_once, cut_twice, in_epoch)] == []


def test_a_run_over_some_batches_of_each_split_goes_on_exactly() -> None:
    """No batch beyond the limit is fetched, which would draw random numbers: also where it was just reached."""
    _, found = cut(data_loaders(noisy=True), epochs=2, limit=2)
    assert found == []


COMMON = np.random.default_rng(11)  # as in many a module of data sets


def shifted() -> float:
    """Draw from a generator of this module."""
    return COMMON.random()


class Shift:
    """Draw from a generator of one's own, by a method or when called; of points, or of collated batches."""

    def __init__(self) -> None:
        self.rng = random.Random(3)  # noqa: S311 - no secrets

    def draw(self) -> float:
        return self.rng.random()

    def __call__(self, samples: Any) -> Any:
        points, targets = torch.utils.data.default_collate(samples)
        return points + self.rng.random(), targets


class Shifting(Points):
    """Points that are shifted by what a function draws."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.draw = draw

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        point, target = super().__getitem__(index)
        return point + sum(self.draw() for _ in range(2)), target


def enclosed() -> Callable[[], float]:
    """Make a function around a generator."""
    rng = np.random.default_rng(3)
    return lambda: rng.random()  # noqa: PLW0108 - it has to close over it


def drawn(*, rng: random.Random) -> float:
    """Draw from what is given."""
    return rng.random()


DRAWS: dict[str, Callable[[], Callable[[], float]]] = {
    "a closure": enclosed,
    "a partial": lambda: partial(drawn, rng=random.Random(3)),  # noqa: S311 - no secrets
    "a method": lambda: Shift().draw,
    "a function of a module": lambda: shifted,
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_generators_behind_functions_are_put_back(draw: Callable[[], Callable[[], float]]) -> None:
    """What a data set draws from is part of the run, wherever it is kept."""

    def loaders() -> dict[str, Any]:
        COMMON.bit_generator.state = np.random.default_rng(11).bit_generator.state
        return {**data_loaders()(), "train": DataLoader(Shifting(draw()), batch_size=4, shuffle=True)}

    _, found = cut(loaders, every=3, epochs=2)
    assert found == []


def test_a_generator_of_what_collates_is_put_back() -> None:
    """As that of a data set: batches are mixed, or cropped, there."""

    def loaders() -> dict[str, Any]:
        return data_loaders(collate_fn=Shift())()

    _, found = cut(loaders, every=3, epochs=2)
    assert found == []


def test_a_generator_of_what_collates_is_refused_in_workers() -> None:
    """Each worker has a copy, so that their number would decide what is drawn."""
    with pytest.raises(InexactLoader, match=r"collate_fn\.rng"):
        Cursor(data_loaders(collate_fn=Shift(), num_workers=1)()["train"], "train").check()


class Common(Points):
    """Points that know where everybody draws from."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = [random, np, torch.default_generator, random.shuffle]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        point, target = super().__getitem__(index)
        return point + random.random() + np.random.random(), target  # noqa: NPY002, S311


def test_generators_that_everybody_draws_from_are_nobodys_own() -> None:
    """In workers they are seeded for each batch, and so no reason to refuse a loader."""
    Cursor(DataLoader(Common(), 4, num_workers=1), "train").check()


class Noisy(Net):
    """A network that draws noise from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = torch.Generator().manual_seed(4)

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs + torch.randn(inputs.shape, generator=self.noise))


def test_a_generator_of_the_aggregate_is_put_back() -> None:
    """It has no `state_dict`, and so is in no snapshot; the run keeps it."""
    _, found = cut(data_loaders(), every=3, epochs=2, model=Noisy)
    assert found == []


def judged(model: Net, epoch: Epoch, loader: Any) -> None:
    """Validate by hand."""
    model.phase = "evaluation"
    with torch.no_grad():
        for batch in batches(epoch, loader, split="validation"):
            model.evaluate(*batch)
    model.phase = "train"


def told(epoch: Epoch) -> None:
    """Report what early stopping watches, unless the epoch is not over."""
    if not epoch.run.is_cut:
        epoch.report("validation", {"loss": 1 / (1 + epoch.number)})


def usual(training: Training, model: Any, loaders: dict[str, Any], **budget: Any) -> None:
    """Learn, and validate."""
    for epoch in epochs(model, training.producer, **budget):
        for batch in batches(epoch, loaders["train"]):
            model.fit(*batch)
        judged(model, epoch, loaders["validation"])
        told(epoch)


def left_early(training: Training, model: Any, loaders: dict[str, Any], **budget: Any) -> None:
    """Leave each epoch's batches before they end, and validate."""
    for epoch in epochs(model, training.producer, **budget):
        for batch in batches(epoch, loaders["train"]):
            model.fit(*batch)
            if epoch.run.tracker.batch_in_epoch == 2:
                break
        judged(model, epoch, loaders["validation"])
        told(epoch)


def validated_amid(training: Training, model: Any, loaders: dict[str, Any], **budget: Any) -> None:
    """Validate after some batches, and at the end."""
    for epoch in epochs(model, training.producer, **budget):
        for batch in batches(epoch, loaders["train"]):
            model.fit(*batch)
            if epoch.run.tracker.batch_in_epoch % 2:
                judged(model, epoch, loaders["validation"])
        judged(model, epoch, loaders["validation"])
        told(epoch)


def twice(training: Training, model: Any, loaders: dict[str, Any], **budget: Any) -> None:
    """Go through the batches twice in each epoch."""
    for epoch in epochs(model, training.producer, **budget):
        for _ in range(2):
            for batch in batches(epoch, loaders["train"]):
                model.fit(*batch)
        judged(model, epoch, loaders["validation"])
        told(epoch)


LOOPS: dict[str, Loop] = {loop.__name__: loop for loop in (usual, left_early, validated_amid, twice)}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_loop_of_ones_own_goes_on_exactly(loop: Loop) -> None:
    """No split is gone through again that was done or left, and within a batch of another nothing is kept."""
    whole, found = cut(data_loaders(noisy=True), loop=loop, epochs=2)
    assert len(whole.kept) > 6
    assert found == []


def halves() -> dict[str, Any]:
    """Split a data set that holds a generator, which both parts then draw from."""
    points = Shifting(Shift().draw)
    train = DataLoader(Subset(points, range(12)), batch_size=4, shuffle=True)
    return {"train": train, "validation": DataLoader(Subset(points, range(12, 22)), batch_size=4)}


@pytest.mark.parametrize("loop", [ready_made, usual], ids=["fit", "own"])
def test_a_generator_that_two_loaders_share_is_put_back_once(loop: Loop) -> None:
    """The second loader may be seen when the first one has drawn from it again."""
    _, found = cut(halves, loop=loop, epochs=2)
    assert found == []


@pytest.mark.parametrize("loop", [ready_made, usual], ids=["fit", "own"])
def test_a_run_that_was_cut_and_kept_again_goes_on_exactly(loop: Loop) -> None:
    """The same line does nothing more, and what is kept then is still the middle of an epoch; so is a third."""
    loaders = data_loaders(noisy=True)
    whole = tell(loaders, loop=loop, steps=8)
    part = tell(loaders, loop=loop, steps=4)
    same = tell(loaders, loop=loop, checkpoint=part.kept[-1], steps=4)
    assert equal(same.final, part.final)
    for checkpoint in (part.kept[-1], same.kept[-1]):
        again = tell(loaders, loop=loop, checkpoint=checkpoint, steps=8)
        assert equal(again.final, whole.final)
        assert again.history == whole.history


def test_splits_side_by_side_are_refused_where_a_run_is_to_go_on_exactly(tmp_path: Path) -> None:
    """Of two that advance together nobody can tell where both are; said at the second batch, or accepted by a word."""
    loaders = data_loaders()()
    for exact in (True, False):
        model, producer, done = Net(), Producer(), []
        with Repository(tmp_path, run=str(exact)) as repository:
            producer.register(Checkpoints(repository, exact=exact))
            with (
                pytest.raises(InvalidSplit, match=r"'train' and 'other' .* at the same time")
                if exact
                else nullcontext()
            ):
                for epoch in epochs(model, producer, epochs=1):
                    others = batches(epoch, loaders["validation"], split="other")
                    for one, _ in zip(batches(epoch, loaders["train"]), others, strict=False):
                        done.append(model.fit(*one))
        assert len(done) == (1 if exact else 3)


def test_a_split_within_itself_is_refused() -> None:
    """Its place in the loader can be only one."""
    loader = data_loaders()()["train"]
    for epoch in epochs(Net(), epochs=1):
        with pytest.raises(InvalidSplit, match="'train' is being gone through already"):
            next(zip(batches(epoch, loader), batches(epoch, loader), strict=True))


class Stopping(Net):
    """A network that asks for a stop in its second epoch, by the class of the request."""

    def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if self.epoch == 1 and not self.events.queue:
            self.events.enqueue(StopIteration)
        return super().fit(inputs, targets)


def test_a_class_that_asks_for_a_stop_is_kept() -> None:
    """Events may be classes; one that waits for the end of the epoch is part of the run."""
    whole, found = cut(data_loaders(), every=4, model=Stopping, epochs=4)
    assert len(whole.history) == 2
    assert found == []


def test_no_stop_is_left_from_what_was_undone() -> None:
    """An aggregate that is restored after a failure asks for what it asked for then, and for nothing else."""
    model = Net()
    life = epochs(model, epochs=2)
    run = next(life).run
    attach(model, run.state())
    model.events.enqueue(StopIteration("of the run that failed"))
    assert len([*epochs(model, epochs=2)]) == 2
    assert model.epoch == 2


class Hit:
    """Something that happens in a domain."""


def test_events_that_cannot_be_kept_are_said() -> None:
    """A checkpoint has no events: whoever goes on hears which are missing, once each."""
    model, twin = Net(), Net()
    for epoch in epochs(model, epochs=1):
        for batch in batches(epoch, data_loaders()()["train"]):
            if epoch.run.tracker.batch == 2:
                attach(twin, epoch.run.state())
                twin.restore(model.snapshot())
            model.fit(*batch)
            model.events.enqueue(Hit())
    with pytest.warns(EventLost, match="without the event Hit") as said:
        next(iter(epochs(twin, epochs=1)))
    assert len(said) == 1


def test_an_aggregate_that_has_changed_since_it_was_restored_is_refused() -> None:
    """Its run would go on in the middle of an epoch that is over; the run can be forgotten, too."""
    kept = tell(data_loaders(), epochs=2).kept[2]
    model = Net().restore(kept.snapshot)
    attach(model, kept.run)
    training = Training()
    training.override(device, lambda: "cpu")
    training.train(model, data_loaders()()["train"])
    with pytest.raises(MismatchedRun, match="changed since it was restored"):
        training.handle("fit", model, data_loaders()(), epochs=2)
    assert len(training.handle("fit", model, data_loaders()(), epochs=2)) == 2


def test_a_signal_is_not_lost_where_a_block_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The process was asked to end, whatever fails meanwhile; the error is logged."""
    with pytest.raises(SystemExit) as caught, interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError
    assert caught.value.code == 128 + signal.SIGTERM
    assert "ValueError" in caplog.text


def test_what_is_ignored_stays_ignored() -> None:
    """A shell has its background jobs ignore SIGINT, so that one for the foreground does not end them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_two_checkpoints_do_not_save_to_one_place(tmp_path: Path) -> None:
    """Each would remove what the other one is to keep."""
    with Repository(tmp_path) as repository:
        producer = Producer()
        producer.register(Checkpoints(repository, keep_last=None), Checkpoints(Repository(tmp_path), name="recent"))
        with pytest.raises(InvalidOption, match="'checkpoints' and 'recent'"):
            next(iter(epochs(Net(), producer, epochs=1)))


class Student(Net):
    """Another network."""


def test_another_aggregate_trained_meanwhile_has_checkpoints_of_its_own(tmp_path: Path) -> None:
    """A listener that trains one with the same service takes nothing from the run around it."""
    loaders = data_loaders()
    training, student = Training(), Consumer("teaching")
    training.override(device, lambda: "cpu")

    @student.handler
    def teach(event: EpochEnded) -> None:
        if not isinstance(event.aggregate, Student):
            training.handle("fit", Student(), loaders(), epochs=1)

    with Repository(tmp_path) as repository:
        best = Checkpoints(repository, keep_last=None, keep_best=("validation/loss", "min"))
        training.producer.register(best, student)
        model = Net()
        training.handle("fit", model, loaders(), epochs=2)
        kept = repository.checkpoints(model)
    assert [checkpoint.progress.epoch for checkpoint in kept] == [1, 2]
    assert all("validation/loss" in checkpoint.metrics for checkpoint in kept)


def test_a_prediction_leaves_the_generator_of_the_aggregate_alone() -> None:
    """As it leaves all others: whoever looks at a run does not change it."""
    model, training = Noisy(), Training()
    training.override(device, lambda: "cpu")
    before = model.noise.get_state()
    training.predict(model, data_loaders()()["validation"])
    assert torch.equal(model.noise.get_state(), before)


def test_a_listener_remembers_beside_one_of_its_name_that_does_not() -> None:
    """Names tell those apart that remember something; another one takes nothing from them."""
    stopping, silent = EarlyStopping("train/loss", "min", patience=3), Consumer("early stopping on train/loss")

    @silent.handler
    def hear(event: EpochEnded) -> None:
        """Remember nothing."""

    producer = Producer()
    producer.register(stopping, silent)
    remind(producer, {"early stopping on train/loss": {**stopping.state_dict(), "best": 0.5, "waited": 2}})
    assert (stopping.best, stopping.waited) == (0.5, 2)
