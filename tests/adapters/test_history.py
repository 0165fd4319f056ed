"""The history: every metric as a record, through interruptions, in memory and in its file."""

from __future__ import annotations

import csv
import json
import logging
import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from tests.adapters import program
from tests.training.fakes import Learner, loader
from torchsystem.adapters.history import History
from torchsystem.adapters.records import FIELDS
from torchsystem.domain.continuation import attach
from torchsystem.errors import InvalidMetric, InvalidState, UnknownHome
from torchsystem.progress import Progress
from torchsystem.registry import fingerprint
from torchsystem.services import Consumer
from torchsystem.storage import Repository, Store
from torchsystem.training import Training, accuracy, device, metrics
from torchsystem.training.events import BatchEnded, EpochEnded, ProcessStarted, Trained, TrainingEnded, Validated
from torchsystem.training.run import under_way

HOUSE = Path(__file__).parents[2]
STEPS = 10  # of an epoch
WITH = [("state",), ("file",), ("state", "file")]  # what a process that goes on finds


def training_of(*listeners: Any) -> Training:
    """Make a training with listeners."""
    training = Training()
    training.override(device, lambda: "cpu")
    training.producer.register(*listeners)
    return training


def moment(epoch: int, step: int | None = None) -> Progress:
    """Say where a run is that has finished so many epochs."""
    step = epoch * STEPS if step is None else step
    return Progress(epoch=epoch, batch=step, step=step)


def live(history: History, epochs: range) -> dict[int, dict[str, Any]]:
    """Let a history hear of epochs; return its state after each, as a checkpoint would have it."""
    learner, states = Learner(), {}
    history.consume(ProcessStarted(learner, moment(epochs.start)))
    for epoch in epochs:
        history.consume(Trained(learner, moment(epoch, (epoch + 1) * STEPS), {"loss": 1 / (epoch + 1)}))
        history.consume(Validated(learner, moment(epoch, (epoch + 1) * STEPS), "validation", {"loss": 2.0, "f1": 0.5}))
        history.consume(EpochEnded(learner, moment(epoch + 1), {}))
        states[epoch + 1] = json.loads(json.dumps(history.state_dict()))
    return states


