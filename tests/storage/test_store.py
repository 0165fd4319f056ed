"""Stores: numbers without gaps, content that is whole, and nothing outside the root."""

from __future__ import annotations

import gc
import logging
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL
from subprocess import Popen
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.buckets import Bucket, at_once, layout, open_store, start
from torchsystem.errors import (
    DamagedArtefact,
    InvalidContent,
    InvalidStore,
    NotExclusive,
    NotLocal,
    OutsideRoot,
    UnfilledTemplate,
    UnknownArtefact,
    UnsafeName,
)
from torchsystem.storage.catalogue import Catalogue
from torchsystem.storage.elsewhere import Elsewhere
from torchsystem.storage.layout import Layout
from torchsystem.storage.ledger import Ledger
from torchsystem.storage.store import Store


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Return an empty store, in each kind of place."""
    if request.param == "folder":
        return open_store(tmp_path)
    if request.param == "memory":
        return open_store(f"memory://{uuid4().hex}")
    bucket: Bucket = request.getfixturevalue("bucket")
    return open_store(bucket.url, options=bucket.options)


def numbers(store: Store, kind: str = "predictions", **values: str) -> list[int | None]:
    """Return the numbers of what is found."""
    return [found.number for found in store.find(kind, **values)]


def test_numbers_have_no_gaps_whoever_draws_them(store: Store) -> None:
    """Sixteen threads write at once: each gets a number of its own, and together all from one on."""
    made = at_once(16, lambda index: store.add("predictions", str(index).encode(), split="test"))
    assert sorted(one.number or 0 for one in made) == list(range(1, 17))
    assert numbers(store) == list(range(1, 17))
    assert sorted(int(store.read(one)) for one in made) == list(range(16))


def test_each_set_of_values_is_numbered_by_itself(store: Store) -> None:
    """The first of another split, or run, is number one."""
    store.add("predictions", b"1", split="test")
    assert store.add("predictions", b"1", split="train").number == 1
    assert store.add("predictions", b"1", split="test", run="second").number == 1
    assert store.add("predictions", b"1", split="test").number == 2


DRAWER = """
import sys
from tests.storage.buckets import open_store
for line in sys.stdin:
    root, count = line.split()
    store = open_store(root)
    print(*(store.path("predictions", split="test").name for _ in range(int(count))), flush=True)
