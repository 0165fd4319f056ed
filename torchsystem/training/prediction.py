"""Predictions: of any split, told batch by batch, and not made twice for one state of an aggregate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import torch

from torchsystem.domain import Aggregate
from torchsystem.registry import fingerprint
from torchsystem.training.batches import call, inputs_of, joined, targets_of
from torchsystem.training.epoch import Epoch
from torchsystem.training.events import BatchPredicted, Predicted
from torchsystem.training.loop import seen
from torchsystem.training.settings import Settings

Transform: TypeAlias = Callable[[Any], Any]
Collate: TypeAlias = Callable[[list[Any]], Any]


class Question(NamedTuple):
    """What is to be predicted, and how.

    Attributes:
        loader: The batches.
        split: What they are called.
        limit: How many of them at most.
        transform: What is made of the predictions of each batch.
        collate: What is made of those of all batches.
    """

    loader: Iterable[Any]
    split: str
    limit: int | None = None
    transform: Transform | None = None
    collate: Collate = joined

    def is_like(self, other: Question) -> bool:
        """Tell whether it is the same question: of the very same objects."""
        same = self.loader is other.loader and self.transform is other.transform and self.collate is other.collate
        return same and self.limit == other.limit


class _Answer(NamedTuple):
    question: Question
    state: str
    predictions: Any


class Answers:
    """Remember the last answer for each split of an aggregate, for as long as that is in the same state."""

    def __init__(self) -> None:
        self._answers: WeakKeyDictionary[Aggregate, dict[str, _Answer]] = WeakKeyDictionary()

    def find(self, aggregate: Aggregate, question: Question, state: str) -> _Answer | None:
        """Return what the answer was, if it still holds."""
        answer = self._answers.get(aggregate, {}).get(question.split)
        holds = answer is not None and answer.state == state and answer.question.is_like(question)
        return answer if holds else None

    def remember(self, aggregate: Aggregate, question: Question, state: str, predictions: Any) -> None:
        """Remember an answer, in place of the last one for the split."""
        self._answers.setdefault(aggregate, {})[question.split] = _Answer(question, state, predictions)


def state_of(aggregate: Aggregate, settings: Settings) -> str:
    """Return what predictions depend on: the content of the weights and buffers, and the type they are computed in."""
    whole = {**dict(aggregate.named_buffers(remove_duplicate=False)), **aggregate.state_dict()}  # all buffers
    return f"{fingerprint(whole)} {settings.precision}"


@torch.no_grad()
def predict(epoch: Epoch, question: Question, settings: Settings) -> Any:
    """Predict a split, and tell of each batch."""
    aggregate: Any = epoch.run.aggregate
    aggregate.phase = "evaluation"
    predicts = aggregate.predict if callable(getattr(aggregate, "predict", None)) else aggregate
    compute, targets_in = settings.computing(_calling(predicts), aggregate), targets_of(aggregate)
    describes = getattr(aggregate, "metadata", None)
    gathered: list[Any] = []
    cursor = epoch.run.cursors.over(question.loader, question.split)
    for batch in seen(epoch, cursor, question.split, question.limit, settings.bring):
        targets = None if isinstance(batch, tuple | list) and len(batch) == 1 else targets_in(batch)
        predictions = compute(inputs_of(batch, targets))
        if question.transform is not None:
            predictions = question.transform(predictions)
        gathered.append(predictions)
        metadata = describes(batch) if callable(describes) else None
        epoch.run.tell(BatchPredicted, predictions, targets, metadata, question.split)
    return question.collate(gathered)


def tell_predicted(epoch: Epoch, question: Question, predictions: Any, *, is_cached: bool) -> None:
    """Tell that a split was predicted, or that it had been."""
    epoch.run.tell(Predicted, question.split, predictions, is_cached)


def _calling(function: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda inputs: call(function, inputs)
