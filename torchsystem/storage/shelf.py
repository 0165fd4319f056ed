"""The folder of one id in one run: checkpoints side by side, each in a folder of its own, numbered.

    000012-5f1c9a30/
        modules.safetensors     the tensors of the modules, by their names in the state_dict
        state.safetensors       all other tensors
        state.json              everything else
        manifest.json           what these are, renamed to this name last

A checkpoint is written into a folder that begins with ``.saving-``. It exists when its manifest has landed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from logging import getLogger
from pathlib import Path
from secrets import token_hex
from threading import Thread
from typing import Any

from torchsystem.domain.plain import Plain
from torchsystem.errors import BrokenCheckpoint
from torchsystem.storage.checkpoint import MANIFEST, PART, Checkpoint, Part, from_manifest, to_manifest
from torchsystem.storage.codec import Encoder, decode, from_json, to_json
from torchsystem.storage.ports import Chunk, Files
from torchsystem.storage.tensors import pieces, read

logger = getLogger(__name__)

NAME = re.compile(r"(\d{6,})-[0-9a-f]{8}")
LEFT = re.compile(r"\.(saving|deleting)-\d{6,}-[0-9a-f]{8}")
DRAFT = "manifest.draft"
MODULES, STATE, DATA = "modules.safetensors", "state.safetensors", "state.json"


class Shelf:
    """Put checkpoints of one id into its folder, and take them out.

    Args:
        files: The disk.
        folder: The folder.
        id: The id, as text.
        run: The name of the run.
    """

    def __init__(self, files: Files, folder: Path, *, id: str, run: str) -> None:  # noqa: A002 - it is the id
        self._files = files
        self.folder = folder
        self.id = id
        self.run = run

    def names(self) -> list[str]:
        """Name the folders of checkpoints, from the oldest to the newest, whatever is in them."""
        names = [name for name in self._files.list(self.folder) if NAME.fullmatch(name)]
        return sorted(names, key=number_of)

    def open(self, name: str) -> Checkpoint | None:
        """Read the manifest in a folder; None if there is none, because it was never finished, or is gone.

        Raises:
            BrokenCheckpoint: It cannot be read, or is not the one that was written.
            UnknownFormat: It is of another version.
        """
        folder = self.folder / name
        if self._is_unfinished(folder):
            return None
        try:
            checkpoint = from_manifest(self._files.read(folder / MANIFEST), folder)
        except FileNotFoundError as error:
            if self._is_unfinished(folder):
                return None  # it was removed a moment ago
            message = "its manifest is missing"
            raise BrokenCheckpoint(message) from error
        except OSError as error:
            message = f"its manifest cannot be read ({error})"
            raise BrokenCheckpoint(message) from error
        if (checkpoint.id, checkpoint.run, checkpoint.number) != (self.id, self.run, number_of(name)):
            message = f"it is {checkpoint}, and was moved here"
            raise BrokenCheckpoint(message)
        return checkpoint

    def write(
        self,
        draft: Checkpoint,
        state: Mapping[str, Plain],
        *,
        before_it_is_written: Callable[[], None],
        before_it_counts: Callable[[], None],
    ) -> Checkpoint:
        """Write a checkpoint, and return when it is sure to survive.

        Args:
            draft: What is known of it; its folder, number and parts are found out here.
            state: ``"snapshot"`` and ``"run"``.
            before_it_is_written: Called while another thread hashes what is to be written.
            before_it_counts: Called when all is written but the last name. An error of either leaves nothing behind.

        Returns:
            The checkpoint as it lies there.
        """
        number = max(map(number_of, self.names()), default=0) + 1
        folder = self.folder / f"{number:06}-{token_hex(4)}"
        draft_folder = self.folder / f".saving-{folder.name}"
        try:
            self._files.make_folder(draft_folder)
            parts = self._write_parts(draft_folder, _contents(state), before_it_is_written)
            checkpoint = replace(draft, folder=folder, number=number, parts=parts)
            self._write_whole(draft_folder / DRAFT, [to_manifest(checkpoint)])
            self._files.sync_folder(draft_folder)
            before_it_counts()
            self._files.rename(draft_folder, folder)
            self._files.rename(folder / DRAFT, folder / MANIFEST)
        except BaseException:
            for unfinished in (draft_folder, folder):
                with suppress(Exception):  # what fails here too is cleaned at the next start
                    self._empty(unfinished)
            raise
        self._files.sync_folder(folder)
        self._files.sync_folder(self.folder)
        return checkpoint

    def load(self, checkpoint: Checkpoint) -> dict[str, Plain]:
        """Read a checkpoint, and make sure that it is what was written.

        Returns:
            ``"snapshot"`` and ``"run"``.

        Raises:
            BrokenCheckpoint: It is not what was written.
        """
        contents = {name: self._read_part(checkpoint, name, part) for name, part in checkpoint.parts.items()}
        tensors = {name: read(contents[name]) if name in contents else {} for name in (MODULES, STATE)}
        try:
            data = from_json(contents[DATA])
            snapshot = decode(data["snapshot"], tensors[STATE])
            return {
                "snapshot": {**snapshot, "modules": decode(data["modules"], tensors[MODULES])},
                "run": decode(data["run"], tensors[STATE]),
            }
        except (KeyError, TypeError) as error:
            message = f"its {DATA} lacks something ({type(error).__name__}: {error})"
            raise BrokenCheckpoint(message) from error

    def verify(self, checkpoint: Checkpoint) -> None:
        """Make sure that a checkpoint is what was written.

        Raises:
            BrokenCheckpoint: It is not.
        """
        for name, part in checkpoint.parts.items():
            self._read_part(checkpoint, name, part)

    def delete(self, checkpoint: Checkpoint) -> None:
        """Remove a checkpoint; it is none any more before anything of it is gone."""
        going = self.folder / f".deleting-{checkpoint.folder.name}"
        try:
            self._files.rename(checkpoint.folder, going)
            self._files.sync_folder(self.folder)
            self._empty(going)
        except FileNotFoundError:
            return  # somebody else of this process was as quick
        except OSError as error:
            error.add_note(f"in removing {checkpoint}, which is superfluous; what came after it is saved")
            raise

    def clean(self) -> list[str]:
        """Remove what is left of saves and removals that never came to their end, and name it."""
        left = [name for name in self._files.list(self.folder) if LEFT.fullmatch(name)]
        left += [name for name in self.names() if self._is_unfinished(self.folder / name)]
        return [name for name in left if self._empty(self.folder / name)]

    def _write_parts(
        self, folder: Path, contents: Mapping[str, list[Chunk]], check: Callable[[], None]
    ) -> dict[str, Part]:
        """Write files, and hash meanwhile what is written."""
        digests: dict[str, str] = {}
        hashing = _in_background(lambda: digests.update({name: _digest(part) for name, part in contents.items()}))
        try:
            check()
            for name, chunks in contents.items():
                self._files.write(folder / name, chunks)
            for name in contents:
                self._files.sync(folder / name)
        finally:
            hashing()
        sizes = {name: sum(memoryview(chunk).nbytes for chunk in chunks) for name, chunks in contents.items()}
        return {name: Part(sizes[name], digests[name]) for name in contents}

    def _write_whole(self, path: Path, chunks: list[Chunk]) -> None:
        self._files.write(path, chunks)
        self._files.sync(path)

    def _read_part(self, checkpoint: Checkpoint, name: str, part: Part) -> bytes:
        try:
            data = self._files.read(checkpoint.folder / name)
        except OSError as error:
            message = f"its {name} cannot be read ({error.strerror})"
            raise BrokenCheckpoint(message) from error
        if len(data) != part.size:
            message = f"its {name} has {len(data)} bytes, and {part.size} were written"
            raise BrokenCheckpoint(message)
        if sha256(data).hexdigest() != part.sha256:
            message = f"its {name} was changed: the digest is not the one of what was written"
            raise BrokenCheckpoint(message)
        return data

    def _is_unfinished(self, folder: Path) -> bool:
        """Tell whether a folder never became a checkpoint; a file of such a name is somebody else's, and none either.

        A manifest is a draft until it lands, and the draft is removed last: where parts are without either, it is lost.
        """
        with suppress(NotADirectoryError):
            names = self._files.list(folder)
            return MANIFEST not in names and (DRAFT in names or not {MODULES, STATE, DATA} & {*names})
        return True

    def _empty(self, folder: Path) -> bool:
        """Remove what is ours in a folder, and the folder itself unless there is anything else; tell whether it is."""
        with suppress(NotADirectoryError):
            ours = [name for name in self._files.list(folder) if PART.fullmatch(name) or name == DRAFT]
            for name in sorted(ours, key=(MANIFEST, DRAFT).count):
                self._files.remove(folder / name)
            others = self._files.list(folder)
            if not others:
                with suppress(FileNotFoundError):
                    self._files.remove(folder)
                return True
            logger.warning("%s is no checkpoint any more, and stays because of %s", folder, ", ".join(others))
        return False


def _contents(state: Mapping[str, Plain]) -> dict[str, list[Chunk]]:
    """Lay out a state as files."""
    modules, others = Encoder(), Encoder()
    snapshot: dict[str, Any] = state["snapshot"]
    data = {
        "modules": modules.encode(snapshot["modules"]),
        "snapshot": others.encode({name: part for name, part in snapshot.items() if name != "modules"}),
        "run": others.encode(state["run"], "run"),
    }
    tensors = {MODULES: modules.tensors, STATE: others.tensors}
    contents = {name: pieces(part) for name, part in tensors.items() if part}
    contents[DATA] = [to_json(data)]
    return contents


def _digest(chunks: list[Chunk]) -> str:
    digest = sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _in_background(work: Callable[[], None]) -> Callable[[], None]:
    """Begin a work in a thread; return what waits for it. Where no thread can begin any more, waiting does it."""
    thread = Thread(target=work, name="digests of a checkpoint", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is about to end
        return work
    return thread.join


def number_of(name: str) -> int:
    """Read the number of a checkpoint off the name of its folder."""
    return int(name.partition("-")[0])
