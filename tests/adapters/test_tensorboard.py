"""TensorBoard: what is written, that it is written once, and that the real one shows it."""

from __future__ import annotations

import gc
import json
import math
import os
import re
import shutil
import subprocess
import tempfile
import threading
import weakref
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor, nn, optim, tensor
from torch.utils.tensorboard import SummaryWriter

from tests.adapters.boards import ask, curve, learner, loaders, network, read, resumed, server, text, training
from tests.training.fakes import Learner
from torchsystem import Aggregate, Depends
from torchsystem.adapters import writers as files
from torchsystem.adapters.examples import show
from torchsystem.adapters.losses import LONGEST, Losses
from torchsystem.adapters.tensorboard import FirstExamples, TensorBoard, writer
from torchsystem.domain.continuation import attach
from torchsystem.errors import (
    InvalidExample,
    InvalidMetric,
    InvalidOption,
    MissingMetric,
    MissingOptimization,
    UnsafeName,
)
from torchsystem.progress import Progress
from torchsystem.services import Consumer
from torchsystem.training import Supervised
from torchsystem.training.events import (
    BatchEnded,
    BatchPredicted,
    EpochEnded,
    EpochStarted,
    GradientsUpdated,
    Interrupted,
    ProcessStarted,
    TrainingEnded,
    TrainingFailed,
    Validated,
)
from torchsystem.training.run import under_way
from torchsystem.triggers import at, every

AS_OFTEN: dict[str, Any] = {
    "losses": every(4, "batches"),
    "weights": every(1, "epochs") | every(2, "batches"),
    "gradients": every(3, "batches"),
}


def all_of(folder: Path) -> dict[str, list[Any]]:
    """Return all curves, and the steps of all histograms."""
    found: dict[str, list[Any]] = {}
    for series in ("", "train", "validation"):
        events = read(folder / series)
        for tag in events.Tags()["scalars"]:
            found[f"{series}: {tag}"] = [(each.step, each.value) for each in events.Scalars(tag)]
        for tag in events.Tags()["histograms"]:
            found[f"{series}: {tag}"] = [each.step for each in events.Histograms(tag)]
    return found


def files_of(folder: Path) -> list[str]:
    """Name the series of all event files."""
    return sorted(str(each.parent.relative_to(folder)) for each in folder.rglob("events.out.tfevents.*"))


def test_splits_share_the_axes_of_a_chart(tmp_path: Path) -> None:
    """A metric is one tag, and each split a series of it, with epochs for steps."""
    history = training(TensorBoard(tmp_path)).fit(learner(), loaders(), epochs=3)
    for split in ("train", "validation"):
        values = [(number, pytest.approx(epoch[f"{split}/loss"])) for number, epoch in enumerate(history, start=1)]
        assert curve(tmp_path / split, "loss") == values


def test_a_run_has_one_writer_per_series_and_closes_it(tmp_path: Path) -> None:
    """Opened once per run and not once per event; when the run is over nothing is open, and a later one opens anew."""
    threads = threading.active_count()
    board = TensorBoard(tmp_path)
    listening = training(board)
    model = learner()
    listening.fit(model, loaders(), epochs=3)
    assert files_of(tmp_path) == [".", "train", "validation"]
    assert threading.active_count() == threads
    listening.fit(model, loaders(), epochs=4)
    assert files_of(tmp_path) == [".", ".", "train", "train", "validation", "validation"]
    assert [step for step, _ in curve(tmp_path / "train")] == [1, 2, 3, 4]
    del board, listening
    gc.collect()  # a provider with something open would warn


@given(st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=4)
def test_a_resumed_run_continues_its_curves(kept: int, lost: int) -> None:
    """Wherever it is continued from, and however much was written beyond: every point is there, and none twice."""
    with tempfile.TemporaryDirectory() as name:
        alone, continued = Path(name, "alone"), Path(name, "continued")
        training(TensorBoard(alone, losses=every(4, "batches"))).fit(learner(), loaders(), epochs=6)
        first, model = TensorBoard(continued, losses=every(4, "batches")), learner()
        training(first).fit(model, loaders(), epochs=kept)
        snapshot, state = model.snapshot(), first.state_dict()
        training(first).fit(model, loaders(), epochs=kept + lost)
        second = TensorBoard(continued, losses=every(4, "batches"))
        second.load_state_dict(state)
        training(second).fit(resumed(snapshot), loaders(), epochs=6)
        assert all_of(continued) == all_of(alone)


