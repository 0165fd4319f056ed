"""What a checkpoint is: parts, and a manifest that says what they are, how large, and by which digest they are told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from torchsystem.errors import BrokenCheckpoint, UnknownFormat
from torchsystem.progress import Progress
from torchsystem.storage.codec import Encoder, decode, from_json, to_json

FORMAT = "torchsystem checkpoint"
VERSION = 1
MANIFEST = "manifest.json"
PART = re.compile(r"[a-z]+\.(json|safetensors)")


class Part(NamedTuple):
    """What a file of a checkpoint has to be.

    Attributes:
        size: How many bytes it has.
        sha256: The digest of them.
    """

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was saved, and where.

    Attributes:
        folder: Where it lies.
        number: Which one it is, of those of its id and run; a higher one is newer.
        id: What the id was, as text.
        run: The name of the run.
        created: When it was saved.
        progress: How far it was.
        metrics: The metrics of its own epoch, if they were given.
        metadata: What was saved with which parts: names, hashes and arguments.
        parts: Its files.
    """

    folder: Path
    number: int
    id: str = field(compare=False)
    run: str = field(compare=False)
    created: datetime = field(compare=False)
    progress: Progress = field(compare=False)
    metrics: Mapping[str, float] = field(compare=False)
    metadata: Mapping[str, Any] = field(compare=False, repr=False)
    parts: Mapping[str, Part] = field(compare=False, repr=False)

    @property
    def size(self) -> int:
        """Say how many bytes all parts have."""
        return sum(part.size for part in self.parts.values())

    def __str__(self) -> str:
        """Name it as errors do."""
        return f"checkpoint {self.number} of {self.id} in run {self.run} (epoch {self.progress.epoch})"


def to_manifest(checkpoint: Checkpoint) -> bytes:
    """Write the manifest of a checkpoint, with its own digest."""
    body = {
        "format": FORMAT,
        "version": VERSION,
        "number": checkpoint.number,
        "id": checkpoint.id,
        "run": checkpoint.run,
        "created": checkpoint.created.isoformat(),
        "progress": asdict(checkpoint.progress),
        "metrics": dict(checkpoint.metrics),
        "metadata": dict(checkpoint.metadata),
        "parts": {name: part._asdict() for name, part in checkpoint.parts.items()},
    }
    encoded = Encoder().encode(body)
    return to_json({**encoded, "sha256": _digest(encoded)})


def from_manifest(data: bytes, folder: Path) -> Checkpoint:
    """Read a manifest.

    Raises:
        UnknownFormat: It is of another version.
        BrokenCheckpoint: It is no manifest, or not the one that was written.
    """
    manifest = from_json(data)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        message = "its manifest is none"
        raise BrokenCheckpoint(message)
    encoded: dict[str, Any] = manifest
    if encoded.get("version") != VERSION:
        message = (
            f"{folder} has a checkpoint of version {encoded.get('version')!r}, and this torchsystem knows version "
            f"{VERSION} alone. Restore it with the torchsystem that saved it, or with a newer one."
        )
        raise UnknownFormat(message)
    digest = encoded.pop("sha256", None)
    if digest != _digest(encoded):
        message = "its manifest was changed"
        raise BrokenCheckpoint(message)
    body = decode(encoded, {})
    try:
        _check_types(body)
        parts = {name: Part(**part) for name, part in body["parts"].items()}
        checkpoint = Checkpoint(
            folder=folder,
            number=body["number"],
            id=body["id"],
            run=body["run"],
            created=datetime.fromisoformat(body["created"]).astimezone(UTC),
            progress=Progress(**body["progress"]),
            metrics=body["metrics"],
            metadata=body["metadata"],
            parts=parts,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"its manifest lacks something ({type(error).__name__}: {error})"
        raise BrokenCheckpoint(message) from error
    if not all(PART.fullmatch(name) for name in parts):
        message = "its manifest names files that no checkpoint has"
        raise BrokenCheckpoint(message)
    return checkpoint


def _check_types(body: dict[str, Any]) -> None:
    """Refuse what has another form than what is written here, before anybody relies on it."""
    numbers = [*body["progress"].values(), *body["metrics"].values(), body["number"]]
    parts = [part for of in ("parts", "about") for part in body["metadata"][of].values()]
    if not (
        all(type(number) in {int, float} for number in numbers)
        and all(type(part["name"]) is str and type(part["arguments"]) is dict for part in parts)
    ):
        message = "something in it is of another type"
        raise TypeError(message)


def _digest(encoded: dict[str, Any]) -> str:
    return sha256(to_json(encoded)).hexdigest()
