"""The repository: what is saved comes back whole, or is said to be broken."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from collections.abc import Iterable
from contextlib import chdir
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from tests.storage.models import Learner, advance, told
from torchsystem import Aggregate
from torchsystem.domain.continuation import take
from torchsystem.errors import (
    BrokenCheckpoint,
    InvalidFigure,
    InvalidRepository,
    InvalidRetention,
    MetadataMismatch,
    SnapshotMismatch,
    UnknownCheckpoint,
    UnknownFormat,
    Unnameable,
    Unstorable,
)
from torchsystem.progress import Progress
from torchsystem.registry import gethash, register
from torchsystem.storage import Checkpoint, Repository, Retention, SkippedCheckpoint
from torchsystem.storage.checkpoint import to_manifest
from torchsystem.storage.codec import to_json
from torchsystem.storage.ports import Chunk, LocalFiles


def nested() -> Tensor:
    """Make a tensor of tensors."""
    return torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged)


PARTS = ["modules.safetensors", "state.safetensors", "state.json"]


def saved(root: Path, *epochs: int) -> list[Checkpoint]:
    """Save a state for each epoch."""
    with Repository(root) as repository:
        return [checkpoint for epoch in epochs if (checkpoint := repository.save(advance(Learner(), epoch)))]


def test_a_whole_state_comes_back(tmp_path: Path) -> None:
    """Modules, optimizer, scheduler, epoch and phase, into the very object that was given, to the bit."""
    learner = Learner()
    for _ in range(3):
        learner.criterion(learner.nn(torch.randn(4, 2)), torch.tensor([0, 1, 0, 1])).backward()
        learner.optimizer.step()
        learner.scheduler.step()
    learner.epoch = 3
    learner.phase = "evaluation"
    with Repository(tmp_path) as repository:
        repository.save(learner)
        other = Learner()
        assert repository.restore(other) is other
    assert (other.epoch, other.phase) == (3, "evaluation")
    assert str(other.snapshot()) == str(learner.snapshot())
    assert all(map(torch.equal, other.parameters(), learner.parameters()))


def test_without_a_checkpoint_it_is_as_it_came(tmp_path: Path) -> None:
    """The first start of a program is like any other; and reading makes no folders."""
    learner = advance(Learner(), 7)
    assert Repository(tmp_path / "runs").restore(learner) is learner
    assert told(learner) == {7.0}
    assert Repository(tmp_path / "runs").checkpoints(learner) == []
    assert list(tmp_path.iterdir()) == []


def test_the_newest_is_restored_unless_another_is_asked_for(tmp_path: Path) -> None:
    """By its number, or as it was listed; one that is not there is an error."""
    saved(tmp_path, 1, 2, 3)
    repository = Repository(tmp_path)
    assert repository.restore(Learner()).epoch == 3
    assert repository.restore(Learner(), checkpoint=1).epoch == 1
    assert repository.restore(Learner(), checkpoint=repository.checkpoints(Learner())[1]).epoch == 2
    with pytest.raises(UnknownCheckpoint, match=r"no checkpoint 9 of learner in run default\. There are: 1, 2, 3"):
        repository.restore(Learner(), checkpoint=9)


def test_a_checkpoint_says_what_it_is(tmp_path: Path) -> None:
    """Id, run, number, progress, metrics and metadata are in the manifest, and read back as they were."""
    learner = advance(Learner(), 2)
    learner.initialize("baseline")
    metrics = {"validation/loss": float("inf"), "validation/accuracy": 0.5}
    with Repository(tmp_path, run="first") as repository:
        checkpoint = repository.save(learner, metrics=metrics, progress=Progress(epoch=2, batch=40))
        assert checkpoint is not None
        (listed,) = repository.checkpoints(learner)
        assert repository.checkpoints(id="baseline") == [listed]
    for each in (checkpoint, listed):
        assert (each.id, each.run, each.number, each.metrics) == ("baseline", "first", 1, metrics)
        assert each.progress == Progress(epoch=2, batch=40)
        assert each.metadata["parts"]["optimizer"]["arguments"]["momentum"] == 0.9
        assert each.folder.parent == tmp_path / "first" / "baseline"
        assert each.size == sum((each.folder / name).stat().st_size for name in PARTS)
    assert str(listed) == "checkpoint 1 of baseline in run first (epoch 2)"


def test_runs_and_ids_do_not_meet(tmp_path: Path) -> None:
    """Each has a folder of its own."""
    one, other = advance(Learner(), 1), advance(Learner(), 2)
    one.initialize("one")
    other.initialize("../one")
    with Repository(tmp_path, run="a") as first, Repository(tmp_path, run="a/../b") as second:
        first.save(one)
        first.save(other)
        assert second.restore(advance(Learner(), 9)).epoch == 9
        assert first.checkpoints(one)[0].progress.epoch == 1
        assert first.checkpoints(other)[0].progress.epoch == 2
    assert {path.name.partition("~")[0] for path in tmp_path.iterdir()} == {"a"}


def test_the_run_part_waits_for_the_next_training(tmp_path: Path) -> None:
    """It is attached to the aggregate, and one without it clears what waited."""
    learner = Learner()
    run = {"cursor": {"position": 3}, "random": [torch.arange(3), float("nan")]}
    with Repository(tmp_path) as repository:
        repository.save(learner, run=run)
        repository.restore(learner)
        waiting = take(learner)
        assert waiting is not None
        assert waiting["cursor"] == {"position": 3}
        assert torch.equal(waiting["random"][0], torch.arange(3))
        repository.save(learner)
        repository.restore(learner, checkpoint=1)
        repository.restore(learner, checkpoint=2)
        assert take(learner) is None


@pytest.mark.parametrize("part", [*PARTS, "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "empty", "longer"])
def test_a_damaged_part_is_found_and_the_one_before_is_used_aloud(tmp_path: Path, part: str, damage: str) -> None:
    """Whichever part it is, and however it was damaged; `verify` names it."""
    _, second = saved(tmp_path, 1, 2)
    hurt(second.folder / part, damage)
    repository = Repository(tmp_path)
    with pytest.raises(BrokenCheckpoint, match="1 of 2 checkpoints"):
        repository.verify(Learner())
    with pytest.warns(SkippedCheckpoint, match="is broken.*the one before it is used"):
        assert told(repository.restore(Learner())) == {1.0}
    with pytest.raises(BrokenCheckpoint):
        repository.restore(Learner(), checkpoint=2)
    assert repository.restore(Learner(), checkpoint=1).epoch == 1


def hurt(path: Path, damage: str) -> None:
    """Damage a file."""
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    else:
        path.write_bytes({"truncated": data[:-1], "empty": b"", "longer": data + b"\0"}[damage])


def test_when_all_are_broken_it_does_not_begin_anew_in_silence(tmp_path: Path) -> None:
    """There was something to go on from: that is an error that says what to do."""
    for checkpoint in saved(tmp_path, 1, 2):
        hurt(checkpoint.folder / "state.json", "truncated")
    learner = advance(Learner(), 5)
    with pytest.warns(SkippedCheckpoint), pytest.raises(BrokenCheckpoint, match="To begin anew"):
        Repository(tmp_path).restore(learner)
    assert told(learner) == {5.0}


@pytest.mark.parametrize("part", PARTS)
def test_weights_and_optimizer_of_different_moments_are_never_loaded_together(tmp_path: Path, part: str) -> None:
    """A part of another checkpoint has the right form, and not the right digest."""
    first, second = saved(tmp_path, 1, 2)
    shutil.copy(first.folder / part, second.folder / part)
    with pytest.warns(SkippedCheckpoint):
        assert told(Repository(tmp_path).restore(Learner())) == {1.0}


def test_a_checkpoint_of_another_id_is_not_restored(tmp_path: Path) -> None:
    """Its manifest says where it belongs."""
    learner = advance(Learner(), 1)
    learner.initialize("other")
    with Repository(tmp_path) as repository:
        checkpoint = repository.save(learner)
        assert checkpoint is not None
        shutil.copytree(checkpoint.folder, tmp_path / "default" / "learner" / checkpoint.folder.name)
        with pytest.warns(SkippedCheckpoint, match="was moved here"), pytest.raises(BrokenCheckpoint):
            repository.restore(Learner())


class Bomb:
    """Something that would leave a trace, were it unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("part", [*PARTS, "manifest.json", "extra.pt", "__init__.py"])
