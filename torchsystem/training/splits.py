"""Splits: the batches by name, and what is refused as such before any is gone through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn, TypeAlias

from torchsystem.errors import InvalidSplit, NotAnAggregate
from torchsystem.training.batches import count
from torchsystem.triggers import Trigger, every

Loader: TypeAlias = Iterable[Any]


class Split(NamedTuple):
    """A split that is not gone through in every epoch.

    Attributes:
        loader: Its batches.
        when: When it is due, asked at the end of each epoch, from the first one on: `every(5, "epochs")`.
    """

    loader: Loader
    when: Trigger


def check_splits(loaders: object) -> None:
    """Refuse what are no loaders by name, or none to learn from, or one of which nobody can tell when it is due.

    Raises:
        InvalidSplit: They are not.
    """
    if not isinstance(loaders, Mapping):
        message = f"fit: a {type(loaders).__qualname__} is no loader by split. Write {{'train': loader}}."
        raise InvalidSplit(message)
    if "train" not in loaders:
        message = f"fit: the splits are {[*loaders]}; the one to learn from is called 'train'."
        raise InvalidSplit(message)
    for name, split in loaders.items():
        if not isinstance(name, str):
            message = f"fit: {name!r} is no name of a split. Write a text, which stands before its metrics."
            raise InvalidSplit(message)
        if isinstance(split, Split) and not callable(split.when):
            message = f"fit: Split(..., {split.when!r}) for {name!r}: write when as a trigger, every(5, 'epochs')."
            raise InvalidSplit(message)
    learned = loaders["train"]
    if isinstance(learned, Split) and learned.when != every(1, "epochs"):
        message = f"fit: 'train' is gone through in every epoch, and not {learned.when!r}. Write {{'train': loader}}."
        raise InvalidSplit(message)


def check_methods(aggregate: object, loaders: Mapping[str, object]) -> None:
    """Refuse an aggregate that lacks what the splits need: `fit` to learn, `evaluate` for all others.

    Raises:
        NotAnAggregate: It has no such method.
    """
    for method in ("fit",) if len(loaders) == 1 else ("fit", "evaluate"):
        if not callable(getattr(aggregate, method, None)):
            kind = type(aggregate).__qualname__
            message = f"{kind} has no {method}(). Write `def {method}(self, *batch): ... return predictions, loss`."
            raise NotAnAggregate(message)


def check_loader(loader: object, handler: str) -> None:
    """Refuse loaders by split where one is wanted, and what is no loader.

    Raises:
        InvalidSplit: They are several, or nothing that could be gone through.
    """
    if isinstance(loader, Mapping):
        message = f"{handler}: takes one loader, and not several by split. Write {handler}(model, loaders['...'])."
        raise InvalidSplit(message)
    _refuse_other(loader, f"{handler}: a")


def check_batches(loader: Loader, split: str) -> None:
    """Refuse what is no loader, or is known to have no batches: nothing would come of it, and nobody would notice.

    Raises:
        InvalidSplit: It is none, or has none.
    """
    _refuse_other(loader, f"the loader of {split!r}, a")
    if count(loader, None) == 0:
        message = f"the loader of {split!r} has no batches. Look at its data, and at drop_last; or leave the split out."
        raise InvalidSplit(message)


def refuse_empty(loader: object, split: str, limit: int | None) -> NoReturn:
    """Refuse a split of which no batch came: nothing is known of it, and a budget of steps would never be used up.

    Raises:
        InvalidSplit: Always.
    """
    within = "" if limit is None else f" within limit={limit}"
    message = f"the loader of {split!r}, a {type(loader).__qualname__}, gave no batches{within}. Look at its data."
    raise InvalidSplit(message)


def _refuse_other(loader: object, what: str) -> None:
    if not (hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")):
        message = f"{what} {type(loader).__qualname__}, has no batches. Give a DataLoader, or a list of them."
        raise InvalidSplit(message)


def loader_of(split: Loader | Split) -> Loader:
    """Return the batches of a split."""
    return split.loader if isinstance(split, Split) else split
