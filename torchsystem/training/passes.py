"""Passes over splits: learning from their batches, or judging by them, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from torchsystem.training.accumulators import detached
from torchsystem.training.batches import call, refuse_outcome, samples_in, targets_of
from torchsystem.training.epoch import Epoch
from torchsystem.training.events import BatchEnded
from torchsystem.training.loop import learned, seen
from torchsystem.training.metrics import Measures
from torchsystem.training.settings import Settings
from torchsystem.training.splits import Loader, Split, loader_of, refuse_empty


def go_through(epoch: Epoch, loaders: Mapping[str, Loader | Split], limit: int | None, settings: Settings) -> None:
    """Go through all splits of an epoch that are due and not done yet, and report each; the one to learn from first."""
    run = epoch.run
    if not epoch.is_behind("train"):
        measured = learn(epoch, loader_of(loaders["train"]), limit, settings)
        if run.is_cut:
            return
        epoch.report("train", measured)
    asked_before = epoch.before if epoch.number else None
    finished = replace(run.tracker.progress(), epoch=epoch.number + 1)
    for name, split in loaders.items():
        if isinstance(split, Split) and not split.when(asked_before, finished):
            epoch.waiting.add(name)
        elif name != "train" and not epoch.is_behind(name):
            epoch.report(name, judge(epoch, name, loader_of(split), limit, settings))


def learn(epoch: Epoch, loader: Loader, limit: int | None, settings: Settings) -> dict[str, float]:
    """Have the aggregate learn from each batch of a loader.

    Returns:
        The metrics, by name; nothing if the budget was used up on the way.
    """
    run = epoch.run
    aggregate: Any = run.aggregate  # its `fit` and `evaluate` are what the user makes them
    aggregate.phase = "train"
    measures, tracker = Measures(settings.metrics), run.tracker
    fit = settings.computing(aggregate.fit, aggregate)
    targets, update = targets_of(aggregate), measures.update
    tells = run.producer.wants(BatchEnded)
    epoch.keep("train", measures)
    for batch in learned(epoch, run.cursors.over(loader, "train"), "train", limit, settings.bring):
        outcome = call(fit, batch)
        try:
            predictions, loss = outcome
        except (TypeError, ValueError):
            refuse_outcome("fit", outcome)
        update(predictions, targets(batch), loss, tracker.in_batch)
        if tells:
            epoch.fitted = (detached(predictions), loss.detach())
    if run.is_cut:
        measures.check()
        return {}  # what was gathered stays, for whoever goes on
    epoch.let_go("train")
    return measures.compute()


def judge(epoch: Epoch, split: str, loader: Loader, limit: int | None, settings: Settings) -> dict[str, float]:
    """Have the aggregate evaluate each batch of a loader.

    Returns:
        The metrics, by name.

    Raises:
        InvalidSplit: No batch came.
    """
    aggregate: Any = epoch.run.aggregate
    aggregate.phase = "evaluation"
    measures = Measures(settings.metrics)
    evaluate, targets = settings.computing(aggregate.evaluate, aggregate), targets_of(aggregate)
    epoch.keep(split, measures)
    with torch.no_grad():
        for batch in seen(epoch, epoch.run.cursors.over(loader, split), split, limit, settings.bring):
            outcome = call(evaluate, batch)
            try:
                predictions, loss = outcome
            except (TypeError, ValueError):
                refuse_outcome("evaluate", outcome)
            measures.update(predictions, targets(batch), loss, samples_in(batch))
    epoch.let_go(split)
    measured = measures.compute()
    if not measured:
        refuse_empty(loader, split, limit)
    return measured


def told(epoch: Epoch, split: str, measured: dict[str, float]) -> dict[str, float]:
    """Report a split that is gone through alone; there is no epoch to finish for whoever asks for a stop.

    Raises:
        StopIteration: A listener asked for it.
    """
    epoch.report(split, measured)
    if epoch.run.reason is not None:
        raise StopIteration(epoch.run.reason)
    return measured
