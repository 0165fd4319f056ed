"""Arguments as they were when a constructor was called, and how they look from outside.

Frozen values are plain ones, tuples and dicts of frozen values, constructions of registered objects, and stand-ins for
everything else. They never change, and they keep nothing alive that could hold a tensor.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol, TypeAlias

Plain: TypeAlias = "bool | int | float | str | None"
Frozen: TypeAlias = "Plain | tuple[Frozen, ...] | dict[str, Frozen] | Construction | Foreign | Unknown"
JSON: TypeAlias = "Plain | list[JSON] | dict[str, JSON]"

PLAIN: frozenset[type] = frozenset({bool, int, float, str, type(None)})
"""The exact types whose values are their own canonical form."""

VERSION = 1
"""The version of the canonical form of all other values. Forms are added, never changed: a hash is for ever."""

TAG = "$canonical"
"""The key by which a canonical form is told from a plain dict; its value is the version."""


class Origin(Protocol):
    """What a construction comes from: a name, and a way to bind what the constructor was given."""

    @property
    def name(self) -> str:
        """The name under which the class is registered."""
        ...

    def bind(self, args: tuple[Frozen, ...], kwargs: Mapping[str, Frozen]) -> dict[str, Frozen]:
        """Give the arguments that make the identity, in the order of the signature."""
        ...


class Settled:
    """The origin of a construction that is bound already: out of a pickle, or under another name."""

    def __init__(self, name: str, arguments: dict[str, Frozen]) -> None:
        self.name = name
        self.arguments = arguments

    def bind(self, args: tuple[Frozen, ...], kwargs: Mapping[str, Frozen]) -> dict[str, Frozen]:
        """Give the arguments that were bound before."""
        del args, kwargs
        return self.arguments


class Construction:
    """One call of a registered constructor; bound to the signature when somebody first asks."""

    __slots__ = ("_args", "_bound", "_kwargs", "_origin", "_text")

    def __init__(
        self, origin: Origin, args: tuple[Frozen, ...] = (), kwargs: Mapping[str, Frozen] | None = None
    ) -> None:
        self._origin = origin
        self._args = args
        self._kwargs = kwargs
        self._bound: dict[str, Frozen] | None = None
        self._text: str | None = None

    @property
    def name(self) -> str:
        """The name of the class when the object was made."""
        return self._origin.name

    @property
    def arguments(self) -> dict[str, Frozen]:
        """The arguments that make the identity: in signature order, without excluded ones and defaults."""
        if self._bound is None:
            self._bound = self._origin.bind(self._args, self._kwargs or {})
        return self._bound

    @property
    def text(self) -> str:
        """The canonical form of the arguments, as JSON; kept, for an identity is asked for again and again.

        Raises:
            Formless: Something in it has none.
        """
        if self._text is None:
            self._text = json.dumps(arguments_as_json(self))
        return self._text

    @property
    def has_form(self) -> bool:
        """Whether everything in it has a canonical form."""
        try:
            return bool(self.text)
        except Formless:
            return False

    def mapped(self, function: Callable[[Frozen], Frozen]) -> Construction:
        """Give the construction from what a function makes of each argument; it is bound anew."""
        if isinstance(self._origin, Settled):
            settled = {name: function(value) for name, value in self._origin.arguments.items()}
            return Construction(Settled(self.name, settled))
        kwargs = {name: function(value) for name, value in (self._kwargs or {}).items()}
        return Construction(self._origin, tuple(map(function, self._args)), kwargs)

    def renamed(self, name: str) -> Construction:
        """Give the same construction under another name."""
        return Construction(Settled(name, self.arguments))

    def __reduce__(self) -> tuple[type[Construction], tuple[Settled]]:
        return Construction, (Settled(self.name, self.arguments),)

    def __deepcopy__(self, memo: dict[int, object]) -> Construction:
        return self


class Foreign:
    """A value that JSON does not know: its kind, what it is made of, and a look at it for as long as it lives."""

    __slots__ = ("content", "kind", "look")

    def __init__(self, kind: str, content: Frozen, look: Callable[[], object] = lambda: None) -> None:
        self.kind = kind
        self.content = content
        self.look = look

    def __reduce__(self) -> tuple[type[Foreign], tuple[str, Frozen]]:
        return Foreign, (self.kind, self.content)


class Unknown:
    """A value without canonical form: what it is, what to do about it, and a look at it for as long as it lives."""

    __slots__ = ("look", "remedy", "what")

    def __init__(self, what: str, remedy: str = "", look: Callable[[], object] = lambda: None) -> None:
        self.what = what
        self.remedy = remedy
        self.look = look

    def __repr__(self) -> str:
        return f"<no canonical form: {self.what}>"

    def __reduce__(self) -> tuple[type[Unknown], tuple[str, str]]:
        return Unknown, (self.what, self.remedy)  # the value itself stays behind: it may not be picklable


class Formless(Exception):
    """Something in a frozen value has no canonical form."""


def as_json(value: Frozen) -> JSON:
    """Give the canonical form of a frozen value.

    Raises:
        Formless: Something in it has none.
    """
    match value:
        case tuple():
            return [as_json(item) for item in value]
        case dict() if TAG in value or value.keys() == {"name", "arguments"}:  # it would be taken for what it is not
            return _tagged("dict", [[key, as_json(item)] for key, item in value.items()])
        case dict():
            return {key: as_json(item) for key, item in value.items()}
        case Construction():
            return {"name": value.name, "arguments": arguments_as_json(value)}
        case Foreign():
            return _tagged(value.kind, as_json(value.content))
        case Unknown():
            raise Formless
        case _:
            return value


def arguments_as_json(construction: Construction) -> dict[str, JSON]:
    """Give the canonical form of what an object was constructed from.

    Raises:
        Formless: Something in it has none.
    """
    return {name: as_json(value) for name, value in construction.arguments.items()}


def _tagged(kind: str, content: JSON) -> JSON:
    return {TAG: VERSION, "type": kind, "value": content}


def text(value: Frozen) -> str:
    """Write the canonical form of a frozen value; two values are the same if and only if their texts are."""
    return json.dumps(as_json(value))


class Stumble(NamedTuple):
    """Where a canonical form is missing."""

    owner: str  # the name of the innermost registered class
    argument: str  # its argument
    path: str  # the way there, from the object that was asked
    value: Unknown


def stumble(construction: Construction, path: str = "") -> Iterator[Stumble]:
    """Find what has no canonical form, in the order in which it was given."""
    for argument, value in construction.arguments.items():
        yield from _stumble(value, construction.name, argument, f"{path}{argument}")


def _stumble(value: Frozen, owner: str, argument: str, path: str) -> Iterator[Stumble]:
    match value:
        case tuple():
            for index, item in enumerate(value):
                yield from _stumble(item, owner, argument, f"{path}[{index}]")
        case dict():
            for key, item in value.items():
                yield from _stumble(item, owner, argument, f"{path}[{key!r}]")
        case Construction():
            yield from stumble(value, f"{path}.")
        case Foreign():
            yield from _stumble(value.content, owner, argument, path)
        case Unknown():
            yield Stumble(owner, argument, path, value)
        case _:
            return
