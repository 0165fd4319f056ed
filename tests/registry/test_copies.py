"""Copies and pickles: the identity goes with them, and nothing of it is in them that was not there."""

# ruff: noqa: ARG002, ARG004, S301 - the constructors here take arguments only to be asked for them; pickles are our own

from __future__ import annotations

import copy
import io
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import pytest
import torch
from torch.nn import Linear, Module, Sequential
from torch.optim import RMSprop
from torch.optim.lr_scheduler import ExponentialLR

from torchsystem.errors import NoCanonicalForm, NotRegistered
from torchsystem.registry import getarguments, gethash, getmetadata, getname, register, sethash, setname


def through_pickle(obj: Any) -> Any:
    """Pickle and unpickle."""
    return pickle.loads(pickle.dumps(obj))


def through_old_pickle(obj: Any) -> Any:
    """Pickle as it was done long ago."""
    return pickle.loads(pickle.dumps(obj, protocol=0))


def through_torch(obj: Any) -> Any:
    """Save and load as a whole."""
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


WAYS = [copy.copy, copy.deepcopy, through_pickle, through_old_pickle, through_torch]
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@register(excluded_kwargs={"callback"})
class Net(Module):
    """A registered module with a registered part, and an argument that cannot be pickled."""

    def __init__(self, features: int, *parts: Module, callback: Callable[[], None] | None = None) -> None:
        """Build the layers."""
        super().__init__()
        self.layers = Sequential(Linear(features, features), *parts)


@register
@dataclass(frozen=True)
class Config:
    """A frozen dataclass."""

    x: int
    y: int = 0


@register
class Custom:
    """A class that copies itself its own way."""

    def __init__(self, x: int) -> None:
        """Take it."""
        self.x = x

    def __copy__(self) -> Self:
        """Copy without constructing."""
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy without constructing."""
        new = type(self).__new__(type(self))
        new.x = self.x
        return new


@register
class Whole(int):
    """A number, which nothing can refer to weakly."""

    def __new__(cls, x: int, base: str = "ten") -> Self:
        """Make it."""
        return super().__new__(cls, x)


@register
class Parent:
    """A registered base of a registered class."""

    def __init__(self, x: int) -> None:
        """Take it."""


@register
class Child(Parent):
    """A registered class with a registered base."""


@register(excluded_kwargs={"token"})
class Client:
    """A class with an argument that is nobody's business."""

    def __init__(self, token: str, retries: int) -> None:
        """Use it."""


class Stray(Parent):
    """A class with a registered base, not registered itself."""


register(RMSprop, excluded_args=[0])
register(ExponentialLR)


@ways
@pytest.mark.parametrize(
    "obj",
    [Net(2, Net(3), callback=lambda: None), Config(1), Custom(1), Whole(7, "two"), Child(1)],
    ids=lambda obj: type(obj).__name__,
)
def test_a_copy_has_the_identity_of_its_original(way: Any, obj: Any) -> None:
    """Name, arguments and hash survive every way an object can be copied."""
    copied = way(obj)
    assert type(copied) is type(obj)
    assert getmetadata(copied) == getmetadata(obj)
    assert getarguments(copied) == getarguments(obj)
    assert getmetadata(way(copied)) == getmetadata(obj)


@ways
def test_an_optimizer_keeps_its_identity(way: Any) -> None:
    """The state of an optimizer has fixed keys, and its identity survives all the same."""
    optimizer = RMSprop(Linear(2, 2).parameters(), lr=0.1, momentum=0.9)
    copied = way(optimizer)
    assert getmetadata(copied) == getmetadata(optimizer)
    assert getmetadata(optimizer)["arguments"] == {"lr": 0.1, "momentum": 0.9}
    assert not {key for key in vars(copied) if "system" in key}


def test_the_state_of_a_scheduler_has_no_key_of_ours() -> None:
    """A scheduler's state dict is all of its attributes: it loads where only tensors and plain values may."""
    optimizer = RMSprop(Linear(2, 2).parameters(), lr=0.1)
    scheduler = ExponentialLR(optimizer, 3)
    assert set(scheduler.state_dict()) == set(vars(scheduler)) - {"optimizer"}
    buffer = io.BytesIO()
    torch.save(scheduler.state_dict(), buffer)
    buffer.seek(0)
    ExponentialLR(optimizer, 3).load_state_dict(torch.load(buffer, weights_only=True))
    assert getarguments(scheduler) == {"optimizer": {"name": "RMSprop", "arguments": {"lr": 0.1}}, "gamma": 3}


@ways
def test_what_was_set_by_hand_is_the_copies_own(way: Any) -> None:
    """A copy starts with the name and hash of its original, and goes its own way."""
    original = Config(1)
    setname(original, "special")
    sethash(original, "abc")
    copied = way(original)
    setname(copied, "copy")
    assert (getname(original), getname(copied), gethash(copied)) == ("special", "copy", "abc")


@ways
def test_an_unregistered_subclass_stays_unregistered(way: Any) -> None:
    """Copies of what has no identity have none."""
    with pytest.raises(NotRegistered):
        gethash(way(Stray(1)))


def test_an_argument_that_cannot_be_pickled_stays_behind() -> None:
    """An object that could be pickled before can be pickled still; the refusal of its hash goes with it."""
    odd = Config(lambda: None)  # type: ignore[arg-type]
    object.__setattr__(odd, "x", 1)
    assert through_pickle(odd) == Config(1)
    with pytest.raises(NoCanonicalForm, match=r"the argument 'x' of Config has no canonical form.*a lambda"):
        gethash(through_pickle(odd))


def test_what_does_not_count_stays_behind() -> None:
    """An excluded argument is not in a pickle because of us."""
    assert b"secret" not in pickle.dumps(Client("secret", 3))
    assert getarguments(through_pickle(Client("secret", 3))) == {"retries": 3}


def test_a_copy_made_by_the_constructor_is_a_construction() -> None:
    """`dataclasses.replace` constructs, so what counts is what it passed."""
    assert getarguments(replace(Config(1), y=2)) == {"x": 1, "y": 2}


def test_a_pickle_needs_no_registration_where_it_is_read() -> None:
    """A foreign class, registered here and not there, still says who its object is."""
    optimizer = RMSprop(Linear(1, 1).parameters(), lr=0.5)
    program = (
        "import pickle, sys\n"
        "from torchsystem.registry import gethash\n"
        "print(gethash(pickle.loads(bytes.fromhex(sys.stdin.read()))))"
    )
    there = subprocess.run(  # noqa: S603 - our own interpreter and program
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        input=pickle.dumps(optimizer).hex(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == gethash(optimizer)


def identify(queue: Any, obj: Any) -> None:
    """Tell the hash, in another process."""
    queue.put(gethash(obj))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_know_the_identity(method: str) -> None:
    """An object handed to another process is there who it is here."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    register(Linear)
    linear = Linear(2, out_features=3)
    process = context.Process(target=identify, args=(queue, linear))
    process.start()
    assert queue.get(timeout=200) == gethash(linear)
    process.join()


@register
class Count(int):
    """A class whose objects have no room beside them, and keep the record inside."""


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, through_pickle])
def test_a_copy_shares_no_record(duplicate: Callable[[Any], Any]) -> None:
    """Also where the record is among the attributes, a copy has its own; and the attributes are all there."""
    count = Count(5)
    count.unit = "batches"  # type: ignore[attr-defined]
    copied = duplicate(count)
    setname(copied, "other")
    assert (getname(count), getname(copied)) == ("Count", "other")
    assert (copied, copied.unit) == (5, "batches")
