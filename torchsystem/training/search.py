"""Searches: a learning rate that learns fast, and a batch that fits into memory, found by trials on a copy.

Whatever a trial does, afterwards the aggregate is what it was, bit by bit: weights, optimizers, counters, gradients; so
are all generators of random numbers, and nobody has heard anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch.utils.data import DataLoader, Dataset

from torchsystem.depends import Depends
from torchsystem.domain import Aggregate
from torchsystem.errors import InvalidSearch, NoSuggestion
from torchsystem.training.batches import call, samples_in
from torchsystem.training.owned import optimizations_of
from torchsystem.training.range_test import LEAST, Rates, descend, losses_of, steepest
from torchsystem.training.settings import Settings, settings
from torchsystem.training.trial import trial

Source: TypeAlias = Dataset[Any] | Callable[[int], Iterable[Any]]

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed")


class LearningRates(NamedTuple):
    """What a range test has found.

    Attributes:
        suggestion: The rate at which the loss fell most steeply.
        rates: The rates that were tried, rising.
        losses: The loss at each of them, before the step that it led to.
        smoothed: The same, smoothed.
    """

    suggestion: float
    rates: list[float]
    losses: list[float]
    smoothed: list[float]


class BatchSizes(NamedTuple):
    """What a search for the size of batches has found.

    Attributes:
        suggestion: The largest size that was tried and fits.
        tried: Of each size that was tried, whether it fits.
        reason: Why no larger one was tried.
    """

    suggestion: int
    tried: dict[int, bool]
    reason: Literal["memory", "limit", "data"]


def tune_learning_rate(  # noqa: PLR0913 - each says one thing about the test
    aggregate: Aggregate,
    loader: Iterable[Any],
    *,
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.9,
    divergence: float = 4.0,
    optimizer: str | None = None,
    settings: Settings = Depends(settings),
) -> LearningRates:
    """Find a learning rate by a range test: one step at each of many rates that rise exponentially.

    The test is that of L. N. Smith ("Cyclical Learning Rates for Training Neural Networks", 2015, section 3.3); that
    rates rise exponentially, and that the rate of the steepest descent of the smoothed loss is suggested, is fastai's
    way. It looks between the first tenth of the rates, where there is too little to smooth, and the lowest loss.

    Schedulers and the warm-up of an `Optimization` are left out. Groups of an optimizer keep their ratios; the rates
    are those of its first group.

    Args:
        aggregate: What to find a rate for. A copy of it is trained.
        loader: The training batches; gone through again and again, if it has fewer than are needed.
        lowest: The first rate.
        highest: The last one, unless the loss has risen too much before.
        steps: How many rates.
        smoothing: How much of the moving average of the losses stays in each step, from 0 up to, and without, 1.
        divergence: By how many times the lowest smoothed loss has to be exceeded to end the test.
        optimizer: Whose rate, where there are several; the others keep theirs.
        settings: Device and precision; as they are bound, by default.

    Returns:
        The suggestion, and the curve that led to it.

    Raises:
        InvalidSearch: An argument has no meaning; there is no batch, no optimizer, or more than one and none is named.
        NoSuggestion: The loss has not fallen.
        UnknownOptimizer: There is none of that name.
    """
    _check_rates(lowest, highest, steps, smoothing, divergence)
    if isinstance(loader, Iterator):
        message = "tune_learning_rate: the loader can be gone through once, and the run would miss what the test takes."
        raise InvalidSearch(message + " Give one that begins anew.")
    rates = [lowest * (highest / lowest) ** (index / (steps - 1)) for index in range(steps)]

    def curve(twin: Aggregate) -> LearningRates:
        chosen, learn = Rates(twin, optimizer), losses_of(twin, loader, settings)
        losses, smoothed = descend(rates, chosen, learn, smoothing, divergence)
        tried = rates[: len(losses)]
        return LearningRates(steepest(tried, smoothed), tried, losses, smoothed)

    return trial(aggregate, curve, loader)


def tune_batch_size(  # noqa: PLR0913 - each says one thing about the search
    aggregate: Aggregate,
    source: Source,
    *,
    first: int = 2,
    limit: int | None = None,
    batches: int = 2,
    settings: Settings = Depends(settings),
) -> BatchSizes:
    """Find how many samples of a batch fit into memory, by doubling their number until they do not.

    Each size is tried by learning, with at least one step, so that all that optimizers keep is there. Meanwhile the
    memory holds a second aggregate, so what fits leaves room for one. A copy is not compiled where the aggregate is.
    Systems that promise more memory than they have (Linux, on the CPU) end the process where it lacks: set a limit.

    Args:
        aggregate: What to learn. A copy of it does.
        source: A data set, or a function that makes, of a size, a loader of such batches.
        first: The first size.
        limit: The last size to try.
        batches: How many batches of each size.
        settings: Device and precision; as they are bound, by default.

    Returns:
        The suggestion, what was tried, and why no more.

    Raises:
        InvalidSearch: An argument has no meaning, or there is no batch of the first size.
        NoSuggestion: Not even the first size fits.
    """
    _check_sizes(first, limit, batches)
    make = _maker(source)
    tried: dict[int, bool] = {}

    def search(twin: Aggregate) -> Literal["memory", "limit", "data"]:
        for size in _doubled(first, limit):
            outcome = _try(twin, make(size), size, batches, settings)
            if outcome != "data":
                tried[size] = outcome == "fits"
            if outcome != "fits":
                return outcome
        return "limit"

    reason = trial(aggregate, search, source)
    remedy = "Write a smaller first=, or look at the source."
    if not tried:
        message = f"tune_batch_size: there is no batch of {first} samples. {remedy}"
        raise InvalidSearch(message)
    if not tried[first]:
        message = f"tune_batch_size: not even {first} samples fit into memory. {remedy}"
        raise NoSuggestion(message)
    return BatchSizes(max(size for size, fits in tried.items() if fits), tried, reason)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory is used up: Python's, the CPU's, or that of a device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in OUT_OF_MEMORY)


def _try(
    twin: Any, loader: Iterable[Any], size: int, batches: int, settings: Settings
) -> Literal["fits", "memory", "data"]:
    """Learn from some batches of a size, and tell whether there was room for it, or no such batch."""
    fit, bring = settings.computing(twin.fit, twin), settings.bring
    learned = 0
    try:
        for batch in islice(loader, batches):
            if samples_in(batch) != size:
                break
            call(fit, batch if bring is None else bring(batch))
            learned += 1
        for one in optimizations_of(twin):
            one.finish()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return "memory"
    finally:
        twin.zero_grad()
    return "fits" if learned else "data"


def _doubled(first: int, limit: int | None) -> Iterator[int]:
    size = first
    while limit is None or size < limit:
        yield size
        size *= 2
    yield limit


def _maker(source: Source) -> Callable[[int], Iterable[Any]]:
    """Return what makes loaders of a data set, or is said to.

    Raises:
        InvalidSearch: It is neither a data set nor a function.
    """
    if isinstance(source, Dataset) or hasattr(source, "__getitem__"):
        data: Any = source
        return lambda size: DataLoader(data, batch_size=size)
    if not callable(source):
        message = (
            f"tune_batch_size: {type(source).__qualname__} has batches of one size. Give the data set, or a function "
            f"of the size: `lambda size: DataLoader(data, batch_size=size, shuffle=True)`."
        )
        raise InvalidSearch(message)
    return source


def _check_rates(lowest: float, highest: float, steps: int, smoothing: float, divergence: float) -> None:
    wrong = {
        "lowest": not 0 < lowest < math.inf,
        "highest": not lowest < highest < math.inf,
        "steps": isinstance(steps, bool) or not isinstance(steps, int) or steps < LEAST,
        "smoothing": not 0 <= smoothing < 1,
        "divergence": not 1 < divergence < math.inf,
    }
    _refuse("tune_learning_rate", wrong, f"Rates rise from above 0, over {LEAST} steps or more.")


def _check_sizes(first: int, limit: int | None, batches: int) -> None:
    wrong = {
        "first": not _is_count(first),
        "limit": limit is not None and (not _is_count(limit) or not _is_count(first) or limit < first),
        "batches": not _is_count(batches),
    }
    _refuse("tune_batch_size", wrong, "Write whole numbers, 1 or more, and a limit that is not below the first size.")


def _refuse(search: str, wrong: dict[str, bool], remedy: str) -> None:
    names = [name for name, is_wrong in wrong.items() if is_wrong]
    if names:
        message = f"{search}: {', '.join(names)} has no meaning. {remedy}"
        raise InvalidSearch(message)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
