"""What has no canonical form: no obstacle to construction, and refused by name when the hash is asked for."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from torchsystem.errors import InvalidRegistration, NoCanonicalForm
from torchsystem.registry import getarguments, gethash, getmetadata, register, sethash, setname


@register
class Net:
    """A class that takes anything."""

    def __init__(self, activation: object = None, *rest: object, **extra: object) -> None:
        """Take it."""


class Unregistered:
    """A class that nobody registered."""

    def method(self) -> None:
        """Do nothing."""


def read() -> Iterator[int]:
    """Yield something."""
    yield 1


def local() -> Any:
    """Give a function that nobody finds by name."""

    def relu() -> None: ...

    return relu


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda: None, "it is a lambda, which another process cannot find by name"),
        (local(), "it is the function local.<locals>.relu"),
        (read(), "it is a generator, which can be read only once"),
        (iter([1]), "it is a list_iterator"),
        (io.StringIO(), "it is a StringIO, a stream"),
        (
            Unregistered(),
            r"an Unregistered, which was not registered when it was made. Write `register\(Unregistered\)`",
        ),
        (Unregistered().__repr__, "it is a method of an Unregistered"),
        (Unregistered().method, "it is the function Unregistered.method, which another process cannot find by name"),
        (type("Local", (), {}), "it is the class Local, which another process cannot find by name"),
    ],
)
def test_what_has_no_canonical_form_is_refused_by_the_name_of_the_argument(value: object, words: str) -> None:
    """The message says which argument, of which class, what it is, and how to go on."""
    net = Net(value)
    for ask in (gethash, getmetadata):
        with pytest.raises(NoCanonicalForm, match=r"the argument 'activation' of Net has no canonical form") as refusal:
            ask(net)
        assert refusal.match(words)
        assert refusal.match(r"register\(Net, excluded_kwargs=\{'activation'\}\)")
    assert issubclass(NoCanonicalForm, TypeError)


def test_the_way_to_the_argument_is_told() -> None:
    """Deep inside, it is the innermost registered class whose argument is excluded."""
    inner = Net(None, {"a": [0, Net(act=lambda: None)]})
    with pytest.raises(NoCanonicalForm) as refusal:
        gethash(Net(inner))
    assert "the argument 'act' of Net (at \"activation.rest[0]['a'][1].act\" in Net)" in str(refusal.value)


def test_only_the_hash_is_refused() -> None:
    """Arguments can be looked at for as long as they live, and a hash set by hand needs no canonical form."""
    stranger = Unregistered()
    net = Net(stranger)
    assert getarguments(net)["activation"] is stranger
    sethash(net, "by hand")
    assert gethash(net) == "by hand"
    del stranger
    assert repr(getarguments(net)["activation"]).startswith("<no canonical form: an Unregistered")


def test_what_json_cannot_write_is_refused() -> None:
    """A number that Python does not write, and a nest too deep: both can be made, and looked at."""
    net = Net(10**5000)
    assert getarguments(net) == {"activation": 10**5000}
    with pytest.raises(NoCanonicalForm, match=r"the arguments of Net cannot be written as JSON.*as a string"):
        gethash(net)
    for _ in range(2_000):
        net = Net(net)
    with pytest.raises(NoCanonicalForm, match=r"the arguments of Net cannot be written as JSON.*too deeply"):
        getmetadata(net)


@pytest.mark.parametrize("set_by_hand", [setname, sethash])
def test_names_and_hashes_are_strings(set_by_hand: Callable[[object, Any], None]) -> None:
    """Anything else is refused when it is set, not where it is used."""
    with pytest.raises(InvalidRegistration, match="are strings, and 5 is none"):
        set_by_hand(Net(), 5)