"""


@pytest.fixture(scope="module")
def drawers() -> Iterator[list[Popen[str]]]:
    """Start processes that draw as many numbers as they are told."""
    processes = [start(DRAWER) for _ in range(2)]
    yield processes
    for process in processes:
        process.communicate(timeout=200)


@settings(max_examples=15)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=2))
def test_processes_draw_numbers_without_gaps(drawers: list[Popen[str]], counts: list[int]) -> None:
    """The same across processes, which share nothing but the folder, however many each draws."""
    with TemporaryDirectory() as root:
        for process, count in zip(drawers, counts, strict=True):
            assert process.stdin is not None
            process.stdin.write(f"{root} {count}\n")
            process.stdin.flush()
        drawn: list[str] = []
        for process in drawers:
            assert process.stdout is not None
            drawn += process.stdout.readline().split()
    assert sorted(drawn) == sorted(f"test_{number}.json" for number in range(1, sum(counts) + 1))


@settings(max_examples=20)
@given(st.lists(st.sampled_from(["test", "train"]), min_size=2, max_size=12))
def test_whatever_is_drawn_at_once_has_no_gaps(splits: list[str]) -> None:
    """Any mixture of kinds of draws, in as many threads."""
    store = open_store(f"memory://{uuid4().hex}")
    made = at_once(len(splits), lambda index: store.add("predictions", b"x", split=splits[index]))
    for split in set(splits):
        drawn = sorted(one.number or 0 for one in made if one.values["split"] == split)
        assert drawn == list(range(1, splits.count(split) + 1))


def test_of_several_who_create_one_does(store: Store) -> None:
    """A file that is created serves as a lock, and says who has it."""
    for lock in ["lock", "locks/of/a.b"]:
        won = at_once(8, lambda index, lock=lock: store.create(lock, str(index).encode()))  # type: ignore[misc]
        assert won.count(True) == 1
        assert store.get(lock) == str(won.index(True)).encode()
        assert not store.create(lock, b"late")
    assert store.keys() == ["lock", "locks/of/a.b"]


class Looking(MemoryFileSystem):
    """A file system of which nobody knows whether one of several wins."""

    protocol = "looking"


class Unknown(Elsewhere):
    """A place in such a file system."""

    def _open(self) -> tuple[Any, str]:
        return Looking(), super()._open()[1]


def test_a_file_system_that_looks_and_then_writes_is_not_trusted() -> None:
    """Where it is not known that one of several wins, nothing is numbered; unless somebody vouches for it."""
    url = f"memory://{uuid4().hex}"
    place = Unknown(url, {})
    place.write("a/b", b"1")
    with pytest.raises(NotExclusive, match="exclusive=True"):
        place.create("lock", b"1")
    vouched = Unknown(url, {}, exclusive=True)
    assert (vouched.create("lock", b"1"), vouched.create("lock", b"2")) == (True, False)
    assert list(vouched.keys("")) == [("a/b", 1), ("lock", 1)]


def test_a_server_that_ignores_the_condition_is_found_out() -> None:
    """Some obey a conditional write without looking at the condition; two would have one number."""

    class Obedient(Elsewhere):
        def _create(self, key: str, source: bytes | Path) -> bool:
            self.write(key, source)
            return True

    place = Obedient(f"memory://{uuid4().hex}", {})
    with pytest.raises(NotExclusive, match="overwrites"):
        place.create("lock", b"1")
    assert list(place.keys("")) == []


class Busy(MemoryFileSystem):
    """A file system that asks for some writes to be sent again, as S3 does when two come at once."""

    protocol = "busy"
    conflicts = 0

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        if mode == "create" and self.conflicts:
            type(self).conflicts -= 1
            cause = RuntimeError("409")
            cause.response = {"Error": {"Code": "ConditionalRequestConflict"}}  # type: ignore[attr-defined]
            raise OSError(5, "send it again") from cause
        super().pipe_file(path, value, mode, **options)


class Contended(Elsewhere):
    """A place in such a file system."""

    def _open(self) -> tuple[Any, str]:
        return Busy(), super()._open()[1]


def test_two_writes_at_once_are_sent_again() -> None:
    """It is no answer, and so neither a success nor a failure; but not for ever."""
    place = Contended(f"memory://{uuid4().hex}", {}, exclusive=True)
    assert place.create("first", b"1")
    Busy.conflicts = 3
    assert (place.create("lock", b"1"), place.create("lock", b"2")) == (True, False)
    Busy.conflicts = 1000
    with pytest.raises(OSError, match="again"):
        place.create("other", b"1")


UNCLOSED = """
import sys
from tests.storage.buckets import open_store
store = open_store(sys.argv[1])
store.path("predictions", split="test").write_text("[1]")
"""


def test_what_was_written_is_recorded_at_exit(tmp_path: Path) -> None:
    """Also if nobody closes the store."""
    program = start(UNCLOSED, str(tmp_path))
    program.communicate(timeout=200)
    (line,) = open_store(tmp_path).ledger()
    assert (line.key.rpartition("/")[2], line.size) == ("test_1.json", 3)


DROPPED = """
import sys
from tests.storage.buckets import open_store
open_store(sys.argv[1]).bind(run="second").path("predictions", split="test").write_text("[1]")
"""


def test_what_was_written_is_recorded_at_exit_though_the_store_was_dropped(tmp_path: Path) -> None:
    """As one is that was bound for a line, and that nobody kept."""
    start(DROPPED, str(tmp_path)).communicate(timeout=200)
    (line,) = open_store(tmp_path).ledger()
    assert line.key == "digits/baseline/second/predictions/test_1.json"


def test_a_store_of_which_all_is_recorded_is_not_kept(tmp_path: Path) -> None:
    """Only what is still to be recorded outlives who dropped it."""
    store = open_store(tmp_path)
    path = store.path("config")
    handed = weakref.ref(store._handed)  # type: ignore[arg-type]  # noqa: SLF001 - what is kept is what counts
    path.write_text("{}")
    store.record(path)
    del store
    gc.collect()
    assert handed() is None


FORKED = """
import os, sys
from tests.storage.buckets import open_store
store = open_store(sys.argv[1])
path = store.path("predictions", split="test")
path.write_text("[")
if (child := os.fork()) == 0:
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
path.write_text("[1]")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_child_does_not_record_what_its_parent_is_still_writing(tmp_path: Path) -> None:
    """When it ends, it closes what is its own."""
    start(FORKED, str(tmp_path)).communicate(timeout=200)
    (line,) = open_store(tmp_path).ledger()
    assert line.size == 3