@given(st.integers(1, 7), st.integers(0, 5))
@settings(max_examples=4)
def test_a_run_that_is_cut_within_an_epoch_has_all_its_losses(kept: int, lost: int) -> None:
    """What a checkpoint says was seen is on disk with it, whether or not it was time to write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first, model = TensorBoard(folder, losses=every(100, "batches")), learner()
        training(first).fit(model, loaders(), steps=kept)
        snapshot, state = model.snapshot(), first.state_dict()
        training(first).fit(model, loaders(), steps=kept + lost)
        second = TensorBoard(folder, losses=every(100, "batches"))
        second.load_state_dict(state)
        training(second).fit(resumed(snapshot), loaders(), steps=15)
        assert [step for step, _ in curve(folder, "batch/loss")] == list(range(1, 16))


@given(st.integers(1, 11), st.integers(0, 6))
@settings(max_examples=4)
def test_a_run_that_goes_on_within_an_epoch_continues_its_curves(cut: int, lost: int) -> None:
    """As one that was left alone: what was written beyond the checkpoint is forgotten, and what follows comes once."""
    with tempfile.TemporaryDirectory() as name:
        alone, continued = Path(name, "alone"), Path(name, "continued")
        boards = [
            TensorBoard(alone, **AS_OFTEN),
            TensorBoard(continued, **AS_OFTEN),
            TensorBoard(continued, **AS_OFTEN),
        ]
        training(boards[0]).fit(learner(), loaders(), epochs=4)
        model, kept = learner(), list[tuple[Any, Any]]()
        keeper = Consumer("keeper")

        @keeper.handler(when=at(cut, "batches"))
        def keep(event: BatchEnded) -> None:
            run = under_way(model)
            assert run is not None
            run.when_safe(lambda: kept.append((run.state(), model.snapshot())))

        training(boards[1], keeper).fit(model, loaders(), steps=cut + lost)
        [(state, snapshot)] = kept
        model = resumed(snapshot)
        attach(model, state)
        keeper = Consumer("keeper")
        keeper.handler(when=at(99, "batches"))(keep)
        training(boards[2], keeper).fit(model, loaders(), epochs=4)
        assert all_of(continued) == all_of(alone)


def test_what_a_checkpoint_says_was_written_is_on_disk(tmp_path: Path) -> None:
    """A listener that makes a checkpoint at the end of an epoch finds the epoch in the files, while they are open."""
    keeper, seen = Consumer("keeper"), []
    board = TensorBoard(tmp_path, losses=every(100, "batches"))

    @keeper.handler
    def keep(event: EpochEnded) -> None:
        board.state_dict()
        seen.append((len(curve(tmp_path / "train")), len(curve(tmp_path, "batch/loss"))))

    training(keeper, board).fit(learner(), loaders(), epochs=3)
    assert seen == [(1, 3), (2, 6), (3, 9)]


class Spy(Tensor):
    """A tensor that remembers what was done with it and its kin."""

    log: list[str]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.log.append(func.__name__)
        return super().__torch_function__(func, types, args, kwargs or {})


def test_losses_are_read_from_the_device_in_one_go(tmp_path: Path) -> None:
    """Between the moments that the trigger says nothing is done with a loss; then all are read together."""
    Spy.log = []
    board, model = TensorBoard(tmp_path, losses=every(10, "batches")), Aggregate()
    for batch in range(1, 25):
        loss = tensor(batch / 2).as_subclass(Spy)
        before = len(Spy.log)
        board.consume(BatchEnded(model, Progress(batch=batch), None, None, loss))
        assert batch % 10 == 0 or len(Spy.log) == before
    assert Spy.log.count("tolist") == 2
    assert not {"item", "__float__", "cpu", "to", "__bool__", "numpy"} & set(Spy.log)
    board.close()
    assert curve(tmp_path, "batch/loss") == [(batch, batch / 2) for batch in range(1, 25)]


def test_many_losses_are_kept_in_few_tensors() -> None:
    """A device gives each tensor a block of its own: what waits is folded, and comes out as it came."""
    losses, given = Losses(), []
    for batch in range(2 * LONGEST + 3):
        loss = tensor(float(batch))
        given.append(weakref.ref(loss))
        losses.keep(batch, loss)
    assert sum(each() is not None for each in given) < LONGEST
    assert [loss.value for loss in losses.read()] == [*map(float, range(2 * LONGEST + 3))]


def test_a_loop_that_tells_no_losses_is_named(tmp_path: Path) -> None:
    """A chart that was asked for would stay empty for a whole run."""
    board = TensorBoard(tmp_path, losses=every(10, "batches"))
    with pytest.raises(MissingMetric, match=r"epoch\.fitted = predictions, loss"):
        board.consume(BatchEnded(Aggregate(), Progress(batch=1), None, None, None))


def test_learning_rates_are_those_that_each_epoch_learns_with(tmp_path: Path) -> None:
    """Written as what belongs to its first batch; also of plain optimizers, and of several groups each."""
    training(TensorBoard(tmp_path / "scheduled")).fit(learner(), loaders(3), epochs=3)
    assert curve(tmp_path / "scheduled", "learning rate/optimizer") == [(1, 0.5), (4, 0.25), (7, 0.125)]
    plain = Learner()
    plain.optimizer = optim.SGD([{"params": [each]} for each in plain.nn.parameters()], lr=0.5)
    training(TensorBoard(tmp_path / "plain")).fit(plain, loaders(3), epochs=1)
    assert curve(tmp_path / "plain", "learning rate/optimizer/1") == [(1, 0.5)]


def test_the_configuration_is_text_without_secrets(tmp_path: Path) -> None:
    """What the parts say of themselves and what was given, once per process."""
    board = TensorBoard(tmp_path, hyperparameters={"batch size": 8, "data": {"token": "hush", "crop": 28}})
    training(board).fit(learner(), loaders(), epochs=1)
    [(step, shown)] = text(tmp_path, "configuration")
    described = json.loads(shown.removeprefix("```json\n").removesuffix("\n```"))
    assert step == 1
    assert described["optimizer"]["arguments"]["lr"] == 0.5
    assert described["hyperparameters"] == {"batch size": 8, "data": {"token": "(hidden)", "crop": 28}}


def test_scalars_among_hyperparameters_are_numbers(tmp_path: Path) -> None:
    """As sweeps make them, of numpy and torch: words could not be compared in a table."""
    given = {"rate": np.float32(0.5), "width": np.int64(3), "drop": tensor(0.25), "shape": np.zeros(2), "none": None}
    training(TensorBoard(tmp_path, hyperparameters=given)).fit(learner(), loaders(), epochs=1)
    [(_, shown)] = text(tmp_path, "configuration")
    kept = json.loads(shown.removeprefix("```json\n").removesuffix("\n```"))["hyperparameters"]
    assert kept == {"rate": 0.5, "width": 3, "drop": 0.25, "shape": "[0. 0.]", "none": None}
    said = read(tmp_path).SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = HParamsPluginData.FromString(said).session_start_info.hparams
    assert (hparams["rate"].number_value, hparams["width"].number_value, hparams["drop"].number_value) == (0.5, 3, 0.25)


def test_histograms_come_on_their_interval(tmp_path: Path) -> None:
    """Weights and gradients, each when its own trigger says; weights with the epoch or the batch that made them."""
    board = TensorBoard(tmp_path, weights=every(1, "epochs") | every(4, "batches"), gradients=every(4, "batches"))
    training(board).fit(learner(), loaders(3), epochs=3)
    run, train = read(tmp_path), read(tmp_path / "train")
    names = {f"nn.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    assert set(run.Tags()["histograms"]) == {
        f"{family}/{name}" for family in ("weights", "gradients") for name in names
    }
    assert [each.step for each in train.Histograms("weights/nn.0.weight")] == [1, 2, 3]
    assert [each.step for each in run.Histograms("weights/nn.0.weight")] == [4, 8]
    assert [each.step for each in run.Histograms("gradients/nn.0.weight")] == [5, 9]
    assert run.Histograms("weights/nn.0.weight")[0].histogram_value.num == 8


def test_gradients_of_accumulated_batches_are_not_missed(tmp_path: Path) -> None:
    """A trigger that fires at a batch without a step is due at the next step."""
    board, model = TensorBoard(tmp_path, gradients=every(4, "batches")), learner()
    model.nn[0].weight.grad = torch.ones(4, 2)
    for batch in range(12):
        board.consume(GradientsUpdated(model, Progress(batch=batch), "optimizer", batch % 3, batch % 3 == 2))
    board.close()
    assert [each.step for each in read(tmp_path).Histograms("gradients/nn.0.weight")] == [6, 9]


def test_gradients_that_nobody_tells_of_are_named(tmp_path: Path) -> None:
    """An aggregate that steps by hand would leave the charts empty."""
    with pytest.raises(ExceptionGroup) as caught:
        training(TensorBoard(tmp_path, gradients=every(1, "epochs"))).fit(Learner(), loaders(), epochs=1)
    assert caught.group_contains(MissingOptimization, match="self.optimization = Optimization")


def test_values_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    """A broken weight is shown as such, and breaks neither the histogram nor the run."""
    board, model = TensorBoard(tmp_path, weights=every(1, "epochs")), learner()
    with torch.no_grad():
        model.nn[0].weight[0, 0] = torch.nan
        model.nn[2].bias.fill_(torch.inf)
    board.consume(EpochEnded(model, Progress(epoch=1, batch=3), {}))
    board.close()
    assert curve(tmp_path / "train", "weights not finite/nn.0.weight") == [(1, 1)]
    assert curve(tmp_path / "train", "weights not finite/nn.2.bias") == [(1, 2)]
    assert read(tmp_path / "train").Histograms("weights/nn.0.weight")[0].histogram_value.num == 7


def predicted(progress: Progress, metadata: Any = None, dataset: str = "test") -> BatchPredicted:
    """Make the event of two predictions."""
    return BatchPredicted(Aggregate(), progress, tensor([3, 5]), tensor([3, 6]), metadata, dataset)


def test_examples_are_those_of_the_first_batch(tmp_path: Path) -> None:
    """A table of predictions and targets, and images where the metadata have them; once per split and prediction."""
    images = {"drawing": torch.rand(2, 1, 4, 4), "author": ["a", "b"]}
    with TensorBoard(tmp_path, examples=2) as board:
        for progress in (Progress(batch=5), Progress(batch=5), Progress(batch=9)):
            board.consume(predicted(progress, images))
        board.consume(predicted(Progress(batch=9), images, "other"))
    tables = text(tmp_path, "test/predictions")
    assert [step for step, _ in tables] == [5, 9]
    assert "| 1 | 5 | 6 |" in tables[0][1]
    assert [each.step for each in read(tmp_path).Images("test/drawing")] == [5, 9]
    assert [step for step, _ in text(tmp_path, "other/predictions")] == [9]


class Drawing(Supervised):
    """A classifier of inputs that can be drawn."""

    def metadata(self, batch: Any) -> dict[str, Tensor]:
        """Say what a batch looks like."""
        return {"drawing": batch[0].reshape(-1, 1, 1, 2)}


def test_examples_of_a_prediction_are_shown(tmp_path: Path) -> None:
    """Those of its first batch, after the last batch that was learned, with what the aggregate says of them."""
    layers = network()
    model = Drawing(layers, nn.CrossEntropyLoss(), optim.SGD(layers.parameters(), lr=0.1))
    board = TensorBoard(tmp_path, examples=3)
    listening, made = training(board), loaders(3)
    listening.fit(model, made, epochs=1)
    with board:
        listening.predict(model, made["train"], split="test")
    [(step, table)] = text(tmp_path, "test/predictions")
    assert step == 3
    assert table.count("\n") == 4
    assert [each.step for each in read(tmp_path).Images("test/drawing")] == [3]


@pytest.mark.parametrize(
    "image",
    [
        torch.rand(2, 5, 4, 4),
        torch.rand(2, 3, 0, 4),
        torch.rand(0, 3, 4, 4),
        torch.rand(2, 3, 4, 4).to(torch.complex64),
    ],
    ids=lambda image: f"{tuple(image.shape)}-{image.dtype}",
)
def test_what_cannot_be_shown_is_not_taken_for_an_image(tmp_path: Path, image: Tensor) -> None:
    """No evaluation fails because there is a tensor of five channels in its metadata."""
    with TensorBoard(tmp_path, examples=2) as board:
        board.consume(ProcessStarted(learner(), Progress()))
        predictions = BatchPredicted(learner(), Progress(), tensor([1, 2]), tensor([1, 2]), {"image": image}, "test")
        board.consume(predictions)
    assert read(tmp_path).Tags()["images"] == []
    assert "| 1 | 2 | 2 |" in text(tmp_path, "test/predictions")[0][1]


def test_predictions_of_many_names_are_shown_by_example() -> None:
    """Not the names, one in each row."""
    predictions = {"class": tensor([3, 5, 7]), "score": tensor([0.5, 0.25, 1.0])}
    event = BatchPredicted(learner(), Progress(), predictions, {"class": tensor([3])}, None, "test")
    assert FirstExamples(2)(event)["predictions"].splitlines()[2:] == [
        "| 0 | class: 3, score: 0.5 | class: 3 |",
        "| 1 | class: 5, score: 0.25 |  |",
    ]


@pytest.mark.parametrize("image", [[0.0, math.inf, 1.0, -math.inf, math.nan], [-3e38, 3e38, math.inf], [math.nan] * 2])
def test_values_of_an_image_that_are_not_finite_are_shown_as_the_nearest(tmp_path: Path, image: list[float]) -> None:
    """They do not hide what there is beside them, nor raise a warning."""
    with SummaryWriter(str(tmp_path)) as board:
        show(board, "image", tensor(image).reshape(1, 1, -1), 1)
    (drawn,) = read(tmp_path).Images("image")
    pixels = np.asarray(Image.open(BytesIO(drawn.encoded_image_string)))[..., 0].ravel().tolist()
    assert pixels == {5: [0, 255, 255, 0, 0], 3: [0, 255, 255], 2: [0, 0]}[len(image)]


def test_examples_may_be_chosen(tmp_path: Path) -> None:
    """By a function that returns images and texts; what is neither is refused."""
    shown: dict[str, Any] = {"one": torch.rand(3, 4, 4), "wide": torch.randn(2, 1, 4, 4) * 9, "note": "**fine**"}
    with TensorBoard(tmp_path, examples=lambda _: shown) as board:
        board.consume(predicted(Progress(batch=1)))
        shown = {"graph": torch.rand(7)}
        with pytest.raises(InvalidExample, match=r"'test/graph' is a tensor of shape \(7,\)"):
            board.consume(predicted(Progress(batch=2)))
    found = read(tmp_path)
    assert set(found.Tags()["images"]) == {"test/one", "test/wide"}
    assert text(tmp_path, "test/note") == [(1, "**fine**")]


def test_handlers_of_ones_own_get_the_writer(tmp_path: Path) -> None:
    """The one that the run has open."""
    board = TensorBoard(tmp_path)

    @board.handler
    def extra(event: Validated, writer: SummaryWriter = Depends(writer)) -> None:
        writer.add_scalar("mine", 1.0, event.progress.batch)

    training(board).fit(learner(), loaders(), epochs=2)
    assert curve(tmp_path, "mine") == [(3, 1.0), (6, 1.0)]
    assert files_of(tmp_path) == [".", "train", "validation"]


def test_a_split_that_is_gone_through_alone_is_written(tmp_path: Path) -> None:
    """Outside an epoch there is no end to wait for; its step is the epoch that the aggregate has reached."""
    board, model = TensorBoard(tmp_path), learner()
    listening = training(board)
    listening.fit(model, loaders(), epochs=2)
    with board:
        metrics = listening.validate(model, loaders()["validation"])
    assert curve(tmp_path / "validation")[-1] == (2, pytest.approx(metrics["loss"]))


def test_a_run_that_fails_leaves_all_it_knew(tmp_path: Path) -> None:
    """The losses up to the failure, why it failed, and nothing open."""
    threads = set(threading.enumerate())
    broken = [*loaders()["train"], (torch.ones(8, 3), torch.zeros(8, dtype=torch.long))]
    with pytest.raises(RuntimeError, match="shapes"):
        training(TensorBoard(tmp_path, losses=every(100, "batches"))).fit(learner(), {"train": broken}, epochs=1)
    assert [step for step, _ in curve(tmp_path, "batch/loss")] == [1, 2, 3]
    assert "RuntimeError" in text(tmp_path, "failure")[0][1]
    assert set(threading.enumerate()) <= threads


class Speechless(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("error", [Speechless(), ValueError("of \udcff")])
def test_an_odd_failure_is_written_as_far_as_it_can_be(tmp_path: Path, error: Exception) -> None:
    """Rather than to fail over it."""
    board = TensorBoard(tmp_path)
    board.consume(ProcessStarted(learner(), Progress()))
    board.consume(TrainingFailed(learner(), Progress(), error))
    assert type(error).__name__ in text(tmp_path, "failure")[0][1]


@pytest.mark.parametrize("value", ["text", None, 10**400, [1.0], torch.ones(2)])
def test_a_metric_that_is_no_number_is_named(tmp_path: Path, value: Any) -> None:
    """Not by what TensorBoard's client makes of it."""
    with TensorBoard(tmp_path) as board, pytest.raises(InvalidMetric, match="'loss' is reported as"):
        board.consume(ProcessStarted(learner(), Progress()))
        board.consume(EpochEnded(learner(), Progress(epoch=1), {"train/loss": value}))


