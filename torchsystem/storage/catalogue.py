"""The catalogue of a place: which files are artefacts of a kind, and what the ledger tells of them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from torchsystem.storage.artefacts import Artefact, order
from torchsystem.storage.layout import Layout
from torchsystem.storage.ledger import Action, Entry, Ledger
from torchsystem.storage.places import Place, Source
from torchsystem.storage.segments import OURS
from torchsystem.storage.templates import NUMBER, Template, Values

logger = logging.getLogger(__name__)


class Catalogue:
    """Which files are artefacts of a kind.

    Args:
        place: Where the files are.
        layout: Where artefacts of each kind lie.
        ledger: What is known of them.
    """

    def __init__(self, place: Place, layout: Layout, ledger: Ledger) -> None:
        self._place, self._layout, self._ledger = place, layout, ledger

    def listed(self, template: Template, known: Values) -> Iterator[Artefact]:
        """Yield all files of a kind with some values, those included that only hold a number."""
        for key, size in self._place.keys(template.folder(known)):
            values = None if key.startswith(f"{OURS}/") else template.parse(key)
            if values is not None and all(str(values[name]) == str(value) for name, value in known.items()):
                yield Artefact(template.kind, key, values, size, None)

    def find(self, template: Template, known: Values, sha256: str | None) -> list[Artefact]:
        """Find what was written of a kind with some values, and with some content."""
        entries = {entry.key: entry for entry in self._ledger.entries()}
        found = [told for one in self.listed(template, known) if (told := _told(one, entries.get(one.key))) is not None]
        if sha256 is not None:
            found = [one for one in map(self._digested, found) if (one.sha256 or "").startswith(sha256)]
        return sorted(found, key=order)

    def draw(self, template: Template, values: Values, source: Source) -> str:
        """Write under the next number; whoever finds it taken meanwhile takes the one after it."""
        number = max((one.number or 0 for one in self.listed(template, values)), default=0)
        while True:
            number += 1
            key = self._layout.format(template, {**values, NUMBER: number})
            if self._place.create(key, source):
                return key

    def enter(
        self, action: Action, template: Template, key: str, content: tuple[int, str], origin: str | None = None
    ) -> Artefact:
        """Write into the ledger what was written, with its size and digest."""
        size, sha256 = content
        self._ledger.add(action, key, template.kind, size=size, sha256=sha256, source=origin)
        return Artefact(template.kind, key, template.parse(key) or {}, size, sha256)

    def remove(self, artefact: Artefact) -> None:
        """Remove a file."""
        self._place.remove(artefact.key)
        self._ledger.add("removed", artefact.key, artefact.kind, size=artefact.size, sha256=None)

    def _digested(self, artefact: Artefact) -> Artefact:
        """Find out the digest of what nobody recorded, if it is there yet."""
        if artefact.sha256 is None:
            with suppress(FileNotFoundError):  # removed meanwhile
                return replace(artefact, sha256=hashlib.sha256(self._place.read(artefact.key)).hexdigest())
        return artefact


def within(values: Mapping[str, str | int], template: Template) -> dict[str, str | int]:
    """Return those values that a template has fields for."""
    return {name: value for name, value in values.items() if name in template.fields}


def _told(artefact: Artefact, entry: Entry | None) -> Artefact | None:
    """Add what the ledger tells of a file; None if it only holds a number."""
    if entry is None or entry.action == "removed":
        return artefact if artefact.size else None
    if entry.size != artefact.size:
        logger.warning("%s has been changed since it was recorded: %s.", artefact.key, entry)
        return artefact
    return replace(artefact, sha256=entry.sha256)
