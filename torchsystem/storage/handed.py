"""Paths that a store has handed out: what is written there is recorded, at the latest when the interpreter ends."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from torchsystem.errors import UnknownArtefact
from torchsystem.services.processes import finish_at_exit
from torchsystem.storage.artefacts import Artefact, digest
from torchsystem.storage.catalogue import Catalogue
from torchsystem.storage.layout import Layout
from torchsystem.storage.places import Folder
from torchsystem.storage.segments import check_key

logger = logging.getLogger(__name__)

_waiting: set[Handed] = set()  # who drops a store before the interpreter ends does not drop what is to be recorded


class Handed:
    """The paths in a folder that were handed out, and are not recorded yet.

    They are those of the process that asked for them: its children have others.

    Args:
        folder: The folder.
        layout: Where artefacts of each kind lie in it.
        catalogue: Where to record them.
    """

    def __init__(self, folder: Folder, layout: Layout, catalogue: Catalogue) -> None:
        self.folder, self._layout, self._catalogue = folder, layout, catalogue
        self._keys: dict[str, None] = {}
        self._process = os.getpid()

    def out(self, key: str) -> Path:
        """Hand out a path, in a folder that is made.

        Raises:
            OutsideRoot: A symbolic link leads out of the root.
        """
        path = self.folder.path(key)
        self._begin_anew_in_child()
        self._keys[key] = None
        _waiting.add(self)
        finish_at_exit(self)
        return path

    def forget(self, key: str) -> None:
        """Do not record any more what is written there."""
        self._keys.pop(key, None)
        if not self._keys:
            _waiting.discard(self)

    def record(self, path: str | Path) -> Artefact:
        """Write into the ledger what was written to a path.

        Raises:
            UnknownArtefact: The path is of no kind, or there is nothing, or it leads out of the root.
            UnsafeName: It lies where the store keeps its own.
        """
        root = self.folder.root
        location = Path(os.path.realpath(root / path))
        key = location.relative_to(root).as_posix() if location.is_relative_to(root) else ""
        found = self._layout.parse(key)
        if found is None or not location.is_file():
            message = f"{location} is no artefact of the store in {root}. Write to what store.path(kind, ...) returns."
            raise UnknownArtefact(message)
        self.forget(check_key(key))
        return self._catalogue.enter("written", self._layout.template(found[0]), key, digest(location))

    def close(self) -> None:
        """Record what was written; say of which paths nothing was."""
        self._begin_anew_in_child()
        while self._keys:
            key, _ = self._keys.popitem()
            path = self.folder.root / key
            if path.is_file() and path.stat().st_size:
                self.record(path)
            else:
                logger.warning("%s was handed out, and never written to.", path)
        _waiting.discard(self)

    def at_exit(self, start: float) -> None:  # noqa: ARG002 - it does not take long
        """Do what nobody has closed this for, when the interpreter ends."""
        self.close()

    def _begin_anew_in_child(self) -> None:
        """Leave what a parent was given to the parent, which may still be writing there."""
        if self._process != os.getpid():
            self._process, self._keys = os.getpid(), {}
