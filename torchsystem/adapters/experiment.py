"""Experiments: a folder for each run, which one process has, and where its listeners live."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from torchsystem.adapters.keeper import Keeper
from torchsystem.adapters.residents import Home, Resident, demand_room, local_folder
from torchsystem.adapters.sharing import lend
from torchsystem.errors import ExperimentClosed, FolderInUse, ForeignFolder, InvalidOption
from torchsystem.services import Consumer, Mailbox, Producer
from torchsystem.services.modes import Where, is_here
from torchsystem.storage.layout import Layout
from torchsystem.storage.lease import Lease
from torchsystem.storage.mirror import Mirror
from torchsystem.storage.news import News
from torchsystem.storage.places import Folder
from torchsystem.storage.segments import check_segment
from torchsystem.storage.store import Store

if TYPE_CHECKING:
    from torchsystem.services.modes import DeliverySpec

logger = logging.getLogger(__name__)

RECORD = "experiment.json"


class Experiment:
    """A run of an experiment: a folder by its identity, claimed by this process, where listeners write.

    The same project, name and run is the same folder whenever it is opened, so that a run goes on where it was. While
    one process has it, every other is refused. Of several ranks the leader, rank 0, has it for all.

    Args:
        project: The project.
        name: The name of the experiment in it.
        run: The name of the run of that.
        storage: The local folder that holds all projects.
        layout: Where artefacts of each kind lie in it, for `store`.
        mirror: A store where the folder is kept up to date, in the background.
        on_news: What is told when that store is away, is back, or has not all, as in `Mirror`.
        lease: What claims a folder.
        clock: What tells the time, in seconds since 1970.

    Attributes:
        home: What listeners inherit: the storage, the project, the experiment and the run.
        folder: The folder of this run.
        store: The artefacts in the storage, bound to this project, experiment and run.
        mirror: What keeps the folder up to date elsewhere; None if nothing does.
        mailbox: What its listeners share, unless they were given another: some leave word there, and others read it.

    Raises:
        FolderInUse: Another process has it, or another experiment of this one.
        ForeignFolder: The folder is that of another experiment.
        InvalidOption: The mirror is no store.
        OutsideRoot: A symbolic link leads out of the storage.
        UnsafeName: A name cannot be that of one folder on every system.
        UnknownHome: The storage is not local.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from torchsystem.adapters.experiment import Experiment
        >>> with TemporaryDirectory() as storage:
        ...     with Experiment("digits", "baseline", "first", storage=storage) as experiment:
        ...         print(experiment.folder.relative_to(storage).as_posix())
        digits/baseline/first
    """

    def __init__(  # noqa: PLR0913 - each has a default but what it is
        self,
        project: str,
        name: str,
        run: str,
        *,
        storage: str | Path = "storage",
        layout: Layout | None = None,
        mirror: Store | None = None,
        on_news: Callable[[News], object] | None = None,
        lease: Callable[[Path], Lease] = Lease,
        clock: Callable[[], float] = time.time,
    ) -> None:
        for what, value in {"project": project, "name": name, "run": run}.items():
            check_segment(what, value)
        if mirror is not None and not isinstance(mirror, Store):
            message = f"Experiment(mirror={mirror!r}): write the store where to: mirror=Store('s3://bucket/runs')."
            raise InvalidOption(message)
        root = Path(os.path.abspath(local_folder("storage", storage)))  # noqa: PTH100 - links stay what they are
        self.home = Home(storage=root, project=project, experiment=name, run=run)
        self.folder = root / project / name / run
        values: dict[str, str | int] = {"project": project, "experiment": name, "run": run}
        self.store = Store(root, layout=layout, values=values, by=f"{project}/{name}/{run}", clock=clock)
        Folder(root).path(f"{project}/{name}/{run}/{RECORD}")  # makes its folder, but not outside of the storage
        self._lease: Lease | None = lease(self.folder) if is_here("leader") else None
        self.mirror: Mirror | None = None
        self.mailbox = Mailbox()
        self._keeper = Keeper(self.check, self.mailbox)
        self._plugged: list[tuple[Producer, Consumer]] = []
        self._to_flush: list[Producer] = []
        self._is_closed = False
        if self._lease is not None:
            self._claim(self._lease, clock)
        if self._lease is not None and mirror is not None:
            try:
                self.mirror = Mirror(self.folder, mirror, into=f"{project}/{name}/{run}", on_news=on_news)
            except BaseException:
                self._lease.release()
                raise

    def __repr__(self) -> str:
        return f"Experiment({self.home.project!r}, {self.home.experiment!r}, {self.home.run!r})"

    def register(
        self,
        producer: Producer,
        *listeners: Consumer,
        delivery: DeliverySpec | None = None,
        where: Where | None = None,
    ) -> None:
        """Plug listeners into a producer; those that write, and were not told where, write here.

        Those that need a mailbox, and were given none, share that of the experiment. It plugs in a listener of its own,
        too, which ends the run by name at the end of an epoch if another process has taken the folder over. When the
        experiment is closed, all of them are taken out: the folder is not theirs any more.

        Args:
            producer: Where they hear.
            listeners: Whom to plug in, in this order.
            delivery: How they are delivered to, as in `Producer.register`.
            where: In which process of several they hear. If it is not said, those that write do so in the leader's, as
                they have one folder; and all others everywhere.

        Raises:
            ExperimentClosed: It is closed.
            InvalidOption: What comes first is no producer.
            SharedFolder: Two of them would write into the same files.
            TwoHomes: One of them writes for another experiment already.

        and whatever `Producer.register` raises. None of them is registered then.
        """
        self._demand_open("register")
        if not isinstance(producer, Producer):
            message = (
                f"Experiment.register({producer!r}, ...): the producer comes first, then its listeners. Write "
                f"experiment.register(training.producer, listener)."
            )
            raise InvalidOption(message)
        for listener in listeners:
            if isinstance(listener, Resident):
                listener.inherit(self.home)
            lend(listener, self.mailbox)
        demand_room([listener for _, listener in self._plugged], listeners)
        present = {id(listener) for listener in producer.listeners()}
        try:
            for listener in listeners:
                usual: Where = "leader" if isinstance(listener, Resident) else "everywhere"
                producer.register(listener, delivery=delivery, where=usual if where is None else where)
            producer.register(self._keeper)
        except BaseException:
            producer.unregister(*_others(producer, present))
            raise
        if delivery is not None and delivery != "inline":
            self._to_flush.append(producer)
        self._plugged += [(producer, listener) for listener in _others(producer, present)]

    def check(self) -> None:
        """Make sure that this process still has the folder.

        Raises:
            ExperimentClosed: It has let go of it.
            LeaseLost: It gave no sign of life for so long that another has taken it over.
        """
        self._demand_open("check")
        if self._lease is not None:
            self._lease.check()

    def close(self) -> None:
        """Let its listeners finish, take them out, mirror what is left, and let others have the folder."""
        self._is_closed = True
        try:
            while self._to_flush:
                self._to_flush.pop().flush()
        finally:
            self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _let_go(self) -> None:
        while self._plugged:
            producer, listener = self._plugged.pop()
            if any(listener is one for one in producer.listeners()):
                producer.unregister(listener)
        try:
            if self.mirror is not None:
                self.mirror.close()
            self.store.close()
        finally:
            if self._lease is not None:
                self._lease.release()

    def _demand_open(self, asked: str) -> None:
        if self._is_closed:
            message = (
                f"{self!r} is closed, and its folder may be another's: it has no {asked}() any more. Do it within "
                f"`with Experiment(...) as experiment:`, or open the experiment anew."
            )
            raise ExperimentClosed(message)

    def _claim(self, lease: Lease, clock: Callable[[], float]) -> None:
        if not lease.take():
            message = f"{self.folder} is open in this process already. Use that {self!r}, or close it first."
            raise FolderInUse(message)
        try:
            self._write(clock)
        except BaseException:
            lease.release()
            raise

    def _write(self, clock: Callable[[], float]) -> None:
        """Write down whose folder this is, and who has it; nobody sees half of that."""
        identity = {"project": self.home.project, "experiment": self.home.experiment, "run": self.home.run}
        now = datetime.fromtimestamp(clock(), UTC).isoformat()
        known = self._read()
        found = {name: known.get(name) for name in identity}
        if known and found != identity:
            message = f"{self.folder} is the folder of {found}, and not of {identity}. Give this run another name."
            raise ForeignFolder(message)
        by = {"host": platform.node(), "process": os.getpid()}
        record = {"format": 1, **identity, "created": known.get("created", now), "opened": now, "by": by}
        key = (self.folder / RECORD).relative_to(self.home.storage).as_posix()
        self.store.put(key, json.dumps(record, indent=2).encode())

    def _read(self) -> dict[str, object]:
        try:
            return {**json.loads((self.folder / RECORD).read_bytes())}
        except FileNotFoundError:
            return {}
        except (TypeError, ValueError) as error:
            logger.warning("%s cannot be read, and is written anew: %s", self.folder / RECORD, error)
            return {}


def _others(producer: Producer, present: set[int]) -> list[Consumer]:
    """Return the listeners that came since."""
    return [listener for listener in producer.listeners() if id(listener) not in present]