@pytest.mark.parametrize("absolute", [False, True])
def test_nothing_outside_the_root_is_recorded(tmp_path: Path, *, absolute: bool) -> None:
    """Neither through `..`, which a template may well take for a value, nor through a link."""
    root = tmp_path / "root"
    (root / "first").mkdir(parents=True)
    (tmp_path / "secret.json").write_text("secret")
    (root / "link").symlink_to(tmp_path)
    (root / "first" / "link.json").symlink_to(tmp_path / "secret.json")
    store = Store(root, layout=Layout(config="{run}/{name}.json"))
    for path in ["../secret.json", "first/../../secret.json", "link/secret.json", "first/link.json"]:
        with pytest.raises(UnknownArtefact, match=r"store\.path"):
            store.record(root / path if absolute else path)
    assert store.ledger() == []


def test_what_lies_behind_a_link_to_the_root_is_recorded(tmp_path: Path) -> None:
    """Whoever opened a store by a link writes, and records, by it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store = open_store(tmp_path / "link")
    store.path("config")
    path = tmp_path / "link/digits/baseline/first/config.json"
    path.write_text("{}")
    assert store.record(path).kind == "config"


def test_a_path_is_there_to_be_written_to(tmp_path: Path) -> None:
    """Its folder is made, its number is held, and what was written is recorded when the store is closed."""
    with open_store(tmp_path, by="trainer") as store:
        path = store.path("predictions", split="test")
        assert path == tmp_path / "digits/baseline/first/predictions/test_1.json"
        assert store.path("predictions", split="test").name == "test_2.json"
        assert numbers(store) == []
        path.write_text("[1]")
        assert numbers(store) == [1]
        assert store.path("config").parent.is_dir()
        assert not store.path("config").exists()
        (store.root / "digits/baseline/first/predictions/test_2.json").write_text("[2]")
        assert store.path("predictions", split="test", number=2).read_text() == "[2]"
        store.path("config").write_text("{}")
    assert {(line.key.rpartition("/")[2], line.size, line.by) for line in store.ledger()} == {
        ("test_1.json", 3, "trainer"),
        ("test_2.json", 3, "trainer"),
        ("config.json", 2, "trainer"),
    }


def test_a_path_that_was_never_written_to_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A plot that did not come is missed when the store is closed, not weeks later."""
    with caplog.at_level(logging.WARNING), open_store(tmp_path) as store:
        store.path("predictions", split="test")
    assert "never written to" in caplog.text
    assert store.ledger() == []


def test_a_local_path_is_not_pretended_elsewhere() -> None:
    """A bucket has no paths that Python could open; the error says what to do instead."""
    store = open_store(f"memory://{uuid4().hex}")
    for ask in [lambda: store.path("config"), lambda: store.root, lambda: store.record("a")]:
        with pytest.raises(NotLocal, match=r"store\.add"):
            ask()


keys = st.lists(st.sampled_from(["..", ".", "", "a", "b", "link", "~", "a\\b", "a\0"]), min_size=1, max_size=5)


@given(keys)
def test_nothing_is_written_outside_the_root(parts: list[str]) -> None:
    """Whatever the key, `..`, links and all: it is refused, or lies below the root."""
    with TemporaryDirectory() as temporary:
        root, outside = Path(temporary, "root"), Path(temporary, "outside")
        outside.mkdir()
        (root / "a").mkdir(parents=True)
        (root / "a" / "link").symlink_to(outside)
        (root / "link").symlink_to(outside / "file")
        store = Store(root)
        for write in [store.create, store.put]:
            try:
                write("/".join(parts), b"1")
            except (UnsafeName, OutsideRoot):
                pass
            except (IsADirectoryError, NotADirectoryError, FileExistsError):
                pass  # a folder and a file of one name
        assert list(outside.iterdir()) == []
        assert sorted(path.name for path in Path(temporary).iterdir()) == ["outside", "root"]