@pytest.mark.parametrize("last", [TrainingEnded(Aggregate(), Progress(), ""), Interrupted(Aggregate(), Progress(), 15)])
def test_an_end_of_any_kind_closes(tmp_path: Path, last: object) -> None:
    """When the run is done, and when a signal came."""
    threads = set(threading.enumerate())
    board = TensorBoard(tmp_path)
    board.consume(ProcessStarted(learner(), Progress()))
    assert set(threading.enumerate()) - threads
    board.consume(last)
    assert set(threading.enumerate()) <= threads


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the thread's of TensorBoard
def test_a_disk_that_is_away_fails_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, and the curves go on when it is back: nothing that was on disk is hidden."""
    folder, aside = tmp_path / "run", tmp_path / "aside"
    breaker = Consumer("breaker")

    @breaker.handler
    def break_and_mend(event: EpochStarted) -> None:
        if event.progress.epoch == 2:
            folder.rename(aside)
            folder.write_text("no folder")
        if event.progress.epoch == 4:
            folder.unlink()
            aside.rename(folder)

    fit = training(TensorBoard(folder, losses=every(1, "batches")), breaker)
    fit.handle("fit", learner(), loaders(), epochs=6)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "curves have a gap" in caplog.text
    assert [step for step, _ in curve(folder / "train")] == [1, 2, 5, 6]
    steps = [step for step, _ in curve(folder, "batch/loss")]
    assert steps[:6] == [1, 2, 3, 4, 5, 6]
    assert steps[-6:] == [13, 14, 15, 16, 17, 18]


def test_a_disk_that_is_away_when_a_run_begins_is_refused(tmp_path: Path) -> None:
    """Before anything is trained."""
    (tmp_path / "run").write_text("no folder")
    model = learner()
    with pytest.raises((OSError, ExceptionGroup)):
        training(TensorBoard(tmp_path / "run")).handle("fit", model, loaders(), epochs=1)
    assert model.progress.batch == 0


def test_files_that_are_opened_in_one_second_are_read_in_order(tmp_path: Path) -> None:
    """TensorBoard reads them by name, so each must come after those before it."""
    names: list[str] = []
    for number in range(12):
        opened = files.Writers(tmp_path, Progress(batch=number))
        opened().add_scalar("value", number, number + 1)
        opened.close()
        [new] = {each.name for each in tmp_path.iterdir()} - set(names)
        names.append(new)
    assert names == sorted(names)
    assert curve(tmp_path, "value") == [(number + 1, number) for number in range(12)]


@pytest.mark.parametrize("name", ["..", "a/b", ".", "a\\b", "x "])
def test_a_split_that_cannot_be_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    """A name leads out of the folder of the run in no way."""
    with pytest.raises(UnsafeName, match="cannot be the name of a folder"):
        files.Writers(tmp_path, Progress())(name)


@pytest.mark.parametrize(
    "options", [{"losses": 10}, {"weights": "epoch"}, {"gradients": True}, {"examples": 0}, {"examples": "x"}]
)
def test_an_option_without_meaning_is_refused(options: dict[str, Any]) -> None:
    """When the listener is made."""
    with pytest.raises(InvalidOption):
        TensorBoard("runs", **options)


def test_the_state_of_one_is_taken_up_by_another() -> None:
    """What counts intervals goes on counting."""
    with tempfile.TemporaryDirectory() as folder, TensorBoard(folder, gradients=every(4, "batches")) as first:
        first.consume(GradientsUpdated(learner(), Progress(batch=3), "optimizer", 0, steps=True))
        second = TensorBoard(folder, gradients=every(4, "batches"))
        second.load_state_dict(first.state_dict())
        assert second.state_dict() == first.state_dict()
        json.dumps(first.state_dict())


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two runs of different learning rates; the second was resumed, and its first process came further."""
    folder = tmp_path_factory.mktemp("runs")
    for rate in (0.1, 0.5):
        layers = network()
        model = Supervised(layers, nn.CrossEntropyLoss(), optim.SGD(layers.parameters(), lr=rate))
        board = TensorBoard(folder / f"rate {rate}", losses=every(2, "batches"), weights=every(1, "epochs"))
        training(board).fit(model, loaders(), epochs=2)
        snapshot = model.snapshot()
        if rate == 0.5:
            training(board).fit(model, loaders(), epochs=5)
        training(board).fit(model.restore(snapshot), loaders(), epochs=4)
    return folder