def without_time(records: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return records without the time, on which no two runs agree."""
    return [tuple(record[field] for field in FIELDS if field != "time") for record in records]


def facts(history: History) -> list[tuple[Any, ...]]:
    """Return what a history holds, but for the time."""
    return without_time(history.records)


def lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines as anybody would."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_metric_of_a_training_is_a_record() -> None:
    """With its epoch, step, phase and time, whatever the split is called."""
    history = History(now=lambda: 7.0)
    training = training_of(history)
    training.override(metrics, lambda: {"accuracy": accuracy})
    told = training.handle("fit", Learner(), {"train": loader(), "validation": loader(1), "odd": loader(2)}, epochs=2)
    expected = [
        {"epoch": number, "step": number * 3, "phase": phase, "metric": metric, "value": epoch[f"{phase}/{metric}"]}
        for number, epoch in enumerate(told, start=1)
        for phase in ("train", "validation", "odd")
        for metric in ("accuracy", "loss")
    ]
    by_name = sorted(history.records, key=lambda record: (record["epoch"], record["metric"]))
    assert all(record["time"] == 7.0 for record in history.records)
    assert [{**record, "time": 7.0} for record in by_name] == sorted(
        ({**record, "time": 7.0} for record in expected), key=lambda record: (record["epoch"], record["metric"])
    )


def test_batches_are_not_listened_to() -> None:
    """An event per batch that nobody hears is not even built."""
    assert not training_of(History()).producer.wants(BatchEnded)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), max_size=5), st.sampled_from(WITH))
@settings(max_examples=40)
def test_a_run_that_goes_on_has_neither_gaps_nor_doubles(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, int]], with_: tuple[str, ...]
) -> None:
    """However often a process is killed, and however old the checkpoint that it goes on from."""
    folder = tmp_path_factory.mktemp("history") if "file" in with_ else None
    left_alone = History()
    live(left_alone, range(8))
    history, done = History(folder), 0
    states = live(history, range(2))
    states[0] = History().state_dict()
    done = 2
    for back, ahead in cuts:
        start = max(0, done - back)
        if "state" in with_:
            history = History(folder)
            history.load_state_dict(states[start])
        elif start > 0:
            history = History(folder)  # nothing but its file
        done = min(8, start + ahead)
        states |= live(history, range(start, done))
    live(history, range(done, 8))
    assert facts(history) == facts(left_alone)
    if folder is not None:
        assert lines(folder / "history.jsonl") == history.records


def test_the_file_says_what_the_state_says_after_a_kill(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It was ahead of the checkpoint, and its last line was not written whole."""
    history = History(tmp_path)
    states = live(history, range(4))
    file = tmp_path / "history.jsonl"
    with file.open("a") as stream:
        stream.write('{"epoch": 5, "st')
    resumed = History(tmp_path)
    resumed.load_state_dict(states[2])
    resumed.consume(ProcessStarted(Learner(), moment(2)))
    assert lines(file) == resumed.records == history.records[:6]
    without_state = History(tmp_path)
    with file.open("a") as stream:
        stream.write(json.dumps({**history.records[6], "time": 1.0}) + '\n{"epoch": 5, "st')
    with caplog.at_level(logging.WARNING):
        without_state.consume(ProcessStarted(Learner(), moment(2)))
    assert "drops 1 records: the run goes on from epoch 2" in caplog.text
    assert lines(file) == without_state.records == history.records[:6]


def test_a_checkpoint_within_an_epoch_keeps_what_was_measured_of_it() -> None:
    """And what is measured of it again, at the same step, replaces it."""
    history, learner = History(), Learner()
    live(history, range(1))
    history.consume(Trained(learner, moment(1, 20), {"loss": 0.5}))
    resumed = History()
    resumed.load_state_dict(history.state_dict())
    resumed.consume(ProcessStarted(learner, moment(1, 20)))
    assert resumed.records == history.records
    resumed.consume(Trained(learner, moment(1, 20), {"loss": 0.5}))
    assert facts(resumed) == facts(history)
    earlier = History()
    earlier.load_state_dict(history.state_dict())
    earlier.consume(ProcessStarted(learner, moment(1, 15)))
    assert facts(earlier) == facts(history)[:-1]


def test_a_run_that_begins_anew_puts_the_file_of_another_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that was measured is overwritten in silence."""
    live(History(tmp_path), range(2))
    before = lines(tmp_path / "history.jsonl")
    for number in (1, 2):
        with caplog.at_level(logging.WARNING):
            live(History(tmp_path), range(1))
        assert f"history-{number}.jsonl" in caplog.text
    assert lines(tmp_path / "history-1.jsonl") == before
    history = History(tmp_path / "one")
    for _ in range(2):
        live(history, range(1))  # for one model after the other
    assert len(history.records) == len(lines(tmp_path / "one" / "history-1.jsonl")) == 3
    history.consume(ProcessStarted(Learner(), Progress()))
    History(tmp_path / "one").consume(ProcessStarted(Learner(), Progress()))  # where there is nothing, nothing is moved
    assert len(list((tmp_path / "one").iterdir())) == 3
    assert len(lines(tmp_path / "history.jsonl")) == len(lines(tmp_path / "history-2.jsonl")) == 3


def test_the_same_line_again_changes_nothing(tmp_path: Path) -> None:
    """A finished run that is started once more has the same records."""
    history = History(tmp_path)
    live(history, range(2))
    before = list(history.records)
    again = History(tmp_path)
    again.consume(ProcessStarted(Learner(), moment(2)))
    again.consume(TrainingEnded(Learner(), moment(2), "2 epochs are done"))
    assert again.records == before == lines(tmp_path / "history.jsonl")


def test_a_split_that_is_gone_through_alone_belongs_to_the_epoch_before() -> None:
    """Before a run to none, after one to the last, and it stays beside what that epoch itself came to."""
    history, learner, loaders = History(), Learner(), {"train": loader(), "validation": loader(1)}
    training = training_of(history)
    training.handle("validate", learner, loader(1))
    training.handle("fit", learner, loaders, epochs=2)
    training.handle("validate", learner, loader(1, samples=2))
    training.handle("fit", learner, loaders, epochs=3)
    training.handle("validate", learner, loader(1, samples=2))
    assert history.series("loss")["train"][0] == [1, 2, 3]
    assert history.series("loss")["validation"][0] == [0, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("value", ["high", None, [1.0], torch.zeros(3)])
def test_a_metric_that_is_no_number_is_named(value: Any) -> None:
    """Where it is reported, and not as a line of Python's."""
    history = History()
    with pytest.raises(InvalidMetric, match="metric 'f1' is reported as"):
        history.consume(Trained(Learner(), moment(0), {"f1": value}))
    assert history.records == []


def test_what_was_measured_before_a_run_stays_in_its_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is no other run's, which would be put aside."""
    history, learner = History(tmp_path), Learner()
    training = training_of(history)
    training.handle("validate", learner, loader(1))
    training.handle("fit", learner, {"train": loader()}, epochs=2)
    assert [path.name for path in tmp_path.iterdir()] == ["history.jsonl"]
    assert [line["epoch"] for line in lines(tmp_path / "history.jsonl")] == [0, 1, 2]
    assert caplog.records == []


def test_a_disk_that_is_away_fails_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said; and when it is back, the file has everything. Before anything was done, it is refused."""
    folder = tmp_path / "disk"
    folder.write_text("no folder")
    history = History(folder)
    with pytest.raises(FileExistsError):
        live(history, range(1))
    folder.unlink()
    live(history, range(1))
    folder.rename(tmp_path / "away")
    folder.write_text("no folder")
    with caplog.at_level(logging.WARNING):
        history.consume(Trained(Learner(), moment(1, 20), {"loss": 1.0, "odd": 1.0, "even": 1.0}))
    assert "cannot write its records, and tries again later" in caplog.text
    folder.unlink()
    history.consume(TrainingEnded(Learner(), moment(2), "over"))
    assert lines(folder / "history.jsonl") == history.records
    assert len(history.records) == 6


def test_a_history_of_an_experiment_that_is_not_known_is_refused() -> None:
    """Told a part of where to write, and never the rest, it does not quietly keep everything in memory."""
    with pytest.raises(UnknownHome, match=r"History\(path=...\)"):
        History(project="digits").consume(ProcessStarted(Learner(), Progress()))
    assert History().file is None


def test_csv_json_and_pandas_say_the_same(tmp_path: Path) -> None:
    """Titles, types and order included, with numbers that are infinite or none; any folder is made."""
    history, learner = History(now=lambda: 1.5), Learner()
    values = {"loss": 0.1 + 0.2, "perplexity": math.inf, "odd, name": -math.inf, "auc": math.nan}
    history.consume(Trained(learner, moment(0, 3), values))
    with history.csv(tmp_path / "new" / "history.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    text = history.jsonl(tmp_path / "a.jsonl").read_text(encoding="utf-8")
    read = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    frame = history.frame()
    assert list(rows[0]) == list(read[0]) == list(frame.columns) == list(FIELDS)
    assert [str(float(row["value"])) for row in rows] == [str(value) for value in values.values()]
    assert [str(float(row["value"])) for row in read] == [str(value) for value in values.values()]
    assert [str(value) for value in frame["value"]] == [str(value) for value in values.values()]
    assert str(frame["epoch"].dtype) == str(frame["step"].dtype) == "int64"
    assert list(History().frame().columns) == list(FIELDS)
    again = History(tmp_path / "state")
    (tmp_path / "state").mkdir()
    (tmp_path / "a.jsonl").rename(tmp_path / "state" / "history.jsonl")
    again.consume(ProcessStarted(learner, moment(1, 3)))
    assert str(again.records) == str(history.records)


def test_what_is_no_history_is_refused(tmp_path: Path) -> None:
    """A state or a file of something else is named, and nothing is changed."""
    history = History()
    live(history, range(1))
    before = list(history.records)
    columns = history.state_dict()["records"]
    for wrong in (
        {},
        {"records": {}},
        {"records": {**columns, "value": [1.0]}},
        {"records": {**columns, "value": "abc"}},
    ):
        with pytest.raises(InvalidState, match="history"):
            history.load_state_dict({"handlers": {}, **wrong})
    assert history.records == before
    for content in (b'{"epoch": 1}\n', b"\xff\xfe\n"):
        (tmp_path / "history.jsonl").write_bytes(content)
        with pytest.raises(InvalidState, match=r"history\.jsonl, line 1"):
            History(tmp_path).consume(ProcessStarted(Learner(), moment(1)))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Store]]:
    """Let a process train, mirrored by a server of S3, and be killed; return what is left here, and there."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = {"endpoint_url": f"http://{host}:{port}", "region_name": "eu-west-1"}
    options: dict[str, Any] = {"key": "nobody", "secret": "nothing", "client_kwargs": endpoint}
    fsspec.filesystem("s3", **options).mkdir(name := f"mirrors-{uuid4().hex}")
    here = tmp_path_factory.mktemp("here")
    done = subprocess.run(  # noqa: S603 - our own interpreter, our own program
        [sys.executable, "-m", "tests.adapters.program", str(here), f"s3://{name}/runs", json.dumps(options)],
        cwd=HOUSE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    yield here, Store(f"s3://{name}/runs", options=options)
    server.stop()


def test_a_process_that_is_killed_goes_on_with_its_history(killed: tuple[Path, Store], tmp_path: Path) -> None:
    """With real checkpoints, in the folder of an experiment, by the same line: the file is that of one run."""
    whole, learner = History(), Learner()
    training_of(whole).handle("fit", learner, {"train": loader(4), "validation": loader(2)}, epochs=6)
    shutil.copytree(killed[0], tmp_path, dirs_exist_ok=True)
    assert fingerprint(program.main(tmp_path)) == fingerprint(learner)
    assert without_time(lines(tmp_path / "p/e/r/history/history.jsonl")) == without_time(whole.records)
    assert (tmp_path / "p/e/r/plots/loss.png").exists()


def test_a_run_whose_machine_is_gone_goes_on_from_its_mirror(killed: tuple[Path, Store], tmp_path: Path) -> None:
    """On another machine, from a copy of what was mirrored: weights and history are those of a run left alone."""
    whole, learner, there = History(), Learner(), killed[1]
    training_of(whole).handle("fit", learner, {"train": loader(4), "validation": loader(2)}, epochs=6)
    for key in there.keys():  # noqa: SIM118 - a store is no dictionary
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(there.get(key))
    with Repository(tmp_path / "p/e/r/checkpoints") as repository:
        assert 5 <= repository.restore(Learner()).progress.batch <= 10
    assert fingerprint(program.main(tmp_path)) == fingerprint(learner)
    assert without_time(lines(tmp_path / "p/e/r/history/history.jsonl")) == without_time(whole.records)


def test_a_training_that_is_cut_at_any_batch_goes_on_with_its_history(tmp_path: Path) -> None:
    """Killed after any batch of any epoch, and continued from what was kept there: the records are those of one run."""
    loaders = {"train": loader(), "validation": loader(2)}
    whole, kept = History(tmp_path / "whole"), list[tuple[Any, Any]]()
    keeper = Consumer()

    @keeper.handler
    def keep(event: BatchEnded) -> None:
        run = under_way(event.aggregate)
        assert run is not None
        run.when_safe(lambda: kept.append((run.state(), event.aggregate.snapshot())))

    training = training_of(whole)
    with training.producer.connected(keeper):
        training.handle("fit", Learner(), loaders, epochs=3)
    assert len(kept) == 9
    for number, (run, snapshot) in enumerate(kept):
        folder = tmp_path / str(number)
        folder.mkdir()
        (tmp_path / "whole" / "history.jsonl").rename(folder / "history.jsonl")  # it is ahead of what was kept
        history, learner = History(folder), Learner()
        learner.restore(snapshot)
        attach(learner, run)
        training_of(history).handle("fit", learner, loaders, epochs=3)
        assert facts(history) == facts(whole)
        assert lines(folder / "history.jsonl") == history.records
        (folder / "history.jsonl").rename(tmp_path / "whole" / "history.jsonl")
