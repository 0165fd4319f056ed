"""Stores: artefacts by kind, numbered without gaps, found again by what they are, in a folder or behind an address."""

from __future__ import annotations

import copy
import hashlib
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from torchsystem.errors import DamagedArtefact, InvalidStore, NotLocal, UnfilledTemplate, UnknownArtefact
from torchsystem.storage.artefacts import Artefact, check_content, check_digest, digest, verify
from torchsystem.storage.catalogue import Catalogue, within
from torchsystem.storage.elsewhere import place_of
from torchsystem.storage.handed import Handed
from torchsystem.storage.layout import Layout
from torchsystem.storage.ledger import Action, Entry, Ledger
from torchsystem.storage.places import Folder, Source
from torchsystem.storage.segments import OURS, check_key, check_segment
from torchsystem.storage.templates import NUMBER, Template, Values

ANY = "*"
IDENTITY = ("project", "experiment", "run")


class Store:
    """Artefacts by kind, in a folder or behind an address.

    Args:
        root: The folder, or an address that fsspec understands: `"s3://bucket/folder"`.
        layout: Where artefacts of each kind lie.
        values: Values that templates are filled with unless others are given: the project, the experiment, the run.
        by: Who writes, for the ledger.
        options: What the file system of an address takes. They are never shown.
        exclusive: Whether to trust a file system that is not known to create a file for one of several alone.
        clock: What tells the time, in seconds since 1970.

    Raises:
        InvalidStore: An option has no meaning.
        MissingExtra: The package that reaches such an address is not installed.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from torchsystem.storage import Layout, Store
        >>> layout = Layout(predictions="{project}/{run}/predictions/{split}_{number}.json")
        >>> with TemporaryDirectory() as root:
        ...     store = Store(root, layout=layout).bind(project="digits", run="first")
        ...     made = [store.add("predictions", b"[]", split="test") for _ in range(2)]
        ...     print(made[1].key, [found.number for found in store.find("predictions")])
        digits/first/predictions/test_2.json [1, 2]
    """

    def __init__(  # noqa: PLR0913 - each has a default
        self,
        root: str | Path,
        *,
        layout: Layout | None = None,
        values: Values | None = None,
        by: str | None = None,
        options: Mapping[str, Any] | None = None,
        exclusive: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if layout is not None and not isinstance(layout, Layout):
            message = f"Store({root!r}, layout={layout!r}): this is no layout. Write Layout(kind='{{project}}/...')."
            raise InvalidStore(message)
        self.layout = Layout() if layout is None else layout
        self.values = dict(values or {})
        self._place = place_of(root, options or {}, exclusive=exclusive)
        self._ledger = Ledger(self._place, by=by, clock=clock)
        self._catalogue = Catalogue(self._place, self.layout, self._ledger)
        place = self._place
        self._handed = Handed(place, self.layout, self._catalogue) if isinstance(place, Folder) else None

    def __repr__(self) -> str:
        bound = "".join(f", {name}={value!r}" for name, value in self.values.items())
        return f"Store({self._place.name!r}{bound})"

    @property
    def is_local(self) -> bool:
        """Tell whether the store is a folder."""
        return self._handed is not None

    @property
    def root(self) -> Path:
        """Return the folder.

        Raises:
            NotLocal: The store is not a folder.
        """
        return self._local("root").folder.root

    def bind(self, **values: str | int) -> Store:
        """Return the same store, with more values that templates are filled with."""
        bound = copy.copy(self)
        bound.values = {**self.values, **values}
        return bound

    def path(self, kind: str, /, **values: str | int) -> Path:
        """Return a path to write to, in a folder that is made; a number is drawn that nobody else gets.

        An empty file holds the number until it is written to. What was written is recorded by `record`, or when the
        store is closed, at the latest when the interpreter ends.

        Raises:
            NotLocal: The store is not a folder.
            UnknownKind: The kind is not declared.
            UnfilledTemplate: A value is missing, or is of no field.
            UnsafeName: A value cannot be part of a path.
            AmbiguousPath: Other values, or another kind, would make the same path.
            OutsideRoot: A symbolic link leads out of the root.
        """
        handed = self._local("path")
        template, values = self._filled(kind, values)
        draws = template.numbered and NUMBER not in values
        key = self._catalogue.draw(template, values, b"") if draws else self.layout.format(template, values)
        return handed.out(key)

    def record(self, path: str | Path) -> Artefact:
        """Write into the ledger what was written to a path.

        Args:
            path: The path, absolute or in the root. Links are followed, but none out of the root.

        Raises:
            NotLocal: The store is not a folder.
            UnknownArtefact: The path is of no kind, or there is nothing, or it leads out of the root.
            UnsafeName: It lies where the store keeps its own.
        """
        return self._local("record").record(path)

    def add(self, kind: str, source: Source, /, **values: str | int) -> Artefact:
        """Put data, or a local file, into the store: whole or not at all, under a number that nobody else gets.

        What has no number is replaced.

        Args:
            kind: The kind.
            source: The data, or the path of the file.
            values: The values of its fields that are not bound.

        Raises:
            NotExclusive: Nothing can be numbered there.

        and whatever `path` raises of kinds and values.
        """
        return self._put("written", kind, source, values)

    def find(self, kind: str, /, *, sha256: str | None = None, **values: str | int) -> list[Artefact]:
        """Find artefacts of a kind, in the order of their paths and numbers.

        Args:
            kind: The kind.
            sha256: The digest of their content, or the beginning of it.
            values: What they were made from, over what is bound; `"*"` stands for anything.

        Raises:
            InvalidStore: That is no digest, nor the beginning of one.
            UnknownKind: The kind is not declared.
            UnfilledTemplate: A value is of no field.
        """
        template, known = self._filled(kind, values)
        return self._catalogue.find(template, known, None if sha256 is None else check_digest(sha256))

    def last(self, kind: str, /, *, sha256: str | None = None, **values: str | int) -> Artefact:
        """Find the artefact of a kind that has the highest number.

        Raises:
            UnknownArtefact: There is none.
        """
        found = self.find(kind, sha256=sha256, **values)
        if not found:
            _, known = self._filled(kind, values)
            message = f"{self!r} has no {kind!r} with {known}. See what others have: store.find({kind!r}, run='*')."
            raise UnknownArtefact(message)
        return max(found, key=lambda one: one.number or 0)

    def read(self, artefact: Artefact, /) -> bytes:
        """Return what is in an artefact, which must be what was recorded.

        Raises:
            DamagedArtefact: It is not.
            FileNotFoundError: It is not there any more.
        """
        data = self._place.read(artefact.key)
        verify(artefact, hashlib.sha256(data).hexdigest())
        return data

    def fetch(self, artefact: Artefact, to: str | Path, /) -> Path:
        """Copy an artefact to a local path; it must be what was recorded.

        Raises:
            DamagedArtefact: It is not. Nothing is left at the path then.
            FileNotFoundError: It is not there any more.
        """
        path = Path(to)
        self._place.fetch(artefact.key, path)
        try:
            verify(artefact, digest(path)[1])
        except DamagedArtefact:
            path.unlink()
            raise
        return path

    def reuse(self, artefact: Artefact, /, **values: str | int) -> Artefact:
        """Have an artefact of another project or run here too: a copy, whose origin the ledger tells.

        Args:
            artefact: What `find` or `last` has found.
            values: Values of the copy, over what is bound, over those of the artefact.

        Returns:
            The copy; or what is here already with the same content.

        Raises:
            DamagedArtefact: Its content is not what was recorded.
        """
        own = {name: value for name, value in artefact.values.items() if name != NUMBER}
        _, bound = self._filled(artefact.kind, values)
        wanted = {**own, **bound}
        with self.temporary() as path:
            self.fetch(artefact, path)
            same = self.find(artefact.kind, sha256=digest(path)[1], **wanted)
            if same:
                return same[-1]
            return self._put("reused", artefact.kind, path, wanted, artefact.key)

    def clean(self, *kinds: str, **values: str | int) -> list[Artefact]:
        """Remove the artefacts of some kinds: of the run that is bound, or of what is said.

        Returns:
            What was removed.

        Raises:
            UnfilledTemplate: It is not said of which project, experiment or run; `"*"` says: of all.
        """
        removed: list[Artefact] = []
        for kind in kinds:
            template, known = self._filled(kind, values)
            vague = [name for name in IDENTITY if name in template.fields and name not in {**self.values, **values}]
            if vague:
                message = f"Clean {kind!r} of which {' and '.join(vague)}? Bind it, or write {vague[0]}='*' for all."
                raise UnfilledTemplate(message)
            removed += self._catalogue.listed(template, known)
        for artefact in removed:
            self._catalogue.remove(artefact)
            if self._handed is not None:
                self._handed.forget(artefact.key)
        return removed

    @contextmanager
    def cleaning(self, *kinds: str, **values: str | int) -> Generator[Store]:
        """Clean some kinds up when the block has succeeded. After a failure everything stays, to be looked at."""
        for kind in kinds:
            self._filled(kind, values)
        yield self
        self.clean(*kinds, **values)

    @contextmanager
    def temporary(self, suffix: str = "") -> Generator[Path]:
        """Hand out a local path to write to, which is gone after the block, however that ends.

        Args:
            suffix: How its name ends.

        Raises:
            UnsafeName: No name of a file ends so.
        """
        name = f"temporary{check_segment('suffix', f'_{suffix}')[1:]}"
        folder = self._place.temporary()
        try:
            yield folder / name
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def create(self, key: str, data: bytes, /) -> bool:
        """Write a file that is not there yet, whole, and tell whether it was not.

        Of several who try, one does: it may serve as a lock.

        Raises:
            NotExclusive: The file system cannot do that.
            InvalidContent: It is neither data nor the path of a file.
            UnsafeName: The key is no relative path.
            OutsideRoot: A symbolic link leads out of the root.
        """
        return self._place.create(check_key(key), check_content(data))

    def put(self, key: str, source: Source, /) -> None:
        """Write a file of no kind, or replace it.

        Raises:
            InvalidContent: It is neither data nor the path of a file.
            UnsafeName: The key is no relative path.
            OutsideRoot: A symbolic link leads out of the root.
        """
        self._place.write(check_key(key), check_content(source))

    def get(self, key: str, /) -> bytes:
        """Return what is in a file.

        Raises:
            FileNotFoundError: There is none.
            UnsafeName: The key is no relative path.
        """
        return self._place.read(check_key(key))

    def keys(self, folder: str = "", /) -> list[str]:
        """List the files below a folder, of whatever kind."""
        return list(self.sizes(folder))

    def sizes(self, folder: str = "", /) -> dict[str, int]:
        """Return the size of each file below a folder, of whatever kind."""
        found = self._place.keys(check_key(folder) if folder else "")
        return {key: size for key, size in found if not key.startswith(f"{OURS}/")}

    def ledger(self) -> list[Entry]:
        """Return what was written, by whom, in the order of time."""
        return self._ledger.entries()

    def close(self) -> None:
        """Record what was written to the paths that were handed out; say of which of them nothing was."""
        if self._handed is not None:
            self._handed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _local(self, asked: str) -> Handed:
        if self._handed is not None:
            return self._handed
        message = (
            f"{self!r} is not a folder, so it has no Store.{asked}. Write store.add(kind, data), store.read(artefact), "
            f"or store.fetch(artefact, path)."
        )
        raise NotLocal(message)

    def _filled(self, kind: str, values: Values) -> tuple[Template, dict[str, str | int]]:
        """Return the template of a kind, and what is known of its values."""
        template = self.layout.template(kind)
        known = {**within(self.values, template), **values}
        template.check({name: 0 if value == ANY else value for name, value in known.items()})
        return template, {name: value for name, value in known.items() if value != ANY}

    def _put(self, action: Action, kind: str, source: Source, given: Values, origin: str | None = None) -> Artefact:
        content = digest(source)
        template, values = self._filled(kind, given)
        if NUMBER in values:
            message = (
                f"The number of {kind!r} is drawn, so that nothing is overwritten. Leave out number={values[NUMBER]!r}."
            )
            raise UnfilledTemplate(message)
        if template.numbered:
            key = self._catalogue.draw(template, values, source)
        else:
            key = self.layout.format(template, values)
            self._place.write(key, source)
        return self._catalogue.enter(action, template, key, content, origin)