def test_a_link_that_leads_out_of_the_root_is_refused(tmp_path: Path) -> None:
    """Before a folder is made there; reading through it is refused as well."""
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.json").write_text("secret")
    (tmp_path / "root" / "digits").symlink_to(tmp_path / "outside")
    store = open_store(tmp_path / "root")
    for act in [
        lambda: store.path("predictions", split="test"),
        lambda: store.add("predictions", b"1", split="test"),
        lambda: store.get("digits/secret.json"),
        lambda: store.find("predictions"),
    ]:
        with pytest.raises(OutsideRoot, match="symbolic link"):
            act()
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["secret.json"]


def test_a_root_may_be_a_link(tmp_path: Path) -> None:
    """It is what lies below it that must stay there."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    open_store(tmp_path / "link").add("config", b"{}")
    assert (tmp_path / "real/digits/baseline/first/config.json").read_bytes() == b"{}"


def test_what_has_no_number_is_replaced_whole(store: Store) -> None:
    """And the ledger tells the digest of what is there now."""
    store.add("config", b"old")
    new = store.add("config", b"new one")
    (found,) = store.find("config")
    assert found == new
    assert store.read(found) == b"new one"
    assert [line.size for line in store.ledger()] == [3, 7]


def test_what_is_found_can_be_told_by_all_it_is(store: Store) -> None:
    """By values, by number, by the digest of the content, and across projects and runs."""
    first = store.add("predictions", b"one", split="test")
    second = store.add("predictions", b"two", split="test")
    other = store.add("predictions", b"two", split="test", project="letters", run="second")
    assert store.find("predictions") == [first, second]
    assert store.find("predictions", number=2) == [second]
    assert store.find("predictions", sha256=(first.sha256 or "")[:12]) == [first]
    assert store.find("predictions", split="train") == []
    assert store.find("predictions", project="letters", run="*") == [other]
    assert store.find("predictions", project="*", run="*", sha256=second.sha256) == [second, other]
    assert store.last("predictions") == second
    with pytest.raises(UnknownArtefact, match="'train'"):
        store.last("predictions", split="train")
    with pytest.raises(UnfilledTemplate, match="splot"):
        store.find("predictions", splot="*")


def test_what_others_write_meanwhile_is_found(store: Store) -> None:
    """No listing is kept for later: two stores of one place see the same."""
    assert store.find("predictions") == []
    bound = store.bind(run="first")
    assert bound.add("predictions", b"1", split="test").number == 1
    assert numbers(store) == [1]
    assert store.add("predictions", b"1", split="test").number == 2
    assert numbers(bound) == [1, 2]


def test_what_other_clients_write_meanwhile_is_found(bucket: Bucket) -> None:
    """A bucket is listed anew each time, although its file system would remember what it has seen."""
    store = open_store(bucket.url, options=bucket.options)
    store.add("predictions", b"1", split="test")
    assert numbers(store) == [1]
    other = fsspec.filesystem("s3", **bucket.options, skip_instance_cache=True)
    other.pipe_file(f"{bucket.url}/digits/baseline/first/predictions/test_2.json", b"2")
    assert numbers(store) == [1, 2]


def test_what_is_the_stores_own_is_no_artefact(tmp_path: Path) -> None:
    """Whatever the template: the ledger is neither found nor cleaned up."""
    store = Store(tmp_path, layout=Layout(anything="{a}/{b}/{c}"))
    made = store.add("anything", b"1", a="1", b="2", c="3")
    assert store.find("anything") == [made]
    assert store.keys() == [made.key]


def test_numbers_are_sorted_as_numbers(store: Store) -> None:
    """Ten comes after nine."""
    for _ in range(11):
        store.add("predictions", b"1", split="test")
    assert numbers(store) == list(range(1, 12))
    assert store.last("predictions").number == 11


def test_content_that_was_changed_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody builds on something else than what was recorded; if it was meant, it can be recorded."""
    store = open_store(tmp_path)
    made = store.add("predictions", b"[1]", split="test")
    (tmp_path / made.key).write_bytes(b"[2]")
    with pytest.raises(DamagedArtefact, match="not what was recorded"):
        store.read(store.last("predictions"))
    with pytest.raises(DamagedArtefact), store.temporary() as path:
        store.fetch(made, path)
    assert not path.exists()
    assert store.read(store.record(tmp_path / made.key)) == b"[2]"
    (tmp_path / made.key).write_bytes(b"[1, 2]")
    with caplog.at_level(logging.WARNING):
        assert store.last("predictions").sha256 is None
    assert "changed since it was recorded" in caplog.text


