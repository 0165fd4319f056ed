"""A snapshot of what a run came from: hyper-parameters, source and environment, written when it begins."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakSet

import torch

from torchsystem.adapters import provenance
from torchsystem.adapters.parts import describe
from torchsystem.adapters.redaction import redacted
from torchsystem.adapters.residents import Resident
from torchsystem.domain import Aggregate
from torchsystem.errors import InvalidOption
from torchsystem.services import handler
from torchsystem.training.events import ProcessStarted


class Snapshot(Resident):
    """Write down what a run came from, once per process: what is trained, by which code, where, and how it was called.

    Each process that works on a run writes a folder of its own, numbered from 1, so that what a run began with stays
    when it goes on:

    - `snapshot.json`: the metadata of the aggregate's parts and the hyper-parameters that are given, the commit, the
      versions of Python, torch and all libraries, the platform, the command line, the allowed environment variables;
    - `source.py`: the file in which the class of the aggregate is written;
    - `uncommitted.patch`: what tracked files have that the commit has not.

    Of the environment nothing is written but the variables that are named. What looks like a secret, among those, among
    settings and in the command line, is hidden.

    Args:
        path: The folder to write in. Without one it is that of the experiment, as for every `Resident`.
        hyperparameters: What to keep beside what the parts of the aggregate say of themselves; ready for JSON.
        environment: The names of variables to keep beside those that are known to matter and to be harmless.
        patch: Whether to keep what is not committed; leave it out where tracked files hold secrets.
        name: What to call it, and its state.
        project: As for every `Resident`.
        experiment: As for every `Resident`.
        run: As for every `Resident`.
        storage: As for every `Resident`.

    Raises:
        InvalidOption: An option has no meaning.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from torch import nn, optim
        >>> from torchsystem.adapters.snapshot import Snapshot
        >>> from torchsystem.progress import Progress
        >>> from torchsystem.training import Supervised
        >>> from torchsystem.training.events import ProcessStarted
        >>> network = nn.Linear(2, 1)
        >>> model = Supervised(network, nn.MSELoss(), optim.SGD(network.parameters(), lr=0.1))
        >>> with TemporaryDirectory() as folder:
        ...     snapshot = Snapshot(folder, hyperparameters={"batch size": 32}, patch=False)
        ...     snapshot.consume(ProcessStarted(model, Progress()))
        ...     kept = json.loads(Path(folder, "1", "snapshot.json").read_text())
        >>> kept["parts"]["optimizer"]["arguments"]["lr"], kept["hyperparameters"]
        (0.1, {'batch size': 32})
    """

    kind: ClassVar[str] = "snapshots"

    def __init__(  # noqa: PLR0913 - each says one thing to keep, or where
        self,
        path: str | Path | None = None,
        *,
        hyperparameters: Mapping[str, Any] | None = None,
        environment: Iterable[str] = (),
        patch: bool = True,
        name: str = "snapshot",
        project: str | None = None,
        experiment: str | None = None,
        run: str | None = None,
        storage: str | Path | None = None,
    ) -> None:
        super().__init__(name, path=path, project=project, experiment=experiment, run=run, storage=storage)
        self.hyperparameters = {} if hyperparameters is None else dict(hyperparameters)
        self.environment = (*provenance.ENVIRONMENT, *_names(environment))
        self.patch = patch
        _check(self.hyperparameters)
        self._taken: WeakSet[Aggregate] = WeakSet()

    @handler
    def take(self, event: ProcessStarted) -> None:
        """Write the snapshot of this process, unless it has one of this aggregate."""
        aggregate = event.aggregate
        if aggregate in self._taken:
            return
        source = provenance.source_of(type(aggregate))
        home = Path.cwd() if source is None else source.parent
        folder = _claimed(self.folder)
        if source is not None:
            (folder / "source.py").write_bytes(source.read_bytes())
        if self.patch and (text := provenance.difference(home)):
            (folder / "uncommitted.patch").write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
        facts = {
            **self._facts(event),
            "source": None if source is None else source.name,
            "git": provenance.revision(home),
        }
        whole = folder / "snapshot.json.new"
        whole.write_text(json.dumps(facts, indent=2, default=str) + "\n", encoding="utf-8")
        whole.rename(folder / "snapshot.json")
        self._taken.add(aggregate)

    def _facts(self, event: ProcessStarted) -> dict[str, Any]:
        progress = event.progress
        return {
            "taken": datetime.now(UTC).isoformat(timespec="seconds"),
            "progress": {"epoch": progress.epoch, "batch": progress.batch, "step": progress.step},
            "parts": redacted(describe(event.aggregate)),
            "hyperparameters": redacted(self.hyperparameters),
            "seed": torch.initial_seed(),
            "command": provenance.arguments(),
            "environment": redacted(provenance.environment(self.environment)),
            "machine": provenance.machine(),
            "libraries": provenance.libraries(),
        }


def _claimed(root: Path) -> Path:
    """Make the folder of the next number, which no other process has then."""
    number = max((int(each.name) for each in root.iterdir() if each.name.isdecimal()), default=0)
    while True:
        number += 1
        folder = root / str(number)
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder


def _names(environment: Iterable[str]) -> tuple[str, ...]:
    names = (environment,) if isinstance(environment, str) else tuple(environment)
    if isinstance(environment, str) or any(not isinstance(name, str) or not name or "*" in name for name in names):
        message = f"Snapshot(environment={environment!r}): write the whole names of variables, as in ['DATA_VERSION']."
        raise InvalidOption(message)
    return names


def _check(hyperparameters: Mapping[str, Any]) -> None:
    try:
        json.dumps(hyperparameters)
    except (TypeError, ValueError) as error:
        message = f"Snapshot(hyperparameters=...): they cannot be written as JSON, for {error}. Write plain values."
        raise InvalidOption(message) from error
