"""Plots: real pictures of real records, their best marked, their paths in the mailbox."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt

from tests.training.fakes import Learner, loader
from torchsystem.adapters.history import History
from torchsystem.adapters.plots import Plots
from torchsystem.errors import InvalidPlots, InvalidState, UnboundInterface, UnknownHome
from torchsystem.progress import Progress
from torchsystem.services import UNTIL_READ, Consumer, Depends, Mailbox, Producer, mailbox
from torchsystem.storage.mirror import is_passing
from torchsystem.storage.segments import is_segment
from torchsystem.training import Training, accuracy, device, metrics
from torchsystem.training.events import BatchEnded, EpochEnded, ProcessStarted, TrainingEnded, TrainingFailed, Validated
from torchsystem.triggers import every

PNG = b"\x89PNG\r\n\x1a\n"


def validated(epoch: int, values: dict[str, float], split: str = "validation") -> Validated:
    """Say what was measured in an epoch, from 1."""
    return Validated(Learner(), Progress(epoch=epoch - 1, step=epoch), split, values)


def over(epoch: int) -> TrainingEnded:
    """Say that a run is over."""
    return TrainingEnded(Learner(), Progress(epoch=epoch), "over")


def legend(plots: Plots, metric: str) -> list[str]:
    """Return what the legend of a picture says."""
    return [text.get_text() for text in plots.figure(metric).axes[0].get_legend().get_texts()]


def test_a_training_has_its_pictures_and_their_paths_are_in_the_mailbox(tmp_path: Path) -> None:
    """One for each metric, with a line for each split; read by whoever is told at the end."""
    training, box, read = Training(), Mailbox(), []
    training.override(device, lambda: "cpu")
    training.override(metrics, lambda: {"accuracy": accuracy})
    plots, reader = Plots(tmp_path), Consumer("reader")

    @reader.handler(order=100)
    def look(event: TrainingEnded, box: Mailbox = Depends(mailbox)) -> None:
        read.extend(box.read("pictures"))

    for listener in (plots, reader):
        listener.dependency_overrides[mailbox] = lambda: box
        training.producer.register(listener)
    assert not training.producer.wants(BatchEnded)
    training.handle("fit", Learner(), {"train": loader(), "validation": loader(1)}, epochs=3)
    assert sorted(read) == [str(tmp_path / "accuracy.png"), str(tmp_path / "loss.png")]
    assert all(Path(path).read_bytes().startswith(PNG) for path in read)
    assert legend(plots, "loss")[:2] == ["train", "validation"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["accuracy.png", "loss.png"]


def test_matplotlib_is_left_as_it_was() -> None:
    """Nobody's figures, settings or choice of a backend are touched."""
    plots = Plots()
    plots.consume(validated(1, {"loss": 1.0}))
    before, settings = plt.get_fignums(), dict(mpl.rcParams)
    plots.figure("loss")
    assert plt.get_fignums() == before
    assert dict(mpl.rcParams) == settings


def test_the_lines_are_what_the_history_holds() -> None:
    """Epochs and values by phase, those that are infinite or none included as gaps; names are no formulas."""
    plots = Plots()
    for epoch, value in enumerate([3.0, math.nan, math.inf, 1.0], start=1):
        plots.consume(validated(epoch, {"$x$": value, "loss": value}))
    (line,) = plots.figure("$x$").axes[0].get_lines()
    assert list(map(float, line.get_xdata())) == [1, 2, 3, 4]  # type: ignore[arg-type]
    assert str(list(map(float, line.get_ydata()))) == "[3.0, nan, inf, 1.0]"  # type: ignore[arg-type]
    assert plots.figure("$x$").axes[0].get_title() == r"\$x\$"


def test_the_best_is_marked_where_it_is_known_which_way_is_better() -> None:
    """On the split that was not learned from; of a metric that nobody declared nothing is guessed."""
    plots = Plots(best={"f1": "max"})
    for epoch, value in enumerate([0.5, 0.25, 0.75], start=1):
        values = dict.fromkeys(["loss", "accuracy", "f1", "odd"], value)
        plots.consume(validated(epoch, values))
        plots.consume(validated(epoch, dict.fromkeys(values, -value), "test"))
    assert legend(plots, "loss")[2:] == ["best validation: 0.25, epoch 2"]
    assert legend(plots, "accuracy")[2:] == legend(plots, "f1")[2:] == ["best validation: 0.75, epoch 3"]
    assert legend(plots, "odd") == ["validation", "test"]


def test_they_are_drawn_when_it_is_time_and_at_the_end(tmp_path: Path) -> None:
    """Nothing is drawn again that is up to date, but where it is told again: word of it may be gone with its epoch."""
    plots, box = Plots(tmp_path, when=every(2, "epochs")), Mailbox()
    plots.dependency_overrides[mailbox] = lambda: box
    drawn = []
    for epoch in range(1, 6):
        plots.consume(validated(epoch, {"loss": 1.0}))
        plots.consume(EpochEnded(Learner(), Progress(epoch=epoch), {}))
        drawn.append(len(box.read("pictures")))
    assert drawn == [0, 1, 1, 2, 2]
    plots.consume(over(5))
    pictures = plots.pictures
    box.end_of_epoch()
    plots.consume(TrainingFailed(Learner(), Progress(epoch=5), ValueError("odd")))
    assert plots.pictures is pictures
    assert box.read("pictures") == [str(tmp_path / "loss.png")]


