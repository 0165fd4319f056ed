"""Residents write where they are told to, or where their experiment lives; and nowhere by accident."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from torchsystem.adapters.requirements import require
from torchsystem.adapters.residents import Home, Resident
from torchsystem.errors import MissingExtra, SharedFolder, TwoHomes, UnknownHome, UnsafeName
from torchsystem.services import Producer


class Notes(Resident):
    """A listener that would write notes."""

    kind = "notes"


def home(storage: Path, run: str = "first") -> Home:
    """Return a home below a folder."""
    return Home(storage=storage, project="digits", experiment="baseline", run=run)


@pytest.mark.parametrize("told", list(product([True, False], repeat=4)))
def test_what_is_not_told_is_inherited_one_by_one(told: tuple[bool, ...], tmp_path: Path) -> None:
    """Each of project, experiment, run and storage is its own if it was told, and the experiment's if not."""
    own = {"storage": tmp_path / "own", "project": "p", "experiment": "e", "run": "r"}
    theirs = {"storage": tmp_path / "theirs", "project": "digits", "experiment": "baseline", "run": "first"}
    given = {name: value for (name, value), is_told in zip(own.items(), told, strict=True) if is_told}
    notes = Notes("notes", **given)  # type: ignore[arg-type]
    notes.inherit(home(tmp_path / "theirs"))
    expected = Path(*({**theirs, **given}[name] for name in theirs), "notes")
    assert notes.folder == expected
    assert expected.is_dir()


def test_a_path_is_used_as_it_is(tmp_path: Path) -> None:
    """Whatever the experiment says: a path that was given wins."""
    notes = Notes("notes", path=tmp_path / "here")
    notes.inherit(home(tmp_path / "theirs"))
    assert notes.folder == tmp_path / "here"
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_folder_is_made_when_it_is_asked_for_and_not_before(tmp_path: Path) -> None:
    """A listener that never writes leaves nothing behind, as on all ranks but the leader's."""
    notes = Notes("notes")
    notes.inherit(home(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert notes.folder.is_dir()


def test_who_was_told_nothing_says_so() -> None:
    """It names what is missing and how to say it, and never picks a folder of its own."""
    with pytest.raises(UnknownHome, match=r"storage.*Notes\(path=\.\.\.\).*Experiment"):
        Notes("notes").folder  # noqa: B018 - the access is the act


def test_it_does_not_move_to_another_experiment(tmp_path: Path) -> None:
    """Told by two experiments where to write, it would write the one's notes among the other's."""
    notes = Notes("notes")
    notes.inherit(home(tmp_path))
    notes.inherit(home(tmp_path))
    with pytest.raises(TwoHomes, match="one listener for each"):
        notes.inherit(home(tmp_path, "second"))
    assert notes.run == "first"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "../x", "a\0", "a\n", "a:b", "a ", " a", "a.", "x" * 201]
)
@pytest.mark.parametrize("what", ["project", "experiment", "run"])
def test_a_name_that_is_not_one_folder_is_refused(what: str, name: str) -> None:
    """When the listener is made, and by the name of the argument."""
    with pytest.raises(UnsafeName, match=f"{what}="):
        Notes("notes", **{what: name})  # type: ignore[arg-type]


@pytest.mark.parametrize("what", ["path", "storage"])
def test_an_address_of_elsewhere_is_refused(what: str) -> None:
    """Listeners write locally; a folder called `s3:` would be a surprise."""
    for address in ("s3://bucket", Path("s3://bucket")):
        with pytest.raises(UnknownHome, match="Mirror"):
            Notes("notes", **{what: address})  # type: ignore[arg-type]


class Diary(Notes):
    """A listener that would write into a file of which it thinks as its own."""

    is_alone = True


class Journal(Diary):
    """Another that would write the same."""


def test_two_that_would_write_into_the_same_files_are_refused(tmp_path: Path) -> None:
    """Also where there is no experiment, however they are told where, and when one is a kind of the other."""
    (tmp_path / "link").symlink_to(tmp_path / "here")
    producer, first = Producer(), Diary("first", path=tmp_path / "here")
    producer.register(first, Diary("nowhere yet"), Diary("elsewhere", path=tmp_path / "there"))
    relative = os.path.relpath(tmp_path / "here")
    for other in (Diary("b", path=relative), Diary("b", path=tmp_path / "link"), Journal("b", path=tmp_path / "here")):
        with pytest.raises(SharedFolder, match=r"files of Diary\('first'\)"):
            producer.register(other)
    producer.register(first, Notes("a", path=tmp_path / "here"), Notes("b", path=tmp_path / "here"))
    assert len(producer.listeners()) == 5


def test_a_missing_package_is_named_with_its_extra() -> None:
    """The error is an `ImportError`, and says what to install."""
    with pytest.raises(MissingExtra, match=r"pip install 'torchsystem\[plots\]'") as caught:
        require("no_such_package.pyplot", extra="plots")
    assert isinstance(caught.value, ImportError)
    assert caught.value.name == "no_such_package"


def test_what_is_broken_inside_a_package_is_raised_as_itself(tmp_path: Path) -> None:
    """A package that is there, but lacks what it needs, is not helped by installing it again."""
    (tmp_path / "half.py").write_text("import no_such_package")
    code = "from torchsystem.adapters.requirements import require; require('half', extra='plots')"
    done = subprocess.run(  # noqa: S603 - our own interpreter, our own program
        [sys.executable, "-B", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.strip().splitlines()[-1] == "ModuleNotFoundError: No module named 'no_such_package'"
