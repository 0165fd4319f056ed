"""The ledger: what was written by whom, whatever became of them meanwhile."""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.buckets import at_once, start
from torchsystem.storage.elsewhere import Elsewhere
from torchsystem.storage.ledger import FOLDER, LINES, Ledger
from torchsystem.storage.places import Folder, Place


class Clock:
    """A clock that goes on by a second each time that it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture(params=["folder", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return an empty place."""
    return Folder(tmp_path) if request.param == "folder" else Elsewhere(f"memory://{uuid4().hex}", {})


def write(ledger: Ledger, *keys: str) -> None:
    """Write a line for each key."""
    for key in keys:
        ledger.add("written", key, "notes", size=1, sha256="ab")


def keys(place: Place) -> list[str]:
    """Read which keys the ledger of a place knows of, with fresh eyes."""
    return [entry.key for entry in Ledger(place).entries()]


def test_a_line_says_what_was_written_by_whom(place: Place) -> None:
    """Key, kind, size and digest; who, on which machine, in which process, and when."""
    entry = Ledger(place, by="trainer", clock=lambda: 0.0).add("written", "a/b", "notes", size=3, sha256="ab")
    (read,) = Ledger(place).entries()
    assert read == entry
    assert (read.action, read.key, read.kind, read.size, read.sha256) == ("written", "a/b", "notes", 3, "ab")
    assert (read.by, read.host, read.process) == ("trainer", platform.node(), os.getpid())
    assert read.at == "1970-01-01T00:00:00+00:00"


def test_lines_of_several_writers_are_read_in_the_order_of_time(place: Place) -> None:
    """However many write, and each into files of its own."""
    clock = Clock()
    ledgers = [Ledger(place, clock=clock) for _ in range(3)]
    expected = [str(number) for number in range(12)]
    for number, key in enumerate(expected):
        write(ledgers[number % 3], key)
    assert keys(place) == expected


def test_many_lines_make_several_files(place: Place) -> None:
    """Where a file cannot be added to, each line writes one anew: it must not grow for ever."""
    write(Ledger(place, clock=Clock()), *map(str, range(2 * LINES + 1)))
    assert len(list(place.keys(FOLDER))) == 3
    assert keys(place) == list(map(str, range(2 * LINES + 1)))


def test_threads_do_not_get_between_one_another(place: Place) -> None:
    """All lines of all threads are there, whole."""
    ledger = Ledger(place)
    at_once(8, lambda index: write(ledger, *(f"{index}-{number}" for number in range(5))))
    assert sorted(keys(place)) == sorted(f"{index}-{number}" for index in range(8) for number in range(5))


@settings(max_examples=25)
@given(st.data())
def test_a_line_that_was_cut_off_is_said_and_skipped(data: st.DataObject) -> None:
    """Wherever the file ends: all lines before are read, and the next process goes on."""
    place = Elsewhere(f"memory://{uuid4().hex}", {})
    write(Ledger(place, clock=Clock()), "a", "b", "c")
    ((name, size),) = place.keys(FOLDER)
    cut = data.draw(st.integers(0, size))
    whole = place.read(name)
    place.write(name, whole[:cut])
    count = whole[:cut].count(b"\n")
    assert keys(place) == ["a", "b", "c"][:count]
    write(Ledger(place), "d")
    assert keys(place) == [*["a", "b", "c"][:count], "d"]


