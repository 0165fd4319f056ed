"""Where a run is in a loader, so that another process can go on right there.

A `DataLoader` over a data set that can be asked for any sample is replayed: the sampler draws the whole epoch again
from the random numbers as they were when it was opened, and the first batches are not fetched. Nothing is skipped over,
and the order is what a plain loop over the loader would have had. The loader itself is left alone: what is gone through
is its twin, a shallow copy. A loader that can tell its state is asked for it, and a list begins at its position.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any

from torch.utils.data import DataLoader

from torchsystem.domain.plain import Plain, plain
from torchsystem.errors import InexactLoader, InvalidSplit, MismatchedRun
from torchsystem.training.data import agree, description
from torchsystem.training.exactness import has_items, has_state, inexact, made_while_fetching, obstacle
from torchsystem.training.held import generators_in, generators_of
from torchsystem.training.randomness import are_equal, capture, put_back
from torchsystem.training.replay import Moment, Replay
from torchsystem.training.twin import Twin, can_replay

Accept = Callable[[str], bool]


class Cursor:
    """Go through a loader, once per epoch, from the beginning or from where a run was.

    Args:
        loader: The batches.
        split: What they are called.

    Attributes:
        loader: The batches.
        position: How many batches of the epoch under way were handed out and are done with.
    """

    def __init__(self, loader: Iterable[Any], split: str) -> None:
        self.loader = loader
        self.position = 0
        self._split = split
        self._own = generators_of(loader)
        self._twin: Twin | None = None
        if isinstance(loader, DataLoader) and can_replay(loader) and not has_state(loader):
            self._twin = Twin(loader)
        self._opening: Plain | None = None
        self._is_exact = False
        self._is_random: bool | None = None  # whether fetching draws random numbers, as far as one has seen
        self._kept: Plain = {}  # what `load` was given, until the next `open`
        self._accept: Accept = _accept_nothing
        self._data = description(loader)
        self._was_opened = False
        self._was_looked_at = False

    def check(self) -> None:
        """Refuse a loader over which a run cannot be continued exactly.

        Raises:
            InexactLoader: It is one.
        """
        self._is_exact = True
        why = obstacle(self.loader, self._own)
        if why:
            raise self._inexact(why)
        if self._twin is not None:
            self._twin.look(partial(_refuse_generators, self._split))

    def open(self, epoch: int, limit: int | None = None) -> Iterator[Any]:
        """Return the batches from `position` on. Where a run was continued, random numbers are what they were there.

        Args:
            epoch: The number of the epoch, for samplers that want to know it, as distributed ones do.
            limit: How many batches of the epoch to give at most, those before `position` among them.

        Raises:
            InexactLoader: It has to allow that a run goes on exactly, and does not ask its sampler.
            InvalidSplit: It is an iterator, and spent.
            MismatchedRun: Workers came or went, and the data set is random.
        """
        kept, self._kept = self._kept, {}
        self._refuse_spent()
        if "position" not in kept:
            self.position = 0
        left = None if limit is None else max(0, limit - self.position)
        _tell_epoch(self.loader, epoch)
        if self._twin is None:
            return islice(self._open_plainly(kept), left)
        is_through = left == 0 or (self._twin.has_workers and self.position >= self._twin.batches)
        if is_through and "position" in kept and not self._twin.keeps_workers:
            return self._open_nothing(kept)
        return islice(self._open_twin(self._twin, kept, epoch), left)

    def close(self) -> None:
        """Let go of workers that stay from epoch to epoch."""
        if self._twin is not None:
            self._twin.close()

    def state(self, *, under_way: bool) -> Plain:
        """Return where it is, for `load`.

        Args:
            under_way: Whether an epoch of the loader is open.
        """
        state: dict[str, Plain] = {"own": capture(self._own), "data": self._data}
        if self._twin is not None:
            state["has_workers"] = self._twin.has_workers
            # before it is opened in this process, what was so in the one before is so still
            state["workers_stay"] = self._twin.is_running or bool(self._kept.get("workers_stay"))
            state["is_random"] = self._kept.get("is_random") if self._is_random is None else self._is_random
        if under_way:
            state["position"] = self.position
            state["opening"] = self._opening
            if has_state(self.loader):
                state["loader"] = plain(_stateful(self.loader).state_dict(), self._split)
        return state

    def load(self, state: Plain, common: Plain, accept: Accept, beside: Collection[Any] = ()) -> list[Any]:
        """Let the next `open` go on where `state` was taken.

        Args:
            state: What `state` returned.
            common: The random numbers in use when it was taken.
            accept: Tells what of the data may differ, by its name: `"train.batch_size"`.
            beside: Generators that are left as they are: another loader that shares them has put them back before,
                and may have drawn from them since.

        Returns:
            The generators that it has put back.

        Raises:
            MismatchedRun: The loader has other data.
        """
        ours, theirs = self._data, state["data"]
        for name in sorted(ours.keys() | theirs.keys()):
            if not agree(ours.get(name), theirs.get(name)):
                self._refuse(name, theirs.get(name), ours.get(name), accept)
        self._accept = accept
        self._kept = {**state, "now": Moment(common, state["own"])}
        self.position = state.get("position", 0)
        known = {id(generator) for generator in beside}
        own = {path: generator for path, generator in self._own.items() if id(generator) not in known}
        put_back(state["own"], own)
        return list(own.values())

    def _open_plainly(self, kept: Plain) -> Iterator[Any]:
        """Open what is not replayed: lists, loaders that keep their state, and those that nobody can continue."""
        if "position" not in kept:
            self._opening = Moment.now(self._own)._asdict()
            return iter(self.loader)
        self._opening = kept["opening"]
        if "loader" in kept:
            _stateful(self.loader).load_state_dict(kept["loader"])
            iterator = iter(self.loader)
        elif has_items(self.loader):
            iterator = islice(self.loader, self.position, None)
        else:
            Moment(**kept["opening"]).put_back(self._own)
            iterator = iter(self.loader)
            next(islice(iterator, self.position, self.position), None)
        kept["now"].put_back(self._own)
        return iterator

    def _open_nothing(self, kept: Plain) -> Iterator[Any]:
        """Open what nothing is left of: no batch is fetched, which might draw numbers, and no worker is started."""
        self._opening, self._is_random = kept["opening"], kept["is_random"]
        kept["now"].put_back(self._own)
        return iter(())

    def _open_twin(self, twin: Twin, kept: Plain, epoch: int) -> Iterator[Any]:
        replay = Replay(self._own, kept, f"{self._split}/{epoch}", twin.batches)
        if twin.has_workers:
            self._refuse_change(kept, is_random=kept.get("is_random"))  # before any is started
        iterator = twin.open(replay.begin, self.position)
        first = [] if twin.has_workers else list(islice(iterator, 1))
        self._opening = replay.opening
        self._refuse_inexact(replay, is_drawn=not first or replay.drawn_at is not None)
        if twin.has_workers:
            return iterator
        if first:
            self._note_random(replay.drawn_at, kept)
        elif self._is_random is None:
            self._is_random = kept.get("is_random")
        matters = self._is_exact or "has_workers" in kept  # to whoever goes on, or has gone on; to others it only costs
        return chain(first, chain.from_iterable(self._looked_at(iterator, kept)) if matters else iterator)

    def _looked_at(self, iterator: Iterator[Any], kept: Plain) -> Iterator[Iterable[Any]]:
        """Give batches in ever longer runs; look between them whether fetching draws random numbers after all.

        Looking at each would take longer than many a data set does to fetch one.
        """
        length = 1
        while not self._is_random:
            before = capture()
            batch = list(islice(iterator, 1))
            self._note_random(before, kept)
            yield batch
            if not batch:
                return
            yield islice(iterator, length)
            length *= 4
        yield iterator

    def _note_random(self, before: Plain, kept: Plain) -> None:
        """See whether a batch was fetched with random numbers; data that has drawn some once may do so again."""
        self._is_random = bool(self._is_random) or not are_equal(before, capture())
        self._refuse_change(kept, is_random=self._is_random)

    def _refuse_inexact(self, replay: Replay, *, is_drawn: bool) -> None:
        """Refuse what shows only when a loader is opened, if it has to allow that a run goes on exactly."""
        if not self._is_exact:
            return
        why = ""
        if not is_drawn:
            why = f"a {type(self.loader).__qualname__} does not ask its sampler. Leave its own __iter__ out"
        elif replay.is_endless:
            why = "its sampler has no end, or one far beyond its length. Let it end where its __len__ says"
        elif not self._was_looked_at:
            self._was_looked_at = True
            known = {id(generator) for generator in self._own.values()}
            new = {path: each for path, each in generators_of(self.loader).items() if id(each) not in known}
            why = made_while_fetching(new)
        if why:
            raise self._inexact(why)

    def _refuse_spent(self) -> None:
        """Refuse an iterator that was gone through: another epoch of it would be empty, and nobody would notice."""
        if self._was_opened and isinstance(self.loader, Iterator):
            message = (
                f"the loader of {self._split!r} is a {type(self.loader).__qualname__}, which can be gone through once. "
                f"Give a loader that begins anew in each epoch: a list, a DataLoader, or an object with __iter__."
            )
            raise InvalidSplit(message)
        self._was_opened = True

    def _inexact(self, why: str) -> InexactLoader:
        return InexactLoader(inexact(self._split, why))

    def _refuse_change(self, kept: Plain, *, is_random: bool | None) -> None:
        """Refuse that workers came or went, where that changes the random numbers that the data set draws."""
        had, has = kept.get("has_workers"), self._twin is not None and self._twin.has_workers
        if had is not None and had != has and is_random:
            words = {True: "one or more", False: "none"}
            self._refuse("num_workers", words[had], f"{words[has]}, and the data set is random", self._accept)

    def _refuse(self, name: str, then: Plain, now: Plain, accept: Accept) -> None:
        known_as = f"{self._split}.{name}"
        if not accept(known_as):
            message = (
                f"the run began with {name} = {then} in the split {self._split!r}, where it is now {now}. Go on with "
                f"what it began with, or accept the difference: fit(..., accept={known_as!r})."
            )
            raise MismatchedRun(message)


def _refuse_generators(split: str, dataset: object) -> None:
    """Refuse, in a worker, a data set that has made generators of its own there, of which nobody else knows."""
    why = made_while_fetching({f"dataset.{path}": each for path, each in generators_in(dataset).items()})
    if why:
        raise InexactLoader(inexact(split, why))


def _accept_nothing(_name: str) -> bool:
    return False


def _stateful(loader: Any) -> Any:
    """Look at a loader as at what has a state, which is known by now, and not by its type."""
    return loader


def _tell_epoch(loader: Any, epoch: int) -> None:
    """Tell the epoch to samplers that draw from it."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    places = (getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    for sampler in {id(place): place for place in places}.values():
        set_epoch = getattr(sampler, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)
