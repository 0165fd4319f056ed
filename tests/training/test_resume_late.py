"""What shows of a loader only when it is gone through: generators made late, samplers without end, rare randomness."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from torchsystem.errors import InexactLoader, MismatchedRun
from torchsystem.training.cursor import Cursor
from torchsystem.training.randomness import capture


class Numbers(Dataset[Tensor]):
    """The numbers from 0 to 11."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor(float(index))


class Late(Numbers):
    """Numbers with noise, from a generator that is made when the first of them is asked for."""

    generator: Any = None

    def __getitem__(self, index: int) -> Tensor:
        if self.generator is None:
            self.generator = np.random.default_rng(3)
        return super().__getitem__(index) + float(self.generator.normal())


class Prepared(Numbers):
    """Numbers with noise, from a generator that `worker_init_fn` brings."""

    generator: Any = None

    def __getitem__(self, index: int) -> Tensor:
        return super().__getitem__(index) + torch.rand((), generator=self.generator)


def bring(number: int) -> None:
    """Give the data set of a worker a generator of its own."""
    info: Any = get_worker_info()
    info.dataset.generator = torch.Generator().manual_seed(number)


class Owned(Numbers):
    """Numbers that say whether a worker knows its data set by what the user made."""

    def __getitem__(self, index: int) -> Tensor:
        info: Any = get_worker_info()
        return torch.tensor(info.dataset is self)


class Endless(Sampler[int]):
    """Some order after the other, though it says how long one is."""

    def __len__(self) -> int:
        return 12

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from range(12)


class Noisy(Numbers):
    """Numbers that are random from some index on."""

    def __getitem__(self, index: int) -> Tensor:
        return super().__getitem__(index) + (torch.rand(()) if index >= 6 else 0)


LATE = {
    "made by the data set": lambda: DataLoader(Late(), 4),
    "made by the data set, in a worker": lambda: DataLoader(Late(), 4, num_workers=1),
    "brought by worker_init_fn": lambda: DataLoader(Prepared(), 4, num_workers=1, worker_init_fn=bring),
}


@pytest.mark.parametrize("loader", LATE.values(), ids=LATE)
def test_a_generator_that_is_made_while_fetching_is_refused(loader: Any) -> None:
    """Nobody could put it back, so no batch is handed out; a run that need not go on exactly goes through all."""
    exact = Cursor(loader(), "train")
    exact.check()
    with pytest.raises(InexactLoader, match=r"'train' .*makes generators of its own .*dataset\.generator"):
        next(exact.open(0))
    assert len([*Cursor(loader(), "train").open(0)]) == 3


@pytest.mark.parametrize("prepare", [None, lambda _number: None], ids=["nothing", "worker_init_fn"])
def test_a_worker_knows_the_data_set_of_the_user(prepare: Any) -> None:
    """By `get_worker_info().dataset`, whether it prepares anything or not."""
    cursor = Cursor(DataLoader(Owned(), 4, num_workers=1, worker_init_fn=prepare), "train")
    cursor.check()
    assert all(batch.all() for batch in cursor.open(0))


def test_what_a_worker_prepares_is_there() -> None:
    """A data set that is put in place of the first one is the one that is asked."""

    def replace(_number: int) -> None:
        info: Any = get_worker_info()
        object.__setattr__(info, "dataset", [-1.0] * 12)

    loader = DataLoader(Numbers(), 4, num_workers=1, worker_init_fn=replace, multiprocessing_context="fork")
    assert [batch.tolist() for batch in Cursor(loader, "train").open(0)] == [[-1.0] * 4] * 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sampler_without_end_is_refused_or_gone_through(workers: int) -> None:
    """It is refused where a run is to go on exactly; elsewhere its batches are those of a plain loop, for as long."""

    def loader() -> DataLoader[Any]:
        return DataLoader(Numbers(), 5, sampler=Endless(), num_workers=workers)

    exact = Cursor(loader(), "validation")
    exact.check()
    with pytest.raises(InexactLoader, match=r"'validation' .*no end"):
        exact.open(0)
    count = 1100 if workers == 0 else 20
    plain, seen = islice(loader(), count), islice(Cursor(loader(), "train").open(0), count)
    assert all(map(torch.equal, plain, seen))


def test_a_data_set_that_is_random_later_is_noticed() -> None:
    """Though its first batches are not, in any epoch: whoever then goes on with workers is refused."""
    cursor = Cursor(DataLoader(Numbers(), 2), "train")
    cursor.check()
    assert len([*cursor.open(0)]) == 6
    assert cursor.state(under_way=False)["is_random"] is False
    cursor = Cursor(DataLoader(Noisy(), 2), "train")
    cursor.check()
    assert len([*cursor.open(0)]) == 6
    opened = cursor.open(1)
    cursor.position = 0
    next(opened)
    state = cursor.state(under_way=True)
    assert state["is_random"] is True
    with_a_worker = Cursor(DataLoader(Noisy(), 2, num_workers=1), "train")
    with_a_worker.load(state, capture(), lambda _name: False)
    with pytest.raises(MismatchedRun, match="num_workers"):
        with_a_worker.open(0)


def test_a_run_that_had_workers_is_refused_where_its_data_show_to_be_random() -> None:
    """That may be after the first batch, and is accepted by a word."""
    state = Cursor(DataLoader(Noisy(), 2, num_workers=1), "train").state(under_way=False)
    for word, count in (("another", 3), ("train.num_workers", 6)):
        cursor = Cursor(DataLoader(Noisy(), 2), "train")
        cursor.load(state, capture(), lambda name, word=word: name == word)
        seen = 0
        try:
            for _ in cursor.open(0):
                seen += 1
        except MismatchedRun:
            assert word == "another"
        assert seen == count