def test_what_cannot_be_read_is_named(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """By file and line; nothing is dropped in silence."""
    write(Ledger(place), "a")
    ((name, _),) = place.keys(FOLDER)
    good = place.read(name)
    odd = [json.dumps({**json.loads(good), **other}).encode() for other in ({"at": 1}, {"key": ["a"]}, {"size": "1"})]
    place.write(name, good + b"\n".join([b"[]", b'{"key": 1}', *odd, b"\xff"]) + b"\n" + good + b'{"action": "wri')
    with caplog.at_level(logging.WARNING):
        assert keys(place) == ["a", "a"]
    assert [number for number in range(1, 10) if f"Line {number}" in caplog.text] == [2, 3, 4, 5, 6, 7]
    assert "cut off" in caplog.text


def test_a_failed_line_is_not_continued(tmp_path: Path) -> None:
    """After a write that failed half way the next line is in a file of its own."""

    class Full(Folder):
        is_full = False

        def append(self, key: str, data: bytes, before: bytes) -> None:
            super().append(key, data[:10] if self.is_full else data, before)
            if self.is_full:
                raise OSError("no space left on device")

    place = Full(tmp_path)
    ledger = Ledger(place)
    write(ledger, "a")
    place.is_full = True
    with pytest.raises(OSError, match="no space"):
        write(ledger, "b")
    place.is_full = False
    write(ledger, "c")
    assert keys(place) == ["a", "c"]


FORKED = """
import os, sys
from pathlib import Path
from torchsystem.storage.ledger import Ledger
from torchsystem.storage.places import Folder
ledger = Ledger(Folder(Path(sys.argv[1])))
for name in ["parent", "child"]:
    if name == "parent" or os.fork() == 0:
        ledger.add("written", name, "notes", size=1, sha256="ab")
"""


def test_a_process_that_was_forked_writes_a_file_of_its_own(tmp_path: Path) -> None:
    """It would go on where its parent was, and so would the parent."""
    start(FORKED, str(tmp_path)).communicate(timeout=200)
    files = [Path(name) for name, _ in Folder(tmp_path).keys(FOLDER)]
    assert len(files) == 2
    assert sorted(keys(Folder(tmp_path))) == ["child", "parent"]


FORKED_AMID = """
import os, sys
from pathlib import Path
from threading import Event, Thread
from torchsystem.storage.ledger import Ledger
from torchsystem.storage.places import Folder

class Slow(Folder):
    is_amid, goes_on = Event(), Event()

    def append(self, key, data, before):
        if not self.goes_on.is_set():
            self.is_amid.set()
            self.goes_on.wait()
        super().append(key, data, before)

ledger = Ledger(Slow(Path(sys.argv[1])))
def add(name):
    ledger.add("written", name, "notes", size=1, sha256="ab")
thread = Thread(target=add, args=("parent",))
thread.start()
Slow.is_amid.wait()
if (child := os.fork()) == 0:
    Slow.goes_on = Event()
    Slow.goes_on.set()
    add("child")
    os._exit(0)
os.waitpid(child, 0)
Slow.goes_on.set()
thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_process_that_was_forked_waits_for_no_thread_of_its_parent(tmp_path: Path) -> None:
    """Which was adding a line when the process was forked, and does not exist in the child."""
    process = start(FORKED_AMID, str(tmp_path))
    try:
        process.communicate(timeout=200)
    finally:
        process.kill()
    assert sorted(keys(Folder(tmp_path))) == ["child", "parent"]


KILLED = """
import sys
from pathlib import Path
from torchsystem.storage.ledger import Ledger
from torchsystem.storage.places import Folder
ledger = Ledger(Folder(Path(sys.argv[1])))
number = 0
while True:
    ledger.add("written", str(number), "notes", size=1, sha256="ab")
    print(number, flush=True)
    number += 1
"""


def test_a_killed_writer_loses_no_line_that_was_done(tmp_path: Path) -> None:
    """Killed at any moment: what `add` has returned for is there."""
    with start(KILLED, str(tmp_path)) as writer:
        assert writer.stdout is not None
        for _ in range(5):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        said = 5 + len(writer.stdout.read().split())  # `communicate` would leave out what is in the buffer
    found = keys(Folder(tmp_path))
    assert found == list(map(str, range(len(found))))
    assert said <= len(found) <= said + 1


def test_lines_are_plain_json(tmp_path: Path) -> None:
    """Anyone can read them without this library."""
    place = Folder(tmp_path)
    write(Ledger(place, by="ünïcode"), "a", "b")
    ((name, _),) = place.keys(FOLDER)
    lines = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
    assert [(line["key"], line["by"]) for line in lines] == [("a", "ünïcode"), ("b", "ünïcode")]
