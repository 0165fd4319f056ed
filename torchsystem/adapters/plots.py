"""Plots: pictures of what a run has measured."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from torchsystem.adapters.files import replacing
from torchsystem.adapters.history import History
from torchsystem.adapters.records import Record
from torchsystem.adapters.requirements import require
from torchsystem.adapters.residents import Resident
from torchsystem.adapters.sharing import Lent
from torchsystem.errors import InvalidPlots, InvalidState
from torchsystem.services import Depends, Mailbox, handler, mailbox
from torchsystem.storage.naming import RESERVED
from torchsystem.training.events import EpochEnded, ProcessStarted, Trained, TrainingEnded, TrainingFailed, Validated
from torchsystem.triggers import Trigger, every

matplotlib = require("matplotlib", extra="plots")

from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402 - after what names it when it is missing
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from torchsystem.depends import Provider

logger = logging.getLogger(__name__)

PICTURES = "pictures"
SOMETIMES = every(seconds=60)
LONGEST = 150  # letters of the name of a file
LAST = 50  # after those who measure and before those who send


class Plots(Resident):
    """Draw each metric over the epochs, a line for each phase, and leave word in the mailbox where the pictures are.

    They are drawn now and then at the end of an epoch, and when the training is over, as planned or not; a picture
    takes the place of the one before. The best value is marked where it is known which way is better, on the phase
    that was not learned from if there is one. matplotlib's global state is left alone: nothing here needs a screen.

    A disk that is full or away fails no run: it is said.

    Args:
        path: The folder for the pictures; without it the experiment's.
        project: The project, if not that of the experiment.
        experiment: The name of the experiment, if not that of the experiment that it is registered with.
        run: The name of the run, if not that of the experiment.
        storage: The local folder that holds all projects, if not that of the experiment.
        history: The records to draw, of a `History` that is plugged in beside; by default it keeps its own.
        when: When to draw at the end of an epoch, beside the end of the training; None for never.
        best: Which way a metric gets better, by its name, beside `{"loss": "min", "accuracy": "max"}`.
        suffix: The kind of pictures: `"png"`, `"svg"` or `"pdf"`.
        name: What its state is saved as.
        provider: Where its handlers' dependencies are bound. By default one of its own, in which the mailbox is its
            own, too, until it has that of its experiment, or `plots.dependency_overrides[mailbox]` says which one.

    Raises:
        InvalidPlots: An argument has no meaning.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from torchsystem.adapters.plots import Plots
        >>> from torchsystem.domain import Aggregate
        >>> from torchsystem.progress import Progress
        >>> from torchsystem.training.events import TrainingEnded, Validated
        >>> with TemporaryDirectory() as folder:
        ...     plots = Plots(folder)
        ...     plots.consume(Validated(Aggregate(), Progress(epoch=0), "validation", {"loss": 0.5}))
        ...     plots.consume(TrainingEnded(Aggregate(), Progress(epoch=1), "1 epochs are done"))
        ...     [picture.name for picture in plots.pictures]
        ['loss.png']
    """

    kind = "plots"

    def __init__(  # noqa: PLR0913 - where to write is said in four words, each of which may be left to the experiment
        self,
        path: str | Path | None = None,
        *,
        project: str | None = None,
        experiment: str | None = None,
        run: str | None = None,
        storage: str | Path | None = None,
        history: History | None = None,
        when: Trigger | None = SOMETIMES,
        best: Mapping[str, Literal["min", "max"]] | None = None,
        suffix: Literal["png", "svg", "pdf"] = "png",
        name: str | None = "plots",
        provider: Provider | None = None,
    ) -> None:
        super().__init__(
            name, path=path, project=project, experiment=experiment, run=run, storage=storage, provider=provider
        )
        _check(history, when, {} if best is None else best, suffix)
        self.best = {"loss": "min", "accuracy": "max", **({} if best is None else best)}
        self.suffix = suffix
        self.history = History() if history is None else history
        self.pictures: list[Path] = []
        self._keeps_history = history is None
        self._drawn: Record | None = None  # the last record of the pictures
        if provider is None:
            self.dependency_overrides[mailbox] = Lent()
        if when is not None:
            self.handler(when=when, order=LAST)(self._draw_now)

    @handler
    def listen(self, event: ProcessStarted | Trained | Validated) -> None:
        """Keep the records, if nobody else does."""
        if self._keeps_history:
            self.history.consume(event)

    @handler
    def prepare(self, event: ProcessStarted, box: Mailbox = Depends(mailbox)) -> None:  # noqa: ARG002 - asked for
        """Find the folder and the mailbox: where one of them is missing, it is said before anything is trained."""
        logger.debug("%r draws into %s", self, self.folder)

    @handler(order=LAST)
    def conclude(self, event: TrainingEnded | TrainingFailed, box: Mailbox = Depends(mailbox)) -> None:  # noqa: ARG002
        """Draw what there is when the training is over."""
        self.draw(box)

    def draw(self, box: Mailbox | None = None) -> list[Path]:
        """Draw every metric, if anything has come since it was drawn last.

        Args:
            box: Where to leave the paths, under `"pictures"`.

        Returns:
            The paths, which are also kept in `pictures`.
        """
        records = self.history.records
        if records and records[-1] is not self._drawn:
            last, metrics = records[-1], dict.fromkeys(one["metric"] for one in records)
            try:
                self.pictures = [path for metric in metrics if (path := self._picture(metric)) is not None]
            except OSError as error:
                logger.warning("%r cannot write its pictures, and tries again later: %s", self, error)
                return []
            self._drawn = last
        if box is not None:  # also of those drawn before: word of them may be gone with its epoch
            for picture in self.pictures:
                box.write(PICTURES, str(picture))
        return self.pictures

    def figure(self, metric: str) -> Figure:
        """Draw one metric, as a figure of matplotlib that no global state knows of."""
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        series = self.history.series(metric)
        for phase, (epochs, values) in series.items():
            axes.plot(epochs, values, marker="o", markersize=3, label=_plain(phase))
        if metric in self.best:
            _mark(axes, series, self.best[metric])
        axes.set(title=_plain(metric), xlabel="epoch", ylabel=_plain(metric))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
        return figure

    def state_dict(self) -> dict[str, Any]:
        """Return the records, if it keeps them itself, beside what every consumer remembers."""
        history = self.history.state_dict() if self._keeps_history else None
        return {**super().state_dict(), "history": history}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what was remembered.

        Raises:
            InvalidState: It has no records, and there is no other history to draw them from.
        """
        records = state.get("history")
        if self._keeps_history:
            if records is None:
                message = f"This is not the state of {self!r}: it has no records. Write Plots(history=...) as before."
                raise InvalidState(message)
            self.history.load_state_dict(records)
        super().load_state_dict({key: value for key, value in state.items() if key != "history"})
        self._drawn = None

    def _draw_now(self, event: EpochEnded, box: Mailbox = Depends(mailbox)) -> None:  # noqa: ARG002 - that it is time
        self.draw(box)

    def _picture(self, metric: str) -> Path | None:
        """Draw one metric into its file; one that cannot be drawn is no reason for a run to fail."""
        path = self.folder / f"{_file_name(metric)}.{self.suffix}"
        try:
            with replacing(path) as beside:
                self.figure(metric).savefig(beside, dpi=120)
        except OSError:
            raise
        except Exception:
            logger.exception("%r cannot draw %r.", self, metric)
            return None
        return path