def test_the_real_server_shows_the_run(two_runs: Path) -> None:
    """Its own loader finds every point once; its table of hyper-parameters has the final metrics."""
    with server(two_runs) as address:
        for run in ("rate 0.1", "rate 0.5"):
            folder = run.replace(" ", "%20")
            for series in ("train", "validation"):
                path = f"scalars/scalars?tag=loss&run={folder}%2F{series}"
                ask(address, "scalars/tags", until=lambda tags, key=f"{run}/{series}": key in tags)
                points = ask(address, path, until=lambda found: found and found[-1][1] == 4)
                assert [step for _, step, _ in points] == [1, 2, 3, 4]
            path = f"scalars/scalars?tag=batch%2Floss&run={folder}"
            points = ask(address, path, until=lambda found: found and found[-1][1] == 12)
            assert [step for _, step, _ in points] == list(range(1, 13))
        assert ask(address, "text/tags", until=lambda tags: "rate 0.5" in tags)["rate 0.5"]
        request = {"experimentName": "", "allowedStatuses": ["STATUS_UNKNOWN"], "startIndex": 0, "sliceSize": 9}
        groups = ask(address, "hparams/session_groups", body=request, until=lambda found: found["totalSize"] == 2)
    rows = {group["hparams"]["optimizer.lr"]: group for group in groups["sessionGroups"]}
    assert set(rows) == {0.1, 0.5}
    metrics = {(each["name"]["group"], each["name"]["tag"]): each for each in rows[0.5]["metricValues"]}
    final = curve(two_runs / "rate 0.5" / "validation")[-1]
    assert metrics["validation", "loss"]["value"] == pytest.approx(final[1])
    assert metrics["validation", "loss"]["trainingStep"] == 4