def test_loading_never_runs_code(tmp_path: Path, part: str) -> None:
    """A pickle bomb does nothing, wherever it lies."""
    _, second = saved(tmp_path, 1, 2)
    (second.folder / part).write_bytes(pickle.dumps(Bomb()))
    with chdir(tmp_path), warnings.catch_warnings():
        warnings.simplefilter("ignore", SkippedCheckpoint)
        Repository(tmp_path).restore(Learner())
    assert not (tmp_path / "exploded").exists()


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    """Not even one whose digest is right."""
    (checkpoint,) = saved(tmp_path, 1)
    text = to_manifest(checkpoint).replace(b'"state.json"', b'"../../state.json"')
    body = json.loads(text)
    del body["sha256"]
    from torchsystem.storage.checkpoint import _digest  # noqa: PLC0415

    (checkpoint.folder / "manifest.json").write_text(json.dumps({**body, "sha256": _digest(body)}))
    with pytest.warns(SkippedCheckpoint, match="names files that no checkpoint has"), pytest.raises(BrokenCheckpoint):
        Repository(tmp_path).restore(Learner())


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_is_refused_by_name(tmp_path: Path, version: Any) -> None:
    """An older checkpoint is not taken for the newest: the newest is whole, and this program cannot read it."""
    _, second = saved(tmp_path, 1, 2)
    path = second.folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": version}))
    with pytest.raises(UnknownFormat, match=f"version {version!r}, and this torchsystem knows version 1"):
        Repository(tmp_path).restore(Learner())