def _mark(axes: Axes, series: Mapping[str, tuple[list[int], list[float]]], direction: str) -> None:
    """Mark the best value, on the first phase that was not learned from if there is one."""
    phase = next((phase for phase in series if phase != "train"), "train")
    points = [(value, epoch) for epoch, value in zip(*series.get(phase, ([], [])), strict=True) if math.isfinite(value)]
    if not points:
        return
    pick = min if direction == "min" else max
    value, epoch = pick(points, key=lambda point: point[0])
    label = f"best {_plain(phase)}: {value:.4g}, epoch {epoch}"
    axes.plot([epoch], [value], linestyle="", marker="*", markersize=12, color="black", label=label)


def _file_name(metric: str) -> str:
    """Return a name of a file, another one for each metric, that any system can have, and is not hidden."""
    name = quote(metric, safe=" ") or "%"
    if name[0] in " ." or RESERVED.fullmatch(name):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    if len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST]}%{hashlib.sha256(metric.encode()).hexdigest()[:16]}"


def _plain(text: str) -> str:
    """Return a text in which matplotlib sees no formulas."""
    return text.replace("$", r"\$")


def _check(history: object, when: object, best: object, suffix: object) -> None:
    wrong = {
        "history": history is not None and not isinstance(history, History),
        "when": when is not None and not isinstance(when, Trigger),
        "best": not isinstance(best, Mapping) or any(way not in ("min", "max") for way in best.values()),
        "suffix": suffix not in {"png", "svg", "pdf"},
    }
    names = [name for name, is_wrong in wrong.items() if is_wrong]
    if names:
        message = (
            f"Plots({', '.join(names)}=...) has no meaning. Give it a History, a trigger like every(5, 'epochs'), "
            f"'min' or 'max' for each metric in best, and 'png', 'svg' or 'pdf'."
        )
        raise InvalidPlots(message)
