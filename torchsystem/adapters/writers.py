"""Writers of TensorBoard's event files: one per series of a run, opened when they are needed and closed together."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from torchsystem.depends import Depends
from torchsystem.errors import UnsafeName
from torchsystem.progress import Progress

logger = logging.getLogger("torchsystem.adapters")

QUEUE, FLUSH = 1000, 30  # a short queue makes every scalar wait for the thread that writes, which doubles its price
PATIENCE = 3.0  # seconds: how far clocks may differ

_SERIES = re.compile(r"[\w\-. ]*[\w\-]")


class Writers:
    """The writers of one run.

    TensorBoard takes each folder for a series of its own, and draws one tag of several series on one chart. So what
    belongs to a split, counted in epochs, is written in a folder inside that of the run; what belongs to the run as a
    whole, counted in batches, in the folder itself. What an earlier process wrote beyond the point from which the run
    goes on, TensorBoard is told to forget.

    Args:
        folder: The folder of the run.
        start: From where the run goes on in this process.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from torchsystem.adapters.writers import Writers
        >>> from torchsystem.progress import Progress
        >>> with TemporaryDirectory() as folder:
        ...     writers = Writers(Path(folder), Progress())
        ...     writers("train").add_scalar("loss", 0.5, 1)
        ...     writers("validation").add_scalar("loss", 0.75, 1)
        ...     writers.close()
        ...     sorted(each.name for each in Path(folder).iterdir())
        ['train', 'validation']
    """

    def __init__(self, folder: Path, start: Progress) -> None:
        self.folder = folder
        self._start = start
        self._open: dict[str, SummaryWriter] = {}
        self._begun: set[str] = set()  # what was written of these here is not to be hidden
        self._is_away = False

    def __call__(self, series: str = "") -> SummaryWriter:
        """Return the writer of a series; of the run as a whole, if none is named.

        Args:
            series: The name of a split.

        Raises:
            UnsafeName: It cannot be the name of one folder inside that of the run.
        """
        writer = self._open.get(series)
        if writer is None:
            writer = self._open[series] = self._opened(series)
        return writer

    @contextmanager
    def writing(self) -> Generator[None]:
        """Write as far as that is possible: a disk that is full or away fails no run, but is said.

        What was not yet on disk is lost then; what comes when the disk is back goes on with the curves.
        """
        try:
            yield
        except OSError as error:
            while self._open:
                _, writer = self._open.popitem()
                with suppress(OSError):
                    writer.close()
            if not self._is_away:
                logger.warning("%s cannot be written to, and is tried again; curves have a gap: %s", self.folder, error)
            self._is_away = True

    def flush(self) -> None:
        """Have all that was written on disk, if that is possible."""
        with self.writing():
            for writer in self._open.values():
                writer.flush()
                self._is_away = False

    def close(self) -> None:
        """Close them all; to write again is to open anew."""
        while self._open:
            _, writer = self._open.popitem()
            with self.writing():
                writer.close()

    def _opened(self, series: str) -> SummaryWriter:
        if series and not _SERIES.fullmatch(series):
            message = (
                f"the split {series!r} cannot be the name of a folder, and that is how TensorBoard tells series apart. "
                f"Write letters, digits, '_', '-', '.' and spaces, with one of the first four at the end."
            )
            raise UnsafeName(message)
        first = self._start.epoch + 1 if series else self._start.batch + 1
        opened = _opened_last(self.folder / series, None if series in self._begun else first)
        self._begun.add(series)
        return opened


def _opened_last(folder: Path, first: int | None) -> SummaryWriter:
    """Open a file whose name comes after those of all others in the folder.

    TensorBoard reads the files of a folder in the order of their names, which begin with the second of their opening.
    Two that are opened in one second may come in the wrong order, and what the later one says would be forgotten.
    """
    until = time.time() + PATIENCE
    while True:
        before = _files(folder)
        opened = SummaryWriter(str(folder), purge_step=first, max_queue=QUEUE, flush_secs=FLUSH)
        after = _files(folder)
        new = max(after - before)
        if new == max(after):
            return opened
        if time.time() > until:
            logger.warning("%s: %s comes after the file that is written now. Is the clock right?", folder, max(after))
            return opened
        opened.close()
        (folder / new).unlink()
        time.sleep(1.0 - time.time() % 1.0)


def _files(folder: Path) -> set[str]:
    return {each.name for each in folder.glob("events.out.tfevents.*")}


def writers() -> Writers:
    """Say that the writers of a run are needed; an interface, which `TensorBoard` binds to those that it opens."""
    ...  # noqa: PIE790 - to pyright a docstring alone is a body that returns None


def writer(writers: Writers = Depends(writers)) -> SummaryWriter:
    """Give the writer of the run as a whole, whose steps are batches, to handlers of one's own on a `TensorBoard`."""
    return writers()
