"""Runs that are cut at some moment and go on in fresh objects, to be compared with one that was left alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, Dataset

from torchsystem import Aggregate
from torchsystem.domain.continuation import attach
from torchsystem.domain.plain import Plain
from torchsystem.services import Consumer
from torchsystem.training import EarlyStopping, Optimization, Training, accuracy, batches, device, epochs, metrics
from torchsystem.training.events import BatchStarted, Lifecycle, TrainingEnded, Validated
from torchsystem.training.metrics import Measures
from torchsystem.training.run import Run, under_way


class Points(Dataset[tuple[Tensor, Tensor]]):
    """Points of two classes; noisy ones draw from all three libraries, and held ones from a generator of their own."""

    def __init__(self, count: int = 22, *, noisy: bool = False, own: torch.Generator | None = None) -> None:
        generator = torch.Generator().manual_seed(1)
        self.points = torch.randn(count, 3, generator=generator)
        self.noisy = noisy
        self.own = own

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        point = self.points[index]
        if self.noisy:
            point = point + torch.randn(3) * 0.1 + random.random() + np.random.random()  # noqa: NPY002, S311
        if self.own is not None:
            point = point + torch.randn(3, generator=self.own)
        return point.float(), (self.points[index].sum() > 0).long()


class Net(Aggregate):
    """A network with dropout, and all that an optimization can have."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0
        self.nn = nn.Sequential(nn.Linear(3, 6), nn.Dropout(0.3), nn.Linear(6, 2))
        self.criterion = nn.CrossEntropyLoss()
        optimizer = optim.AdamW(self.nn.parameters(), lr=0.01)
        scheduler = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=100)
        self.optimization = Optimization(optimizer, scheduler, accumulate=2, clip_norm=1.0, per="step", warmup=3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.nn(inputs)

    def fit(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        output = self(inputs)
        loss = self.criterion(output, targets)
        self.optimization.step(loss)
        return output.argmax(1), loss

    def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        output = self(inputs)
        return output.argmax(1), self.criterion(output, targets)


@dataclass
class Checkpoint:
    """Both halves of a moment, and how many events had been heard."""

    run: Plain
    snapshot: Plain
    heard: int


@dataclass
class Story:
    """What a run told and came to."""

    events: list[str] = field(default_factory=list)
    kept: list[Checkpoint] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    final: Plain = None
    drawn: list[float] = field(default_factory=list)


class Keeper(Consumer):
    """Take both halves of the run at every safe point, and write down what is told."""

    def __init__(self, story: Story) -> None:
        super().__init__()
        self.story = story
        self.handler(self.hear)

    def hear(self, event: Lifecycle) -> None:
        progress = event.progress
        facts = f"{progress.epoch} {progress.batch} {progress.batch_in_epoch} {progress.step} {progress.samples}"
        values = getattr(event, "metrics", "")
        batch = event.batch[0].sum().item() if isinstance(event, BatchStarted) else ""
        self.story.events.append(f"{type(event).__name__} {facts} {values} {batch}")
        if isinstance(event, Validated):
            self.story.drawn.append(torch.rand(()).item())  # what listeners draw is part of the run, too
        run = under_way(event.aggregate)
        if run is not None and isinstance(event, TrainingEnded):
            self.story.history = [dict(metrics) for metrics in run.history]
        if run is not None and run.is_whole and not run.due:
            run.when_safe(lambda: self.keep(run))

    def keep(self, run: Run) -> None:
        run.when_safe(lambda: self.keep(run))  # at every safe point, and not only after events
        state = run.state()
        self.story.kept.append(Checkpoint(state, run.aggregate.snapshot(), len(self.story.events)))


Loaders = Callable[[], dict[str, Any]]
Loop = Callable[..., None]


def ready_made(training: Training, aggregate: Aggregate, loaders: dict[str, Any], **budget: Any) -> None:
    """Go through the loop of the service."""
    history = training.handle("fit", aggregate, loaders, **budget)
    assert len(history) == aggregate.epoch


def of_ones_own(training: Training, aggregate: Any, loaders: dict[str, Any], **budget: Any) -> None:
    """Go through a loop that a user would write, over the generators."""
    for epoch in epochs(aggregate, training.producer, **budget):
        for split in epoch.left(loaders):
            measures = Measures({"accuracy": accuracy})
            epoch.keep(split, measures)
            aggregate.phase = "train" if split == "train" else "evaluation"
            use = aggregate.fit if split == "train" else aggregate.evaluate
            with torch.set_grad_enabled(split == "train"):
                for inputs, targets in batches(epoch, loaders[split], split=split):
                    predictions, loss = use(inputs, targets)
                    measures.update(predictions, targets, loss, len(inputs))
            epoch.report(split, measures.compute())
            epoch.let_go(split)


def tell(
    loaders: Loaders,
    *,
    checkpoint: Checkpoint | None = None,
    model: Callable[[], Aggregate] = Net,
    loop: Loop = ready_made,
    **budget: Any,
) -> Story:
    """Run, from the beginning or from a checkpoint, in fresh objects."""
    story = Story()
    torch.manual_seed(3 if checkpoint is None else 999)
    random.seed(3 if checkpoint is None else 999)
    np.random.seed(3 if checkpoint is None else 999)  # noqa: NPY002 - it is what people use
    training = Training()
    training.override(device, lambda: "cpu")
    training.override(metrics, lambda: {"accuracy": accuracy})
    training.producer.register(Keeper(story), EarlyStopping("validation/loss", "min", patience=2, minimum_delta=0.02))
    aggregate = model()
    if checkpoint is not None:
        aggregate.restore(checkpoint.snapshot)
        attach(aggregate, checkpoint.run)
    made = loaders()
    torch.rand(5)  # set-up code draws what it likes
    loop(training, aggregate, made, **budget)
    story.final = aggregate.snapshot()
    return story


def equal(one: Any, other: Any) -> bool:
    """Compare two states bit by bit, but for the seconds that they took."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(key == "elapsed" or equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def differences(whole: Story, again: Story, checkpoint: Checkpoint) -> Iterator[str]:
    """Say in what a run that went on differs from one that was left alone."""
    if not equal(whole.final, again.final):
        yield "state"
    if whole.history != again.history:
        yield f"history: {whole.history} / {again.history}"
    expected = [event for event in whole.events[checkpoint.heard :] if not event.startswith("ProcessStarted")]
    told = [event for event in again.events if not event.startswith("ProcessStarted")]
    if not expected:  # the run was over; each process says so once
        expected = [whole.events[-1]]
    if expected != told:
        yield f"events: {expected[:3]}... / {told[:3]}..."


def cut(loaders: Loaders, *, every: int = 1, after: Loaders | None = None, **options: Any) -> tuple[Story, list[str]]:
    """Leave a run alone, and let it go on from each of its safe points.

    Args:
        loaders: What makes the loaders of the run.
        every: Which cuts to make: each so many, and the last.
        after: What makes those of the runs that go on, if others.
        options: What `tell` takes.

    Returns:
        The run, and all in which those that went on differ from it.
    """
    whole = tell(loaders, **options)
    chosen = sorted({*range(0, len(whole.kept), every), len(whole.kept) - 1})
    found = []
    for number in chosen:
        checkpoint = whole.kept[number]
        again = tell(loaders if after is None else after, checkpoint=checkpoint, **options)
        found += [f"cut {number}: {difference}" for difference in differences(whole, again, checkpoint)]
    return whole, found


def data_loaders(*, noisy: bool = False, own: bool = False, **options: Any) -> Loaders:
    """Return what makes a shuffled loader to learn from, and one to validate by."""

    def make() -> dict[str, Any]:
        held = torch.Generator().manual_seed(5) if own else None
        train = DataLoader(Points(noisy=noisy, own=held), **{"batch_size": 4, "shuffle": True, **options})
        options_of_both = {name: value for name, value in options.items() if name in {"num_workers", "collate_fn"}}
        return {"train": train, "validation": DataLoader(Points(10, noisy=noisy), batch_size=4, **options_of_both)}

    return make