def test_what_others_have_made_is_reused(store: Store) -> None:
    """By kind, number and digest, from another project and run, once; and the ledger tells the origin."""
    theirs = store.bind(project="letters", run="old")
    theirs.add("tokenizer", b"first")
    made = theirs.add("tokenizer", b"second")
    found = store.last("tokenizer", project="letters", run="*", number=2, sha256=made.sha256)
    own = store.reuse(found)
    assert (own.key, store.read(own)) == ("digits/first/tokenizer/001.json", b"second")
    assert store.reuse(found) == own
    assert numbers(store, "tokenizer") == [1]
    line = store.ledger()[-1]
    assert (line.action, line.key, line.source, line.sha256) == ("reused", own.key, made.key, made.sha256)
    assert store.reuse(found, run="third").key == "digits/third/tokenizer/001.json"


@pytest.mark.parametrize("sha256", ["", "not a digest", "0" * 65, 7])
def test_a_digest_that_is_none_is_refused(tmp_path: Path, sha256: Any) -> None:
    """An empty one would be found in everything, and a misspelled one in nothing; capitals mean the same."""
    store = open_store(tmp_path)
    made = store.add("config", b"{}")
    with pytest.raises(InvalidStore, match="no digest"):
        store.find("config", sha256=sha256)
    assert made.sha256 is not None
    assert store.last("config", sha256=made.sha256.upper()) == made


class Vanishing(MemoryFileSystem):
    """A file system in which what is listed is gone when it is read."""

    def cat_file(self, path: str, **_: Any) -> bytes:
        raise FileNotFoundError(path)


class Gone(Elsewhere):
    """A place in such a file system."""

    def _open(self) -> tuple[Any, str]:
        return Vanishing(), super()._open()[1]


def test_what_is_removed_meanwhile_is_not_found() -> None:
    """Whoever looks for a digest does not fail because somebody else cleans up."""
    layout = Layout(config="{run}/config.json")
    place = Gone(f"memory://{uuid4().hex}", {})
    place.write("first/config.json", b"{}")
    catalogue = Catalogue(place, layout, Ledger(place))
    assert [one.key for one in catalogue.find(layout.template("config"), {}, None)] == ["first/config.json"]
    assert catalogue.find(layout.template("config"), {}, "0") == []


def test_what_nobody_recorded_is_found_by_its_digest(tmp_path: Path) -> None:
    """A file that was put there by hand has a digest too."""
    store = open_store(tmp_path)
    made = store.add("predictions", b"[1]", split="test")
    (tmp_path / made.key).with_name("test_2.json").write_bytes(b"[1]")
    assert [one.number for one in store.find("predictions", sha256=made.sha256)] == [1, 2]


def test_kinds_are_cleaned_up_after_success_only(store: Store) -> None:
    """Of this run alone; after a failure all is still there to be looked at."""
    other = store.bind(run="second").add("predictions", b"1", split="test")
    with pytest.raises(RuntimeError), store.cleaning("predictions"):
        store.add("predictions", b"1", split="test")
        raise RuntimeError("out of memory")
    assert numbers(store) == [1]
    kept = store.add("config", b"{}")
    with store.cleaning("predictions"):
        store.add("predictions", b"1", split="test")
        assert numbers(store) == [1, 2]
    assert numbers(store) == []
    assert store.find("config") == [kept]
    assert store.find("predictions", run="*") == [other]
    assert [line.action for line in store.ledger()].count("removed") == 2


def test_cleaning_says_of_which_run(tmp_path: Path) -> None:
    """A store that is bound to no run would clean up after everybody."""
    store = Store(tmp_path, layout=layout())
    made = store.add("predictions", b"1", project="a", experiment="b", run="c", split="d")
    with pytest.raises(UnfilledTemplate, match="of which project and experiment and run"):
        store.clean("predictions")
    (removed,) = store.clean("predictions", project="a", experiment="*", run="*")
    assert removed.key == made.key


@pytest.mark.parametrize("suffix", ["/../../mine", "\0", "/", ".json "])
def test_a_temporary_file_stays_in_its_folder(tmp_path: Path, suffix: str) -> None:
    """What its name is to end with is part of a name, and no path."""
    with pytest.raises(UnsafeName, match="suffix"), Store(tmp_path).temporary(suffix):
        pass


