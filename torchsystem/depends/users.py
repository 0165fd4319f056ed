"""Who uses what: the injected functions to be told when an override changes, each held weakly."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

from torchsystem.depends.graph import Factory
from torchsystem.depends.linker import Linker


class _Reference(weakref.ref[Linker]):
    """A linker, and under which keys it stands."""

    __slots__ = ("keys",)

    keys: set[Factory]


class Users:
    """The linkers of one provider, by what they looked up; whoever asks holds its lock."""

    def __init__(self) -> None:
        self._by_key: dict[Factory, set[_Reference]] = {}
        self._tidy_at = 64

    def add(self, linker: Linker) -> None:
        """Take in a linker under its keys; it comes again when it has others."""
        reference = _Reference(linker, self._forget)
        reference.keys = linker.keys
        for key in linker.keys:
            self._by_key.setdefault(key, set()).add(reference)
        if len(self._by_key) > self._tidy_at:
            self._by_key = {key: known for key, known in self._by_key.items() if known}
            self._tidy_at = 2 * len(self._by_key) + 64

    def of(self, key: Factory) -> Iterator[Linker]:
        """Walk the linkers that looked up ``key``."""
        for reference in self._by_key.get(key, set()).copy():
            linker = reference()
            if linker is not None:
                yield linker

    def _forget(self, reference: _Reference) -> None:
        """Drop a linker that is gone; the garbage collector may say so at any moment, so nothing else is touched."""
        for key in reference.keys:
            self._by_key.get(key, set()).discard(reference)
