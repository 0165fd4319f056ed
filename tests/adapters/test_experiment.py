"""Experiments: one folder for one identity, one process for one folder, and one home for all listeners."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.training.fakes import Learner, loader
from torchsystem.adapters.experiment import Experiment
from torchsystem.adapters.history import History
from torchsystem.adapters.plots import Plots
from torchsystem.adapters.residents import Resident
from torchsystem.adapters.tensorboard import TensorBoard
from torchsystem.errors import (
    ExperimentClosed,
    FolderInUse,
    ForeignFolder,
    InvalidListener,
    InvalidMirror,
    InvalidOption,
    InvalidStore,
    LeaseLost,
    OutsideRoot,
    SharedFolder,
    TwoHomes,
    UnknownHome,
    UnsafeName,
)
from torchsystem.progress import Progress
from torchsystem.services import (
    FOREVER,
    Consumer,
    Depends,
    Mailbox,
    Producer,
    background,
    deferred,
    event,
    handler,
    mailbox,
)
from torchsystem.storage import Layout, Repository, Retention, Store
from torchsystem.storage.lease import Lease
from torchsystem.training import Training, device
from torchsystem.training.events import EpochEnded, EpochStarted, Trained, TrainingEnded
from torchsystem.triggers import every


@event
class Noted:
    """Something is to be noted."""

    text: str


class Notes(Resident):
    """A listener that writes notes."""

    kind = "notes"

    @handler
    def note(self, event: Noted) -> None:
        """Write a note."""
        (self.folder / "notes.txt").write_text(event.text)


def test_the_same_identity_is_the_same_folder(tmp_path: Path) -> None:
    """Whenever it is opened: no date and no counter, so that a run goes on where it was."""
    for _ in range(2):
        with Experiment("digits", "baseline", "first", storage=tmp_path) as experiment:
            assert experiment.folder == tmp_path / "digits/baseline/first"
            assert experiment.folder.is_dir()
    with Experiment("digits", "baseline", "second", storage=tmp_path) as experiment:
        assert experiment.folder == tmp_path / "digits/baseline/second"


def test_it_says_whose_folder_it_is(tmp_path: Path) -> None:
    """Since when, and who has it now; the first is kept when it is opened again."""
    with Experiment("digits", "baseline", "first", storage=tmp_path, clock=lambda: 0.0) as experiment:
        first = json.loads((experiment.folder / "experiment.json").read_text())
    with Experiment("digits", "baseline", "first", storage=tmp_path, clock=lambda: 60.0) as experiment:
        second = json.loads((experiment.folder / "experiment.json").read_text())
    assert (first["project"], first["experiment"], first["run"]) == ("digits", "baseline", "first")
    assert first["by"]["process"] == os.getpid()
    assert first["created"] == second["created"] == first["opened"] == "1970-01-01T00:00:00+00:00"
    assert second["opened"] == "1970-01-01T00:01:00+00:00"


def test_a_folder_that_was_copied_is_refused(tmp_path: Path) -> None:
    """What is in it belongs to another run; and it can be opened by the right name afterwards."""
    with Experiment("digits", "baseline", "first", storage=tmp_path):
        pass
    (tmp_path / "digits/baseline/first").rename(tmp_path / "digits/baseline/second")
    for _ in range(2):
        with pytest.raises(ForeignFolder, match="'run': 'first'"):
            Experiment("digits", "baseline", "second", storage=tmp_path)


HOLDER = """
import sys
from torchsystem.adapters.experiment import Experiment
experiment = Experiment("digits", "baseline", "first", storage=sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    """It names the first; one that was killed does not keep anybody out."""
    holder = subprocess.Popen(  # noqa: S603 - our own interpreter, our own program
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(FolderInUse, match=f"process {holder.pid} on"):
            Experiment("digits", "baseline", "first", storage=tmp_path)
        with Experiment("digits", "baseline", "second", storage=tmp_path):
            holder.kill()
    with Experiment("digits", "baseline", "first", storage=tmp_path) as experiment:
        experiment.check()


def test_a_second_in_the_same_process_is_refused(tmp_path: Path) -> None:
    """Until the first is closed."""
    with Experiment("digits", "baseline", "first", storage=tmp_path):
        with pytest.raises(FolderInUse, match="in this process"):
            Experiment("digits", "baseline", "first", storage=tmp_path)
        with pytest.raises(FolderInUse, match="in this process"):
            Experiment("digits", "baseline", "first", storage=tmp_path)
    with Experiment("digits", "baseline", "first", storage=tmp_path):
        pass


RANK = """
import sys
from pathlib import Path
from torchsystem.adapters.experiment import Experiment
from torchsystem.adapters.history import History
from torchsystem.adapters.plots import Plots
from torchsystem.adapters.residents import Resident
from torchsystem.adapters.tensorboard import TensorBoard
from torchsystem.services import Producer, event, handler

@event
class Noted:
    text: str

class Notes(Resident):
    kind = "notes"
    @handler
    def note(self, event: Noted) -> None:
        (self.folder / "notes.txt").write_text(event.text)

with Experiment("digits", "baseline", "first", storage=sys.argv[1]) as experiment:
    producer = Producer()
    experiment.register(producer, Notes())
    producer.dispatch(Noted("x"))
"""


def test_the_leader_has_it_for_all_ranks(tmp_path: Path) -> None:
    """Another rank is not refused, and its listeners do not write into the one folder."""
    with Experiment("digits", "baseline", "first", storage=tmp_path) as experiment:
        done = subprocess.run(  # noqa: S603 - our own interpreter, our own program
            [sys.executable, "-c", RANK, str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "RANK": "1"},
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert not (experiment.folder / "notes").exists()
        experiment.check()


@pytest.mark.parametrize("told", list(product([True, False], repeat=4)))
def test_listeners_inherit_what_they_were_not_told_one_by_one(told: tuple[bool, ...], tmp_path: Path) -> None:
    """Project, experiment, run and storage: each is theirs if it was told, and the experiment's if not."""
    own = {"storage": tmp_path / "own", "project": "letters", "experiment": "other", "run": "second"}
    theirs = {"storage": tmp_path / "theirs", "project": "digits", "experiment": "baseline", "run": "first"}
    given = {name: value for (name, value), is_told in zip(own.items(), told, strict=True) if is_told}
    with Experiment("digits", "baseline", "first", storage=theirs["storage"]) as experiment:
        producer = Producer()
        experiment.register(producer, Notes(**given))  # type: ignore[arg-type]
        producer.dispatch(Noted("hello"))
    expected = Path(*({**theirs, **given}[name] for name in theirs), "notes", "notes.txt")
    assert [path for path in tmp_path.rglob("notes.txt")] == [expected]  # noqa: C416


def test_listeners_are_plugged_in_in_order_and_all_or_none(tmp_path: Path) -> None:
    """Those that write and those that do not; and those that were there stay."""
    producer, first, notes, last = Producer(), Consumer("first"), Notes("notes"), Consumer("last")
    with Experiment("digits", "baseline", "first", storage=tmp_path) as experiment:
        producer.register(last)
        with pytest.raises(InvalidListener):
            experiment.register(producer, first, notes, last, object())  # type: ignore[arg-type]
        assert producer.listeners() == [last]
        producer.unregister(last)
        experiment.register(producer, first, notes, last)
        assert producer.listeners()[:-1] == [first, notes, last]  # and its own
    with (
        Experiment("digits", "baseline", "second", storage=tmp_path) as other,
        pytest.raises(TwoHomes, match="one listener for each"),
    ):
        other.register(Producer(), notes)


def test_its_store_writes_for_it(tmp_path: Path) -> None:
    """Bound to its project, name and run; what was written to paths is recorded when it is closed."""
    layout = Layout(predictions="{project}/{experiment}/{run}/predictions/{split}_{number}.json")
    with Experiment("digits", "baseline", "first", storage=tmp_path, layout=layout) as experiment:
        path = experiment.store.path("predictions", split="test")
        path.write_text("[]")
    assert path == tmp_path / "digits/baseline/first/predictions/test_1.json"
    (line,) = experiment.store.ledger()
    assert (line.by, line.size) == ("digits/baseline/first", 2)


def test_its_folder_is_mirrored(tmp_path: Path) -> None:
    """What its listeners write is elsewhere when it is closed."""
    there = Store(f"memory://{uuid4().hex}")
    with Experiment("digits", "baseline", "first", storage=tmp_path, mirror=there) as experiment:
        producer = Producer()
        experiment.register(producer, Notes())
        producer.dispatch(Noted("hello"))
    assert there.keys() == ["digits/baseline/first/experiment.json", "digits/baseline/first/notes/notes.txt"]


def test_checkpoints_can_be_restored_from_the_mirror(tmp_path: Path) -> None:
    """While new ones are saved and old ones removed: all that the mirror holds are whole, and the last is there."""
    there = Store(f"memory://{uuid4().hex}")
    model = Learner()
    with Experiment("digits", "baseline", "first", storage=tmp_path / "here", mirror=there) as experiment:
        assert experiment.mirror is not None
        with Repository(experiment.folder / "checkpoints", retention=Retention(keep_last=2)) as repository:
            for epoch in range(1, 6):
                model.epoch = epoch
                repository.save(model)
                experiment.mirror.tell("checkpoints")
    for key in there.keys():  # noqa: SIM118 - a store is no dictionary
        path = tmp_path / "back" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(there.get(key))
    other = Learner()
    with Repository(tmp_path / "back/digits/baseline/first/checkpoints") as copied:
        assert len(copied.verify(other)) >= 2
        assert copied.restore(other) is other
    assert other.epoch == 5


@pytest.mark.parametrize("name", ["..", "a/b", "", "a:b"])
def test_a_name_that_is_not_one_folder_is_refused(name: str, tmp_path: Path) -> None:
    """By the word that it stands for, and before anything is made."""
    for identity in [(name, "b", "c"), ("a", name, "c"), ("a", "b", name)]:
        with pytest.raises(UnsafeName, match=f"={name!r}"):
            Experiment(*identity, storage=tmp_path)
    with pytest.raises(UnknownHome, match="Mirror"):
        Experiment("a", "b", "c", storage="s3://bucket")
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_leads_out_of_the_storage_is_refused(tmp_path: Path) -> None:
    """Before anything is made at its other end."""
    (tmp_path / "storage").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "storage" / "digits").symlink_to(tmp_path / "outside")
    with pytest.raises(OutsideRoot, match="symbolic link"):
        Experiment("digits", "baseline", "first", storage=tmp_path / "storage")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_rank_that_is_named_counts(tmp_path: Path) -> None:
    """Rank 0 is a rank, and not nothing."""
    with Experiment("digits", "baseline", "first", storage=tmp_path) as experiment:
        producer = Producer()
        experiment.register(producer, notes := Notes(), where=0)
        producer.register(notes, where=0)
        with pytest.raises(InvalidOption):
            producer.register(notes, where="leader")


class Reader(Consumer):
    """A listener that reads what others left in the mailbox."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.read: list[list[str]] = []

    @handler(order=100)
    def look(self, event: TrainingEnded | EpochEnded, box: Mailbox = Depends(mailbox)) -> None:  # noqa: ARG002
        """Read it."""
        self.read.append([Path(path).name for path in box.read("pictures")])


def training_of() -> Training:
    """Make a training on the CPU."""
    training = Training()
    training.override(device, lambda: "cpu")
    return training


def test_its_listeners_share_a_mailbox_unless_they_were_given_one(tmp_path: Path) -> None:
    """Who draws and who reads what was drawn need not be joined by hand; a binding of the user's own is left alone."""
    plots, reader, other, own = Plots(when=every(1, "epochs")), Reader("reader"), Reader("other"), Mailbox()
    own.write("pictures", "own.png", keep=FOREVER)
    other.dependency_overrides[mailbox] = lambda: own
    training = training_of()
    with Experiment("digits", "baseline", "first", storage=tmp_path) as experiment:
        experiment.register(training.producer, plots, reader, other)
        training.handle("fit", Learner(), {"train": loader()}, epochs=3)
        assert experiment.mailbox.read("pictures") == [str(tmp_path / "digits/baseline/first/plots/loss.png")] * 2
    assert reader.read == [["loss.png"], ["loss.png"], ["loss.png"], ["loss.png"] * 2]  # each epoch its own
    assert other.read == [["own.png"]] * 4
    with Experiment("digits", "baseline", "second", storage=tmp_path) as second:
        second.register(training.producer, reader)
        second.mailbox.write("pictures", "new.png")
        training.producer.dispatch(TrainingEnded(Learner(), Progress(), "over"))
    assert reader.read[-1] == ["new.png"]


def test_what_was_left_before_a_run_is_there_in_its_first_epoch(tmp_path: Path) -> None:
    """Messages of an epoch go when the next one begins, and not before there was one."""
    producer, learner = Producer(), Learner()
    with Experiment("digits", "baseline", "first", storage=tmp_path) as experiment:
        experiment.register(producer)
        experiment.mailbox.write("seed", 1)
        producer.dispatch(EpochStarted(learner, Progress()))
        assert experiment.mailbox.read("seed") == [1]
        producer.dispatch(EpochEnded(learner, Progress(epoch=1), {}))
        assert experiment.mailbox.read("seed") == [1]
        producer.dispatch(EpochStarted(learner, Progress(epoch=1)))
        assert experiment.mailbox.read("seed") == []


def test_a_run_whose_folder_was_taken_over_ends_by_name(tmp_path: Path) -> None:
    """At the end of the epoch in which that happened, and with the very error."""
    training, learner = training_of(), Learner()
    thief = Consumer("thief")

    @thief.handler
    def steal(event: Trained) -> None:
        if event.progress.epoch == 1:
            (lease,) = experiment.folder.glob(".lease-*.json")
            lease.unlink()
            Lease(experiment.folder).take()
            owner = json.loads((taken := next(experiment.folder.glob(".lease-*.json"))).read_text())
            taken.rename(experiment.folder / ".lease-000007.json").write_text(json.dumps({**owner, "process": 1}))

    with Experiment("digits", "baseline", "first", storage=tmp_path) as experiment:
        for _ in range(2):
            experiment.register(training.producer, thief)
        assert len(training.producer.listeners()) == 2  # its own is plugged in once
        with pytest.raises(LeaseLost, match="was taken over by"):
            training.handle("fit", learner, {"train": loader()}, epochs=5)
    assert learner.epoch == 2


@pytest.mark.parametrize("content", ["{", "[]", "3", '"text"', ""])
def test_a_record_that_cannot_be_read_is_written_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    """It says whose folder it is; the folder itself is where it has to be. That it was broken is said."""
    with Experiment("digits", "baseline", "first", storage=tmp_path) as experiment:
        record = experiment.folder / "experiment.json"
    record.write_text(content)
    with Experiment("digits", "baseline", "first", storage=tmp_path):
        assert json.loads(record.read_text())["project"] == "digits"
    assert "written anew" in caplog.text


def test_a_closed_experiment_has_no_listeners(tmp_path: Path) -> None:
    """Another run of the same producer does not write into the folder of the one before; what was there stays."""
    training, there = training_of(), Consumer("there")
    training.producer.register(there)
    for run in ("first", "second"):
        with Experiment("digits", "baseline", run, storage=tmp_path) as experiment:
            experiment.register(training.producer, History(), there)
            training.handle("fit", Learner(), {"train": loader()}, epochs=2)
            training.producer.unregister(training.producer.listeners()[1]) if run == "second" else None
        assert training.producer.listeners() == [there]
    for run in ("first", "second"):
        assert len((tmp_path / "digits/baseline" / run / "history/history.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("kind", [History, TensorBoard])
def test_two_listeners_do_not_write_into_the_same_files(kind: type[Resident], tmp_path: Path) -> None:
    """Each value would be there twice, whatever they are called: it is refused where they are plugged in."""
    producer = Producer()
    with Experiment("digits", "baseline", "first", storage=tmp_path) as experiment:
        experiment.register(producer, first := kind())
        with pytest.raises(SharedFolder, match="files of"):
            experiment.register(producer, kind(name="second"))
        experiment.register(producer, first, kind(name="third", path=tmp_path / "third"), kind(name="4", run="4"))
        assert len(producer.listeners()) == 4  # with its own
        experiment.register(producer, Notes("a"), Notes("b"))


def test_what_has_no_meaning_is_refused_and_claims_nothing(tmp_path: Path) -> None:
    """An address for a store, a mirror inside of what it mirrors, a service for its producer."""
    identity = ("digits", "baseline", "first")
    with pytest.raises(InvalidOption, match=r"mirror=Store\('s3:"):
        Experiment(*identity, storage=tmp_path, mirror="s3://bucket")  # type: ignore[arg-type]
    with pytest.raises(InvalidStore, match="no layout"):
        Experiment(*identity, storage=tmp_path, layout={"a": "b"})  # type: ignore[arg-type]
    with pytest.raises(InvalidMirror):
        Experiment(*identity, storage=tmp_path, mirror=Store(tmp_path / "digits/baseline/first/mirror"))
    with Experiment(*identity, storage=tmp_path) as experiment:
        for wrong in (training_of(), History()):
            with pytest.raises(InvalidOption, match=r"training\.producer"):
                experiment.register(wrong, History())  # type: ignore[arg-type]


def test_a_disk_that_is_away_fails_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """That nobody can tell whose the folder is does not mean that it is another's."""
    training, breaker = training_of(), Consumer("breaker")

    @breaker.handler
    def take_away(event: Trained) -> None:
        if event.progress.epoch == 1:
            experiment.folder.rename(tmp_path / "away")
        if event.progress.epoch == 2:
            (tmp_path / "away").rename(experiment.folder)

    with Experiment("digits", "baseline", "first", storage=tmp_path) as experiment:
        experiment.register(training.producer, breaker)
        assert len(training.handle("fit", Learner(), {"train": loader()}, epochs=4)) == 4
    assert caplog.text.count("cannot be told") == 1


def test_what_is_closed_says_so(tmp_path: Path) -> None:
    """Rather than to write into a folder that may be another's."""
    with Experiment("digits", "baseline", "first", storage=tmp_path) as experiment:
        pass
    with pytest.raises(ExperimentClosed, match=r"no register\(\)"):
        experiment.register(Producer(), Notes())
    with pytest.raises(ExperimentClosed, match=r"no check\(\)"):
        experiment.check()
    experiment.close()


@pytest.mark.parametrize("delivery", [background(), deferred])
def test_what_waits_for_its_listeners_is_delivered_before_it_is_closed(delivery: Any, tmp_path: Path) -> None:
    """What they write then is mirrored, and written while the folder is theirs."""
    there, producer = Store(f"memory://{uuid4().hex}"), Producer()
    with Experiment("digits", "baseline", "first", storage=tmp_path, mirror=there) as experiment:
        experiment.register(producer, Notes(), delivery=delivery)
        producer.dispatch(Noted("late"))
    assert there.get("digits/baseline/first/notes/notes.txt") == b"late"


def test_a_listener_that_fails_in_the_background_keeps_no_folder(tmp_path: Path) -> None:
    """Its failure is raised when the experiment is closed, which lets go of the folder all the same."""
    producer, failing = Producer(), Consumer("failing")

    @failing.handler
    def fail(event: Noted) -> None:
        raise ValueError(event.text)

    with (
        pytest.raises(ValueError, match="late"),
        Experiment("digits", "baseline", "first", storage=tmp_path) as experiment,
    ):
        experiment.register(producer, failing, delivery=deferred)
        producer.dispatch(Noted("late"))
    with Experiment("digits", "baseline", "first", storage=tmp_path):
        assert producer.listeners() == []