def test_temporary_files_are_gone_however_it_ends(store: Store) -> None:
    """After success and after failure, written to or not."""
    paths = []
    with store.temporary(".png") as path:
        assert path.suffix == ".png"
        path.write_bytes(b"1")
        paths.append(path)
        made = store.add("predictions", path, split="test")
    with pytest.raises(RuntimeError), store.temporary() as path:
        path.write_bytes(b"1")
        paths.append(path)
        raise RuntimeError
    with store.temporary() as path:
        paths.append(path)
    assert not any(path.parent.exists() for path in paths)
    assert store.read(made) == b"1"
    assert store.keys() == [made.key]


HOLDER = """
import os, signal, sys
from torchsystem.storage import Store
with Store(sys.argv[1]).temporary() as path:
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_temporary_files_of_a_process_that_was_killed_are_gone_with_the_next(tmp_path: Path) -> None:
    """Those of one that is alive, or that nobody can tell of from here, stay."""
    with start(HOLDER, str(tmp_path)) as holder:
        assert holder.wait(200) == -SIGKILL
    temporary = tmp_path / ".torchsystem" / "temporary"
    (left,) = temporary.iterdir()
    elsewhere = temporary / f"1-1-{'0' * 16}-abc"
    elsewhere.mkdir()
    with Store(tmp_path).temporary() as path:
        Store(tmp_path).put("a", b"1")
        assert path.parent.is_dir()
        assert not left.exists()
        assert elsewhere.is_dir()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Neither a file, nor a number that is held for it, nor a line."""
    store = open_store(tmp_path)
    with pytest.raises(FileNotFoundError):
        store.add("predictions", tmp_path / "no such file", split="test")
    with pytest.raises(InvalidContent, match="bytes"):
        store.add("predictions", "text", split="test")  # type: ignore[arg-type]
    with pytest.raises(UnfilledTemplate, match="drawn"):
        store.add("predictions", b"1", split="test", number=7)
    for write in [store.put, store.create]:
        with pytest.raises(InvalidContent, match="bytes"):
            write("a", "text")  # type: ignore[operator]
    assert store.keys() == []
    assert store.ledger() == []
    assert store.add("predictions", b"1", split="test").number == 1


def test_credentials_are_not_shown() -> None:
    """Neither those of the options nor those in the address."""
    store = Store("memory://user:password@place/root?token=secret", options={"key": "secret"})
    assert repr(store) == "Store('memory://place/root')"


@pytest.mark.parametrize(
    "root", [Path("s3://bucket/runs"), "s3:/bucket/runs", "file:/runs", "nowhere://runs", "://runs"]
)
def test_an_address_that_is_none_does_not_become_a_folder(root: str | Path) -> None:
    """Nobody would look for the artefacts of a run in a folder called `s3:`."""
    with pytest.raises(InvalidStore, match="'s3://bucket/folder'"):
        Store(root)


MISSING = """
import sys
from torchsystem.errors import MissingExtra
from torchsystem.storage.store import Store
for package in sys.argv[2:]:
    sys.modules[package] = None
try:
    Store(sys.argv[1])
except MissingExtra as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("url", "missing", "remedy"),
    [
        ("memory://runs", "fsspec", "Write: pip install 'torchsystem[storage]'"),
        ("s3://runs", "fsspec", "Write: pip install 'torchsystem[s3,storage]'"),
        ("s3://runs", "s3fs", "Write: pip install 'torchsystem[s3,storage]'"),
        ("gcs://runs", "gcsfs", "Please install gcsfs to access Google Storage. Install that package;"),
    ],
)
def test_a_missing_package_is_named_with_what_brings_it(url: str, missing: str, remedy: str) -> None:
    """And no extra is named that does not bring it."""
    said, _ = start(MISSING, url, missing).communicate(timeout=200)
    assert remedy in said


def test_a_folder_takes_no_options(tmp_path: Path) -> None:
    """They would be meant for a file system that is not used."""
    with pytest.raises(InvalidStore, match="key"):
        Store(tmp_path, options={"key": "x"})
    assert Store(f"file://{tmp_path}").root == Path(os.path.realpath(tmp_path))


def test_a_store_does_not_move_with_the_working_directory(tmp_path: Path) -> None:
    """A relative root is meant from where it was written."""
    store = Store(os.path.relpath(tmp_path))
    assert store.root == Path(os.path.realpath(tmp_path))
