"""Artefacts: what a store finds again, and how it is told that it is still the same."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torchsystem.errors import DamagedArtefact, InvalidContent, InvalidStore
from torchsystem.storage.places import Source
from torchsystem.storage.templates import NUMBER

DIGEST = re.compile("[0-9a-fA-F]{1,64}")


@dataclass(frozen=True, slots=True)
class Artefact:
    """Something in a store.

    Attributes:
        kind: Its kind.
        key: Its path in the store.
        values: What its path was made from.
        size: Its size in bytes.
        sha256: The digest of its content; None if nobody recorded it.
    """

    kind: str
    key: str
    values: Mapping[str, str | int]
    size: int
    sha256: str | None

    @property
    def number(self) -> int | None:
        """Return its number; None if its kind has none."""
        number = self.values.get(NUMBER)
        return None if number is None else int(number)


def order(artefact: Artefact) -> tuple[list[str], int]:
    """Return by what artefacts of one kind are sorted: their values, and then their numbers."""
    return [str(value) for name, value in artefact.values.items() if name != NUMBER], artefact.number or 0


def check_content(source: Source) -> Source:
    """Return what is to be stored.

    Raises:
        InvalidContent: It is neither data nor the path of a file.
    """
    if not isinstance(source, bytes | Path):
        message = f"{type(source).__name__} cannot be stored. Give bytes, as text.encode(), or the Path of a file."
        raise InvalidContent(message)
    return source


def check_digest(sha256: object) -> str:
    """Return a digest, or the beginning of one, as it is recorded; an empty one would be found in everything.

    Raises:
        InvalidStore: It is none.
    """
    if not isinstance(sha256, str) or not DIGEST.fullmatch(sha256):
        message = f"sha256={sha256!r} is no digest. Write up to 64 hexadecimal digits, as in artefact.sha256."
        raise InvalidStore(message)
    return sha256.lower()


def digest(source: Source) -> tuple[int, str]:
    """Return the size and the SHA-256 of data, or of a local file.

    Raises:
        InvalidContent: It is neither.
    """
    check_content(source)
    if isinstance(source, bytes):
        return len(source), hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), found


def verify(artefact: Artefact, found: str) -> None:
    """Refuse content that is not what was recorded.

    Raises:
        DamagedArtefact: It is not.
    """
    if artefact.sha256 is not None and artefact.sha256 != found:
        message = (
            f"{artefact.key} is not what was recorded: its SHA-256 was {artefact.sha256[:12]}…, and is {found[:12]}…. "
            f"Make it anew; or if it was changed on purpose, record it: store.record(path)."
        )
        raise DamagedArtefact(message)
