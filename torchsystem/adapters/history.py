"""A history: every metric of a run, as records."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchsystem.adapters.files import replacing
from torchsystem.adapters.records import FIELDS, Record, checked, line, number, read
from torchsystem.adapters.requirements import require
from torchsystem.adapters.residents import Resident
from torchsystem.errors import InvalidState
from torchsystem.services import handler
from torchsystem.training.events import (
    EpochEnded,
    Interrupted,
    ProcessStarted,
    Trained,
    TrainingEnded,
    TrainingFailed,
    Validated,
)
from torchsystem.training.run import under_way

if TYPE_CHECKING:
    from pandas import DataFrame  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]

    from torchsystem.depends import Provider
    from torchsystem.progress import Progress

logger = logging.getLogger(__name__)

FILE = "history.jsonl"
FIRST = -100  # before those who read the history of the same event


class History(Resident):
    """Keep every metric of a run as a record, and write the records as JSON lines if there is where.

    They are its state: a run that goes on from a checkpoint has the records that the checkpoint had, and no others, so
    that there are neither gaps nor doubles. Its file is made to say the same. Where no state is taken up, the records
    of its file serve instead, as far as the run has come. Records that are dropped on the way are counted aloud.

    A disk that cannot be written to when the run begins is refused. One that is full or away later fails no run: it is
    said, and all that is missing is written as soon as that is possible.

    Args:
        path: The folder in which to write `history.jsonl`; without it the experiment's, and without one the records
            are kept in memory alone.
        project: The project, if not that of the experiment.
        experiment: The name of the experiment, if not that of the experiment that it is registered with.
        run: The name of the run, if not that of the experiment.
        storage: The local folder that holds all projects, if not that of the experiment.
        name: What its state is saved as.
        provider: Where its handlers' dependencies are bound; one of its own by default.
        now: What tells the time, in seconds since 1970.

    Attributes:
        records: The records, in the order in which they came.

    Examples:
        >>> from torchsystem.adapters.history import History
        >>> from torchsystem.domain import Aggregate
        >>> from torchsystem.progress import Progress
        >>> from torchsystem.training.events import Validated
        >>> history = History(now=lambda: 0.0)
        >>> history.consume(Validated(Aggregate(), Progress(epoch=2, step=300), "validation", {"loss": 0.5}))
        >>> history.records
        [{'epoch': 3, 'step': 300, 'phase': 'validation', 'metric': 'loss', 'value': 0.5, 'time': 0.0}]
        >>> history.series("loss")
        {'validation': ([3], [0.5])}
    """

    kind = "history"
    is_alone = True

    def __init__(  # noqa: PLR0913 - where to write is said in four words, each of which may be left to the experiment
        self,
        path: str | Path | None = None,
        *,
        project: str | None = None,
        experiment: str | None = None,
        run: str | None = None,
        storage: str | Path | None = None,
        name: str | None = "history",
        provider: Provider | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            name, path=path, project=project, experiment=experiment, run=run, storage=storage, provider=provider
        )
        self._has_place = any(told is not None for told in (path, project, experiment, run, storage))
        self._now = now
        self.records: list[Record] = []
        self._written = 0  # how many of them the file holds
        self._is_open = False  # whether the records are known to be those of the run
        self._is_loaded = False  # whether they are those of a state, which knows better than a file

    @property
    def file(self) -> Path | None:
        """Return the file of JSON lines; None while the records are kept in memory alone."""
        return self.folder / FILE if self._has_place or self._home is not None else None

    @handler(order=FIRST)
    def begin(self, event: ProcessStarted) -> None:
        """Have the records that belong to what was done of the run, and no others."""
        self._open(event.progress)

    @handler(order=FIRST)
    def record(self, event: Trained | Validated) -> None:
        """Take down the metrics of a split. Those that are told again, at the same step, replace the former ones.

        A split that is gone through by itself belongs to the epoch that was finished last, and replaces nothing.
        """
        if not self._is_open:
            self._open(event.progress)
        run = under_way(event.aggregate)
        is_alone = run is not None and not run.is_whole
        phase = event.split if isinstance(event, Validated) else "train"
        epoch, step, moment = event.progress.epoch + (not is_alone), event.progress.step, self._now()
        new: list[Record] = [
            {
                "epoch": epoch,
                "step": step,
                "phase": phase,
                "metric": metric,
                "value": number(value, metric),
                "time": moment,
            }
            for metric, value in event.metrics.items()
        ]
        told, count = {_key(record) for record in new}, len(self.records)
        while count > 0 and self.records[count - 1]["step"] == step:  # those before are of earlier steps
            count -= 1
        if not is_alone and any(_key(record) in told for record in self.records[count:]):
            self.records[count:] = [record for record in self.records[count:] if _key(record) not in told]
            self._written = 0
        self.records += new
        self._write()

    @handler(order=FIRST)
    def catch_up(self, event: EpochEnded | TrainingEnded | TrainingFailed | Interrupted) -> None:  # noqa: ARG002
        """Write what could not be written when it came."""
        if self._is_open and self._written < len(self.records):
            self._write()

    def series(self, metric: str) -> dict[str, tuple[list[int], list[float]]]:
        """Return a metric by phase: the epochs, and its values in them."""
        found: dict[str, tuple[list[int], list[float]]] = {}
        for record in self.records:
            if record["metric"] == metric:
                epochs, values = found.setdefault(record["phase"], ([], []))
                epochs.append(record["epoch"])
                values.append(record["value"])
        return found

    def csv(self, path: str | Path) -> Path:
        """Write the records as comma-separated values, with a line of titles; what was there is replaced.

        Returns:
            The path.
        """
        with replacing(path) as beside, beside.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.records)
        return Path(path)

    def jsonl(self, path: str | Path) -> Path:
        """Write the records as JSON, one in a line; what was there is replaced.

        JSON knows no infinite numbers, nor any that are none: they are written as "Infinity", "-Infinity" and "NaN".

        Returns:
            The path.
        """
        with replacing(path) as beside, beside.open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(map(line, self.records))
        return Path(path)

    def frame(self) -> DataFrame:
        """Return the records as a data frame of pandas.

        Raises:
            MissingExtra: pandas is not installed.
        """
        frame: DataFrame = require("pandas", extra="history").DataFrame(self.records, columns=list(FIELDS))
        return frame

    def state_dict(self) -> dict[str, Any]:
        """Return the records, column by column, beside what every consumer remembers."""
        columns = {field: [record[field] for record in self.records] for field in FIELDS}  # type: ignore[literal-required]
        return {**super().state_dict(), "records": columns}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the records of a state, and no others; its file says the same when the run goes on.

        Raises:
            InvalidState: It is not the state of a history. Nothing is changed then.
        """
        try:
            columns = [state["records"][field] for field in FIELDS]
            records = [checked(dict(zip(FIELDS, row, strict=True))) for row in zip(*columns, strict=True)]
        except (KeyError, TypeError, ValueError) as error:
            message = f"This is not the state of {self!r}: {error!r}. Load what `state_dict()` returned."
            raise InvalidState(message) from error
        super().load_state_dict({key: value for key, value in state.items() if key != "records"})
        self.records, self._written, self._is_open, self._is_loaded = records, 0, False, True

    def _open(self, progress: Progress) -> None:
        """Find the records of the run so far, drop those of what is to be done anew, and let the file say so."""
        file = self.file
        if file is not None and file.exists() and not self._is_loaded:
            if progress.epoch == progress.batch == 0:
                if not self._is_open or not all(_is_before(record, progress) for record in self.records):
                    self._put_aside(file)
            elif not self.records:
                self.records = read(file)
        count = len(self.records)
        self._keep(record for record in self.records if _is_before(record, progress))
        if len(self.records) < count:
            logger.warning(
                "%r drops %d records: the run goes on from epoch %d, step %d, and they come after that.",
                self,
                count - len(self.records),
                progress.epoch,
                progress.step,
            )
        self._written = 0
        self._save()
        self._is_open, self._is_loaded = True, False

    def _put_aside(self, file: Path) -> None:
        """Leave what is there of a run before this one, which begins now, under another name."""
        if file.stat().st_size > 0:
            aside = _free(file)
            file.rename(aside)
            logger.warning("%r begins anew; the history of the run before is in %s now.", self, aside)

    def _keep(self, records: Iterable[Record]) -> None:
        """Drop all records but these, which keep their order; the file is written anew then."""
        kept = list(records)
        if len(kept) < len(self.records):
            self.records, self._written = kept, 0

    def _write(self) -> None:
        """Write the records that the file does not hold, if that is possible now."""
        try:
            self._save()
        except OSError as error:
            self._written = 0  # part of them may be there
            logger.warning("%r cannot write its records, and tries again later: %s", self, error)

    def _save(self) -> None:
        """Write the records that the file does not hold; all of them, if it holds others."""
        file = self.file
        if file is not None and self._written == 0:
            self.jsonl(file)
        elif file is not None:
            with file.open("a", encoding="utf-8", newline="\n") as stream:
                stream.writelines(map(line, self.records[self._written :]))
        self._written = len(self.records)


def _key(record: Record) -> tuple[int, str, str]:
    return record["epoch"], record["phase"], record["metric"]


def _is_before(record: Record, progress: Progress) -> bool:
    """Tell whether a record was taken before a run had come so far: in an epoch that is over, or in that under way."""
    under_way = record["epoch"] == progress.epoch + 1
    return record["epoch"] <= progress.epoch or (under_way and record["step"] <= progress.step)


def _free(file: Path) -> Path:
    """Return a name beside a file that nothing has yet."""
    number = 1
    while (aside := file.with_name(f"{file.stem}-{number}{file.suffix}")).exists():
        number += 1
    return aside
