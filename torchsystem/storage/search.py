"""Finding a checkpoint: the newest whole one, aloud about those that are not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from logging import getLogger
from warnings import warn

from torchsystem.domain.plain import Plain
from torchsystem.errors import BrokenCheckpoint, UnknownCheckpoint
from torchsystem.storage.alarms import SkippedCheckpoint
from torchsystem.storage.checkpoint import Checkpoint
from torchsystem.storage.shelf import Shelf, number_of

logger = getLogger(__name__)


def opened(shelf: Shelf) -> Iterator[Checkpoint | BrokenCheckpoint]:
    """Open the manifests in a folder, from the oldest to the newest; of what is broken, say how."""
    for name in shelf.names():
        found = _open(shelf, name)
        if found is not None:
            yield found


def readable(shelf: Shelf, *, aloud: bool = False) -> Iterator[Checkpoint]:
    """Open the manifests in a folder, from the oldest to the newest, and leave out what is broken."""
    for found in opened(shelf):
        if isinstance(found, Checkpoint):
            yield found
        elif aloud:
            _say(f"{found}; it is left out")


def newest(shelf: Shelf) -> tuple[Checkpoint, dict[str, Plain]] | None:
    """Read the newest checkpoint that is whole; None if there is none, broken or not.

    Raises:
        BrokenCheckpoint: There are checkpoints, and all are broken.
        UnknownFormat: The newest is of another version.
    """
    broken: list[str] = []
    tried: set[str] = set()
    while untried := [name for name in shelf.names() if name not in tried]:  # others may save and remove meanwhile
        name = untried[-1]
        tried.add(name)
        found = _open(shelf, name)
        if isinstance(found, Checkpoint):
            try:
                return found, shelf.load(found)
            except BrokenCheckpoint as error:
                if name not in shelf.names():
                    continue  # it was removed while it was read, because there is a newer one
                found = BrokenCheckpoint(f"{found} is broken: {error}")
        if found is not None:
            broken.append(str(found))
            _say(f"{found}; the one before it is used")
    if broken:
        lines = "".join(f"\n  {line}" for line in broken)
        message = (
            f"no checkpoint in {shelf.folder} is whole:{lines}\nTo begin anew, move that folder away, or give the run "
            f"another name: Repository(root, run='...')."
        )
        raise BrokenCheckpoint(message)
    return None


def exactly(shelf: Shelf, wanted: Checkpoint | int) -> tuple[Checkpoint, dict[str, Plain]]:
    """Read one checkpoint, and no other.

    Raises:
        BrokenCheckpoint: It is broken.
        UnknownCheckpoint: It is not there.
    """
    for name in shelf.names():
        if name == wanted.folder.name if isinstance(wanted, Checkpoint) else number_of(name) == wanted:
            found = _open(shelf, name)
            if isinstance(found, BrokenCheckpoint):
                raise found
            if found is not None:
                return found, shelf.load(found)
    numbers = ", ".join(str(number_of(name)) for name in shelf.names()) or "none"
    which = wanted.number if isinstance(wanted, Checkpoint) else wanted
    message = f"there is no checkpoint {which!r} of {shelf.id} in run {shelf.run}. There are: {numbers}."
    raise UnknownCheckpoint(message)


def verified(shelf: Shelf, found: Iterable[Checkpoint | BrokenCheckpoint]) -> list[Checkpoint]:
    """Read checkpoints whole, and return them.

    Raises:
        BrokenCheckpoint: Some are broken, all of which are named.
    """
    whole: list[Checkpoint] = []
    broken: list[str] = []
    for each in found:
        if isinstance(each, BrokenCheckpoint):
            broken.append(str(each))
            continue
        try:
            shelf.verify(each)
            whole.append(each)
        except BrokenCheckpoint as error:
            broken.append(f"{each} is broken: {error}")
    if broken:
        lines = "".join(f"\n  {line}" for line in broken)
        message = f"{len(broken)} of {len(whole) + len(broken)} checkpoints in {shelf.folder} are broken:{lines}"
        raise BrokenCheckpoint(message)
    return whole


def _open(shelf: Shelf, name: str) -> Checkpoint | BrokenCheckpoint | None:
    try:
        return shelf.open(name)
    except BrokenCheckpoint as error:
        return BrokenCheckpoint(f"{shelf.folder / name} is broken: {error}")


def _say(message: str) -> None:
    logger.warning(message)
    warn(message, SkippedCheckpoint, stacklevel=5)