@pytest.mark.parametrize(
    ("changed", "name"),
    [({"smoothing": 0.1}, "criterion"), ({"lr": 0.25}, "optimizer"), ({"momentum": 0.5}, "optimizer")],
)
def test_other_parts_are_refused_by_name_or_accepted_by_a_word(
    tmp_path: Path, changed: dict[str, float], name: str
) -> None:
    """Criterion and optimizer, by class and by options; nothing is changed by a refusal."""
    saved(tmp_path, 1)
    other = advance(Learner(**changed), 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    repository = Repository(tmp_path)
    with pytest.raises(MetadataMismatch, match=f"{name}: .* was saved, .* is there") as caught:
        repository.restore(other)
    assert list(caught.value.different) == [name]
    assert told(other) == {5.0}
    assert told(repository.restore(other, accept=name[:3] + "*"))
    assert other.epoch == 1


def test_a_scheduler_that_was_built_in_another_way_is_refused(tmp_path: Path) -> None:
    """Its state would bring back the options that were changed, and nobody would notice."""
    with Repository(tmp_path) as repository:
        repository.save(advance(Learner(), 1))
        other = Learner()
        other.scheduler = optim.lr_scheduler.StepLR(other.optimizer, 7)
        with pytest.raises(MetadataMismatch, match=r"scheduler: .*step_size=2.* was saved, .*step_size=7.* is there"):
            repository.restore(other)
        assert repository.restore(other, accept="scheduler").epoch == 1


def test_another_class_is_refused(tmp_path: Path) -> None:
    """Even where all its options are the same."""
    saved(tmp_path, 1)
    other = Learner()
    setattr(other, "criterion", nn.MultiMarginLoss())  # noqa: B010 - of another class than it was declared
    with pytest.raises(MetadataMismatch, match=r"CrossEntropyLoss\(.*was saved, .*MultiMarginLoss\(.*is there"):
        Repository(tmp_path).restore(other)


def test_an_option_that_only_says_how_to_compute_may_differ(tmp_path: Path) -> None:
    """A run may go on on another device."""
    saved(tmp_path, 1)
    other = Learner()
    other.optimizer = optim.SGD(other.nn.parameters(), lr=0.5, momentum=0.9, foreach=False)
    other.scheduler = optim.lr_scheduler.StepLR(other.optimizer, 2)
    assert Repository(tmp_path).restore(other).epoch == 1


@register
class Tokenizer:
    """Something registered that has no state."""

    def __init__(self, size: int) -> None:
        self.size = size


class Reader(Aggregate):
    """An aggregate with something registered inside."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.tools = {"tokenizer": Tokenizer(size)}
        self.nn = nn.Linear(2, 2)


def test_what_is_registered_is_compared_wherever_it_stands(tmp_path: Path) -> None:
    """By its hash, which is in the manifest."""
    with Repository(tmp_path) as repository:
        checkpoint = repository.save(Reader(3))
        assert checkpoint is not None
        assert checkpoint.metadata["parts"]["tools.tokenizer"]["hash"] == gethash(Tokenizer(3))
        repository.restore(Reader(3))
        with pytest.raises(MetadataMismatch, match=r"tools\.tokenizer: Tokenizer\(size=3\) was saved"):
            repository.restore(Reader(4))
        repository.restore(Reader(4), accept=["tools.*"])


def test_describing_runs_nothing_of_what_it_describes(tmp_path: Path) -> None:
    """A property named as an argument of the constructor may do anything: an aggregate without an id raises."""

    class Nested(Aggregate):
        def __init__(self, id: str) -> None:  # noqa: A002, ARG002 - it is what the property is called
            super().__init__()
            self.nn = nn.Linear(2, 2)

    class Outer(Aggregate):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Nested("x")

    with Repository(tmp_path) as repository:
        assert repository.save(Outer()) is not None


def test_data_are_compared_when_they_are_told_of(tmp_path: Path) -> None:
    """Saved with one data set and restored with another, they are refused by name."""
    with Repository(tmp_path) as repository:
        repository.save(Learner(), about={"data": Tokenizer(1)})
        repository.restore(Learner())
        repository.restore(Learner(), about={"data": Tokenizer(1)})
        with pytest.raises(MetadataMismatch, match="data: "):
            repository.restore(Learner(), about={"data": Tokenizer(2)})
        repository.restore(Learner(), about={"data": Tokenizer(2)}, accept="data")


def test_a_state_that_does_not_fit_is_refused_or_accepted(tmp_path: Path) -> None:
    """As by the aggregate's own restore, patterns included."""

    class Headed(Aggregate):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(2, 2), nn.Linear(2, classes)

    with Repository(tmp_path) as repository:
        first, other = Headed(2), Headed(3)
        repository.save(first)
        with pytest.raises(MetadataMismatch, match="head: "):
            repository.restore(other)
        with pytest.raises(SnapshotMismatch, match="head"):
            repository.restore(other, accept="head")
        repository.restore(other, accept="head.*")
    assert torch.equal(other.body.weight, first.body.weight)


def test_any_module_can_be_saved(tmp_path: Path) -> None:
    """Under the name of its class, or the one that is given; a compiled or wrapped one as itself."""
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with Repository(tmp_path) as repository:
        repository.save(module)
        assert repository.checkpoints(module)[0].id == "sequential"
        fresh = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        repository.restore(torch.compile(fresh, backend="eager"))
        assert all(map(torch.equal, fresh.state_dict().values(), module.state_dict().values()))
        repository.save(module, id="teacher")
        assert repository.checkpoints(id="teacher")[0].folder.parent.name == "teacher"


def test_a_mapping_of_tensors_can_be_saved(tmp_path: Path) -> None:
    """Under the id that is given, which it needs."""
    values: dict[str, Tensor] = {"mean": torch.ones(2), "count": torch.tensor(3)}
    with Repository(tmp_path) as repository:
        repository.save(values, id="statistics")
        back: dict[str, Tensor] = {}
        assert repository.restore(back, id="statistics") is back
        assert back.keys() == values.keys()
        assert torch.equal(back["mean"], torch.ones(2))
        repository.restore(values, id="statistics")
        with pytest.raises(SnapshotMismatch, match="other"):
            repository.restore({"other": torch.ones(1)}, id="statistics")
        with pytest.raises(Unnameable, match="id='teacher'"):
            repository.save(values)
        with pytest.raises(Unstorable, match="names for keys"):
            repository.save({1: torch.ones(1)}, id="x")


def test_the_state_of_an_optimizer_comes_back_as_a_mapping(tmp_path: Path) -> None:
    """Its keys are numbers, and are so again, whether it is restored into nothing or into a fresh state."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    with Repository(tmp_path) as repository:
        repository.save(optimizer.state_dict(), id="optimizer")
        for state in ({}, optim.Adam([weight]).state_dict()):
            fresh = optim.Adam([weight])
            fresh.load_state_dict(repository.restore(state, id="optimizer"))
            assert torch.equal(fresh.state[weight]["exp_avg"], optimizer.state[weight]["exp_avg"])
            assert fresh.state[weight]["step"] == 1


def test_a_mapping_takes_what_fits_its_tensors(tmp_path: Path) -> None:
    """Of their type, wherever they stand; those of another shape are refused, or stay if that is accepted."""
    saved: dict[str, Any] = {"mean": torch.ones(2), "inner": {"count": torch.tensor([3.0])}}
    with Repository(tmp_path) as repository:
        repository.save(saved, id="statistics")
        typed: dict[str, Any] = {"mean": torch.zeros(2, dtype=torch.float64), "inner": {"count": torch.tensor([0])}}
        repository.restore(typed, id="statistics")
        assert torch.equal(typed["mean"], torch.ones(2, dtype=torch.float64))
        assert torch.equal(typed["inner"]["count"], torch.tensor([3]))
        longer: dict[str, Any] = {"mean": torch.zeros(3), "inner": {"count": torch.zeros(2)}}
        with pytest.raises(SnapshotMismatch, match=r"mean \(.*inner\.count \("):
            repository.restore(longer, id="statistics")
        repository.restore(longer, id="statistics", accept=("mean", "inner.*"))
        assert torch.equal(longer["mean"], torch.zeros(3))


@pytest.mark.parametrize("subject", [3, "model", None, nn.Linear], ids=repr)
def test_what_has_no_state_is_refused(tmp_path: Path, subject: object) -> None:
    """By saying what can be saved."""
    repository = Repository(tmp_path)
    for call in (repository.save, repository.restore, repository.checkpoints, repository.verify):
        with pytest.raises(Unstorable, match="neither a module nor a mapping"):
            call(subject)
    assert list(tmp_path.iterdir()) == []


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    """And are stored once."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(50, 50, bias=False), nn.Linear(50, 50, bias=False)
            self.two.weight = self.one.weight

    tied, other = Tied(), Tied()
    with Repository(tmp_path) as repository:
        checkpoint = repository.save(tied)
        repository.restore(other)
    assert checkpoint is not None
    assert checkpoint.size < 1.5 * 50 * 50 * 4
    assert other.one.weight is other.two.weight
    assert torch.equal(other.one.weight, tied.one.weight)


class Watched(LocalFiles):
    """A disk that notes where something is written."""

    def __init__(self) -> None:
        self.written: list[Path] = []

    def write(self, path: Path, chunks: Iterable[Chunk]) -> None:
        self.written.append(path)
        super().write(path, chunks)


def test_temporary_files_lie_in_the_folder_of_the_run(tmp_path: Path) -> None:
    """Nothing is written anywhere else, where there may be less room, and nothing temporary stays."""
    disk, run = Watched(), tmp_path / "default"
    with Repository(tmp_path, files=disk) as repository:
        repository.save(advance(Learner(), 1))
    assert disk.written
    assert all(path.is_relative_to(run) for path in disk.written)
    names = {path.name for path in tmp_path.rglob("*") if path.is_file() and ".lease" not in path.name}
    assert names == {*PARTS, "manifest.json"}


def test_what_killed_saves_have_left_is_cleaned_at_the_next_start(tmp_path: Path) -> None:
    """Drafts, half removed ones, and folders whose manifest has not landed; nothing that is somebody else's."""
    saved(tmp_path, 1, 2)
    folder = tmp_path / "default" / "learner"
    left = [".saving-000003-0123abcd", ".deleting-000001-0123abcd", "000003-0123abcd"]
    others = ["notes", "plots-01", ".saving-notes"]
    for name in left + others:
        (folder / name).mkdir()
        (folder / name / ("state.json" if name in left else "file")).touch()
    (folder / left[-1] / "manifest.draft").touch()
    with Repository(tmp_path) as repository:
        assert repository.restore(Learner()).epoch == 2
        assert all((folder / name).exists() for name in left)  # who only reads leaves things alone
        repository.claim()
        assert not any((folder / name).exists() for name in left)
        assert all((folder / name / "file").exists() for name in others)
        assert repository.verify(Learner()) == repository.checkpoints(Learner())


def test_what_others_put_there_is_neither_removed_nor_in_the_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever keeps plots beside a checkpoint finds them again, and is told where; the training goes on."""
    with Repository(tmp_path, retention=Retention(keep_last=1)) as repository:
        first = repository.save(advance(Learner(), 1))
        assert first is not None
        (first.folder / "plots").mkdir()
        (first.folder / "plots" / "loss.png").touch()
        (first.folder.parent / "000007-0123abcd").touch()
        repository.save(advance(Learner(), 2))
        assert "stays because of plots" in caplog.text
        assert told(repository.restore(Learner())) == {2.0}
    (kept,) = first.folder.parent.rglob("loss.png")
    with Repository(tmp_path) as repository:
        assert repository.save(advance(Learner(), 3)) is not None
        assert told(repository.restore(Learner())) == {3.0}
    assert kept.exists()


def test_a_checkpoint_that_has_lost_its_manifest_is_not_removed(tmp_path: Path) -> None:
    """It was whole once, and is no leftover of a save: whoever looks for it finds what is left of it."""
    _, second = saved(tmp_path, 1, 2)
    (second.folder / "manifest.json").unlink()
    with Repository(tmp_path) as repository:
        repository.claim()
        assert (second.folder / "state.json").exists()
        with pytest.warns(SkippedCheckpoint, match="its manifest is missing"):
            assert repository.restore(Learner()).epoch == 1
        third = repository.save(advance(Learner(), 3))
        assert third is not None
        assert third.number == 3
        assert repository.restore(Learner()).epoch == 3


def test_verify_reads_one_or_all(tmp_path: Path) -> None:
    """And returns what it read."""
    first, second = saved(tmp_path, 1, 2)
    repository = Repository(tmp_path)
    assert repository.verify(Learner()) == [first, second]
    hurt(first.folder / "state.json", "flipped")
    assert repository.verify(second) == [second]
    with pytest.raises(BrokenCheckpoint, match=r"1 of 1 checkpoints.*\n.*checkpoint 1 .*state.json was changed"):
        repository.verify(first)


@pytest.mark.parametrize(
    "options", [{"on_failure": "ignore"}, {"run": None}, {"run": 7}, {"run": Path("run")}, {"retention": 3}], ids=str
)
def test_an_option_without_meaning_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    """When the repository is made."""
    with pytest.raises((InvalidRepository, InvalidRetention), match="write "):
        Repository(tmp_path, **options)


@pytest.mark.parametrize("root", ["s3://bucket/runs", "file:///runs", Path("s3://bucket/runs")], ids=str)
def test_an_address_is_refused_as_a_root(tmp_path: Path, root: str | Path) -> None:
    """It would become a folder of that name here, and nobody would find anything elsewhere."""
    with chdir(tmp_path), pytest.raises(InvalidRepository, match="Write its path"):
        Repository(root)


@pytest.mark.parametrize("metrics", [{"loss": None}, {"loss": torch.ones(2)}, {"loss": "low"}, {3: 0.5}], ids=str)
def test_a_metric_that_is_no_number_with_a_name_is_refused(tmp_path: Path, metrics: Any) -> None:
    """Where it is given, though it is written in the background."""
    with Repository(tmp_path) as repository, pytest.raises(InvalidFigure, match="metrics="):
        repository.save(Learner(), metrics=metrics, wait=False)


@pytest.mark.parametrize(
    "tensor", [torch.ones(2, device="meta"), torch.eye(2).to_sparse(), nested()], ids=["meta", "sparse", "nested"]
)
def test_a_tensor_that_cannot_be_stored_is_refused_at_the_call(tmp_path: Path, tensor: Tensor) -> None:
    """And not in the background, where nobody sees which call it was."""
    with Repository(tmp_path) as repository, pytest.raises(Unstorable, match="mean"):
        repository.save({"mean": tensor}, id="statistics", wait=False)


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": ["accuracy"]},
        {"metrics": {"accuracy": "high"}},
        {"progress": {"epoch": "one"}},
        {"number": "1"},
        {"metadata": []},
        {"metadata": {"parts": {"nn": 7}, "about": {}}},
        {"metadata": {"parts": {"nn": {"name": "Linear"}}, "about": {}}},
    ],
    ids=str,
)
def test_a_manifest_of_another_form_is_broken(tmp_path: Path, change: dict[str, Any]) -> None:
    """Though its digest is right: the checkpoint before is used, aloud."""
    _, second = saved(tmp_path, 1, 2)
    path = second.folder / "manifest.json"
    body = {**json.loads(path.read_text()), **change}
    del body["sha256"]
    path.write_bytes(to_json({**body, "sha256": sha256(to_json(body)).hexdigest()}))
    with pytest.warns(SkippedCheckpoint, match="its manifest"):
        assert Repository(tmp_path).restore(Learner()).epoch == 1


class Scaling(nn.Module):
    """A part that is registered later."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor


def test_what_is_registered_later_is_the_same_thing(tmp_path: Path) -> None:
    """Registering a class between two starts is no other part; another argument is one, before and after."""
    with Repository(tmp_path) as repository:
        before = Learner()
        before.scaling = Scaling(2.0)
        repository.save(before)
        register(Scaling)
        after, other = Learner(), Learner()
        after.scaling, other.scaling = Scaling(2.0), Scaling(3.0)
        assert repository.restore(after) is after
        for checkpoint in (None, repository.save(after)):
            with pytest.raises(MetadataMismatch, match="scaling: "):
                repository.restore(other, checkpoint=checkpoint)