CHROMIUM = shutil.which("chromium")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_draws_the_curves(two_runs: Path, tmp_path: Path) -> None:
    """On one chart: both splits of the run, each with all its points, in colours of their own."""
    with server(two_runs / "rate 0.5") as address:
        for series in ("train", "validation"):
            path = f"scalars/scalars?tag=loss&run={series}"
            ask(address, path, until=lambda found: found and found[-1][1] == 4)
        page, paths = "", []
        for budget in (40_000, 80_000, 160_000, 320_000):  # milliseconds that the page believes to have
            page = _page(f"{address}/?tagFilter=%5Eloss%24#timeseries", budget, tmp_path)
            paths = re.findall(r'<path d="([^"]+)" style="fill: none; stroke: ([^;"]+)', page)
            if len({colour for _, colour in paths}) > 1:
                break
    assert len(re.findall("<scalar-card[ >]", page)) == 1
    assert len({colour for _, colour in paths}) == 2
    assert {len(re.findall("[ML]", drawn)) for drawn, _ in paths} == {4}
    assert all(name in page for name in ("train", "validation"))


def _page(address: str, budget: int, profile: Path) -> str:
    """Return what a browser makes of a page. Without WebGL, TensorBoard draws with elements that can be read."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-3d-apis", "--window-size=1400,900"]
    command = [
        str(CHROMIUM),
        *options,
        f"--user-data-dir={profile}",
        f"--virtual-time-budget={budget}",
        "--dump-dom",
        address,
    ]
    environment = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": "disabled:"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)  # noqa: S603 - all of it is ours
    return done.stdout