def test_a_run_that_fails_has_its_pictures_too(tmp_path: Path) -> None:
    """That is when one wants to see them."""
    plots = Plots(tmp_path, when=None, suffix="svg")
    plots.consume(validated(1, {"loss": 1.0}))
    plots.consume(TrainingFailed(Learner(), Progress(epoch=1), ValueError("loss")))
    assert "<svg" in (tmp_path / "loss.svg").read_text(encoding="utf-8")


def test_whatever_a_metric_is_called_its_picture_is_one_file_in_the_folder(tmp_path: Path) -> None:
    """No name leads out of it, and no two names to the same file."""
    folder = tmp_path / "plots"
    plots = Plots(folder, when=None)
    names = [
        "../escaped",
        "/etc/x",
        "a/b",
        "a%2Fb",
        "..",
        "a b",
        "C:\\x",
        "",
        ".",
        "é" * 90,
        "é" * 90 + "x",
        " a",
        ".a",
        "aux",
        "Con",
    ]
    plots.consume(validated(1, dict.fromkeys(names, 1.0)))
    plots.consume(over(1))
    assert len({*plots.pictures}) == len(names)
    assert {picture.parent for picture in plots.pictures} == {folder}
    assert all(is_segment(picture.name) and not is_passing(picture.name) for picture in plots.pictures)  # or no mirror
    assert sorted(folder.iterdir()) == sorted(plots.pictures)
    assert list(tmp_path.iterdir()) == [folder]


def test_they_draw_the_history_that_is_plugged_in_beside(tmp_path: Path) -> None:
    """Its records are kept once, and are its state alone."""
    history, producer = History(), Producer()
    plots = Plots(tmp_path, history=history)
    producer.register(plots, history)
    producer.dispatch(validated(1, {"loss": 1.0}))
    producer.dispatch(over(1))
    assert len(history.records) == 1
    assert plots.pictures == [tmp_path / "loss.png"]
    assert plots.state_dict()["history"] is None


def test_pictures_of_a_run_that_goes_on_are_whole() -> None:
    """Without a history beside, the records are the state of the plots."""
    plots, resumed = Plots(), Plots()
    plots.consume(validated(1, {"loss": 1.0}))
    resumed.load_state_dict(plots.state_dict())
    resumed.consume(validated(2, {"loss": 0.5}))
    assert resumed.history.series("loss") == {"validation": ([1, 2], [1.0, 0.5])}
    with pytest.raises(InvalidState, match="no records"):
        resumed.load_state_dict(Plots(history=History()).state_dict())


def test_a_disk_that_is_away_fails_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, and the pictures are drawn when it is back."""
    folder = tmp_path / "disk"
    plots = Plots(folder)
    plots.consume(validated(1, {"loss": 1.0}))
    folder.write_text("no folder")
    with caplog.at_level(logging.WARNING):
        plots.consume(over(1))
    assert "cannot write its pictures" in caplog.text
    folder.unlink()
    plots.consume(over(1))
    assert (folder / "loss.png").exists()


def test_what_is_missing_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    """A folder, or the mailbox of a provider that is shared."""
    started = ProcessStarted(Learner(), Progress())
    with pytest.raises(UnknownHome, match="Plots"):
        Plots().consume(started)
    with pytest.raises(UnboundInterface, match="mailbox"):
        Plots(tmp_path, provider=Consumer().provider).consume(started)


class Odd(Plots):
    """Plots one of which cannot be drawn."""

    def figure(self, metric: str) -> Any:
        """Draw it, or not."""
        if metric == "odd":
            raise ValueError("odd")
        return super().figure(metric)


def test_a_picture_that_cannot_be_drawn_fails_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nor does it keep the others from being drawn; it is said."""
    plots = Odd(tmp_path, when=None)
    plots.consume(validated(1, {"accuracy": 1.0, "odd": 1.0, "loss": 1.0}))
    plots.consume(over(1))
    assert plots.pictures == [tmp_path / "accuracy.png", tmp_path / "loss.png"]
    assert "cannot draw 'odd'" in caplog.text


@pytest.mark.parametrize(
    "arguments",
    [{"history": []}, {"when": 5}, {"best": {"loss": "least"}}, {"best": ["loss"]}, {"suffix": "exe"}],
)
def test_what_has_no_meaning_is_refused(arguments: dict[str, Any]) -> None:
    """Where it is written, and not when the first picture is drawn."""
    with pytest.raises(InvalidPlots, match=next(iter(arguments))):
        Plots(**arguments)


def test_paths_are_kept_until_the_epoch_is_over(tmp_path: Path) -> None:
    """What others left under the same key stays as it is."""
    plots, box = Plots(tmp_path), Mailbox()
    plots.dependency_overrides[mailbox] = lambda: box
    box.write("pictures", "theirs.png", keep=UNTIL_READ)
    plots.consume(validated(1, {"loss": 1.0}))
    plots.consume(over(1))
    assert box.read("pictures") == ["theirs.png", str(tmp_path / "loss.png")]
    box.end_of_epoch()
    assert box.read("pictures") == []
