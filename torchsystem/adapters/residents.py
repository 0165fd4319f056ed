"""Residents: listeners that write files, where they are told to or where their experiment lives."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from torchsystem.errors import SharedFolder, TwoHomes, UnknownHome
from torchsystem.services import Consumer, Registered, handler
from torchsystem.storage.places import is_address
from torchsystem.storage.segments import check_segment

if TYPE_CHECKING:
    from torchsystem.depends import Provider
    from torchsystem.services.options import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where the listeners of an experiment write.

    Attributes:
        storage: The local folder that holds all projects.
        project: The project.
        experiment: The name of the experiment in it.
        run: The name of the run of that.
    """

    storage: Path
    project: str
    experiment: str
    run: str


class Resident(Consumer):
    """A listener that writes files: below the path that it is given, or where its experiment lives.

    Without a path it writes in `{storage}/{project}/{experiment}/{run}/{kind}`. Whichever of the four it is not told,
    it has from the `Experiment` that it is registered with, one by one.

    Args:
        name: What to call it in messages, and what its state is saved as.
        path: The folder to write in. It is used as it is.
        project: The project, if not that of the experiment.
        experiment: The name of the experiment, if not that of the experiment that it is registered with.
        run: The name of the run, if not that of the experiment.
        storage: The local folder that holds all projects, if not that of the experiment.
        provider: Where its handlers' dependencies are bound; one of its own by default.
        clock: What tells seconds to triggers where events have no progress.

    Raises:
        UnsafeName: A name cannot be that of one folder on every system.
        UnknownHome: A place to write in is not local.

    Examples:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from torchsystem.adapters.residents import Home, Resident
        >>> class Notes(Resident):
        ...     kind = "notes"
        >>> with TemporaryDirectory() as storage:
        ...     notes = Notes("notes", run="second")
        ...     notes.inherit(Home(storage=Path(storage), project="digits", experiment="baseline", run="first"))
        ...     notes.folder.relative_to(storage).as_posix()
        'digits/baseline/second/notes'
    """

    kind: ClassVar[str]
    is_alone: ClassVar[bool] = False  # whether another of its kind, in the same folder, would write into its files

    def __init__(  # noqa: PLR0913 - where to write is said in four words, each of which may be left to the experiment
        self,
        name: str | None = None,
        *,
        path: str | Path | None = None,
        project: str | None = None,
        experiment: str | None = None,
        run: str | None = None,
        storage: str | Path | None = None,
        provider: Provider | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(name, provider=provider, clock=clock)
        for what, value in {"project": project, "experiment": experiment, "run": run}.items():
            if value is not None:
                check_segment(what, value)
        self._path = None if path is None else local_folder("path", path)
        self._storage = None if storage is None else local_folder("storage", storage)
        self._project = project
        self._experiment = experiment
        self._run = run
        self._home: Home | None = None

    @handler
    def have_room(self, event: Registered) -> None:
        """See to it that nobody else there writes into its files.

        Raises:
            SharedFolder: Another listener of its kind does.
        """
        demand_room((), event.producer.listeners())

    def inherit(self, home: Home) -> None:
        """Have what was not told from an experiment: it is called when the listener is registered there.

        Raises:
            TwoHomes: It has it from another experiment already.
        """
        if self._home is not None and self._home != home:
            message = (
                f"{self!r} writes for {self._home}, and cannot also write for {home}. Make one listener for each, or "
                f"plug this one into the producer itself."
            )
            raise TwoHomes(message)
        self._home = home

    @property
    def project(self) -> str:
        """Return the project that it writes for."""
        return self._tell("project", self._project)

    @property
    def experiment(self) -> str:
        """Return the name of the experiment that it writes for."""
        return self._tell("experiment", self._experiment)

    @property
    def run(self) -> str:
        """Return the name of the run that it writes for."""
        return self._tell("run", self._run)

    @property
    def storage(self) -> Path:
        """Return the local folder that holds all projects."""
        if self._storage is not None:
            return self._storage
        return self._at_home("storage").storage

    @property
    def folder(self) -> Path:
        """Return the folder to write in, which is made when it is asked for.

        Raises:
            UnknownHome: Nobody said where to write.
        """
        folder = self.place()
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def place(self) -> Path:
        """Return the folder to write in, without making it.

        Raises:
            UnknownHome: Nobody said where to write.
        """
        if self._path is not None:
            return self._path
        return self.storage / self.project / self.experiment / self.run / self.kind

    def _tell(self, what: str, told: str | None) -> str:
        if told is not None:
            return told
        inherited: str = getattr(self._at_home(what), what)
        return inherited

    def _at_home(self, what: str) -> Home:
        if self._home is None:
            message = (
                f"{self!r} does not know its {what}, so it cannot tell where to write. Write "
                f"{type(self).__name__}(path=...), or register it with an experiment: "
                f"Experiment(...).register(producer, listener)."
            )
            raise UnknownHome(message)
        return self._home


def local_folder(what: str, path: str | Path) -> Path:
    """Return a place as a path; an address of elsewhere would become an oddly named folder here.

    Args:
        what: What to call it in the message.
        path: The place.

    Raises:
        UnknownHome: It is an address.
    """
    if (isinstance(path, str) and "://" in path) or is_address(Path(path)):
        message = f"{what}={path!r} is no local folder, where listeners write. Mirror a local one to a store there."
        raise UnknownHome(message)
    return Path(path)


def demand_room(present: Iterable[object], new: Iterable[object]) -> None:
    """Refuse listeners that would write into the files of others.

    Args:
        present: Who is there.
        new: Who comes.

    Raises:
        SharedFolder: Two of one kind, of whom each has to be alone, have one folder.
    """
    taken: dict[tuple[str, str], Resident] = {}
    for listener in [*present, *new]:
        if isinstance(listener, Resident) and listener.is_alone and (place := _place(listener)) is not None:
            other = taken.setdefault((listener.kind, os.path.realpath(place)), listener)
            if other is not listener:
                message = (
                    f"{listener!r} would write into the files of {other!r}, in {place}. Register one of "
                    f"them, or give the other a folder of its own: {type(listener).__name__}(path=...)."
                )
                raise SharedFolder(message)


def _place(listener: Resident) -> Path | None:
    """Return the folder that a listener writes in; None if it has none, or none yet."""
    try:
        return listener.place()
    except UnknownHome:
        return None
