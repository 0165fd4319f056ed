"""Mirrors: what is here is there in the end, whatever the store does meanwhile; and training never waits."""

from __future__ import annotations

import logging
import random
import socket
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from tests.storage.buckets import Bucket, start
from torchsystem.errors import InvalidMirror, MirrorClosed, OutsideRoot
from torchsystem.storage.mirror import Delayed, Incomplete, Mirror, News, Recovered
from torchsystem.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchsystem.storage.places import Source


class Clock:
    """A clock that goes on while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


class Moody(Store):
    """A store in memory that may be away, or dislike a file, and remembers what was sent."""

    def __init__(self) -> None:
        super().__init__(f"memory://{uuid4().hex}")
        self.is_away = False
        self.disliked: set[str] = set()
        self.sent: list[str] = []
        self.after: Callable[[], None] = lambda: None
        self.failures: list[bool] = []

    def put(self, key: str, source: Source, /) -> None:
        if self.is_away or key in self.disliked or (self.failures and self.failures.pop()):
            raise ConnectionError(f"cannot send {key}")
        super().put(key, source)
        self.sent.append(key)
        self.after()

    def sizes(self, folder: str = "", /) -> dict[str, int]:
        if self.is_away:
            raise ConnectionError("cannot list")
        return super().sizes(folder)


class Scene:
    """A folder, a moody store, and a mirror that goes on when it is told to."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.clock = Clock()
        self.store = Moody()
        self.news: list[News] = []
        self.mirror = self.open(**options)

    def open(self, **options: Any) -> Mirror:
        """Open another mirror of the same, as a process that goes on would."""
        return Mirror(
            self.folder, self.store, background=False, clock=self.clock, sleep=self.clock.sleep,
            on_news=self.news.append, **options,
        )  # fmt: skip

    def write(self, key: str, text: str = "x") -> None:
        """Write a file, and tell it."""
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.mirror.tell(key)

    def run(self) -> None:
        """Do all that is due now."""
        while self.mirror.step() == 0.0:
            pass

    def there(self) -> dict[str, str]:
        """Return what is in the store."""
        return {key: self.store.get(key).decode() for key in Store.sizes(self.store)}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Return a scene in an empty folder."""
    return Scene(tmp_path)


def test_what_is_told_is_mirrored(scene: Scene) -> None:
    """A file, and all in a folder, also below a path in the store."""
    scene.write("history.csv", "1")
    scene.write("plots/loss.png", "2")
    scene.write("deep/er/a", "3")
    scene.mirror.tell(scene.folder / "deep")
    scene.run()
    assert scene.there() == {"history.csv": "1", "plots/loss.png": "2", "deep/er/a": "3"}
    assert scene.mirror.missing() == []


def test_what_nobody_told_is_found(tmp_path: Path) -> None:
    """At first, now and then, and when the mirror is closed."""
    (tmp_path / "before").write_text("1")
    scene = Scene(tmp_path, every=60.0)
    scene.run()
    assert scene.there() == {"before": "1"}
    (tmp_path / "between").write_text("2")
    assert scene.mirror.step() == 60.0
    scene.clock.now = 60.0
    scene.run()
    assert scene.there() == {"before": "1", "between": "2"}
    (tmp_path / "before").write_text("changed")
    assert scene.mirror.close() == []
    assert scene.there() == {"before": "changed", "between": "2"}
    assert scene.clock.now == 60.0


def test_drafts_and_hidden_files_stay_here(scene: Scene) -> None:
    """What has not its last name yet, and leases, are of no use elsewhere; links are not followed."""
    for name in [".lease-000001.json", ".saving-3/model", "state.json.draft", "a.tmp", "b.part", "kept"]:
        (scene.folder / name).parent.mkdir(exist_ok=True)
        (scene.folder / name).write_text("x")
    (scene.folder / "link").symlink_to("/etc")
    scene.run()
    assert scene.store.sent == ["kept"]


PARTS = ["1/model", "1/state", "2/model", "2/state", "2/sub/deep", "log"]
FILES = [*PARTS, "1/manifest.json", "2/manifest.json"]


@settings(max_examples=60)
@given(st.permutations(FILES), st.lists(st.booleans(), max_size=30), st.integers(0, 8), st.integers(1, 4))
def test_a_manifest_is_never_there_without_its_parts(
    order: list[str], failures: list[bool], told: int, capacity: int
) -> None:
    """In whatever order they are told, or not, and whatever fails: at no moment does one claim too much."""
    with TemporaryDirectory() as folder:
        scene = Scene(Path(folder), capacity=capacity)
        for key in order:
            path = scene.folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(key)
        for key in order[:told]:
            scene.mirror.tell(key)
        scene.store.failures = failures
        seen: list[set[str]] = []
        scene.store.after = lambda: seen.append(set(scene.there()))
        assert scene.mirror.close(timeout=None) == []
        assert scene.there() == {key: key for key in FILES}
        for present in seen:
            for number in "12":
                if f"{number}/manifest.json" in present:
                    assert {key for key in PARTS if key.startswith(number)} <= present


def test_a_checkpoint_that_goes_away_meanwhile_leaves_no_manifest(scene: Scene) -> None:
    """Retention may remove what is just being sent; what is left of it there does not claim to be whole."""
    scene.write("1/model")
    scene.write("1/state")
    scene.write("1/manifest.json")
    scene.run()
    for name in ["model", "state", "manifest.json"]:
        scene.write(f"2/{name}")
    scene.store.after = lambda: (scene.folder / "2").exists() and (scene.folder / "2").rename(scene.folder / ".gone")  # type: ignore[assignment,func-returns-value]
    scene.run()
    assert [key for key in scene.there() if key.startswith("2/")] == ["2/model"]
    assert scene.mirror.close() == []


def test_a_store_that_is_away_delays(scene: Scene) -> None:
    """It is tried after longer and longer, said once, and all is there when it is back."""
    scene.run()
    scene.store.is_away = True
    scene.write("a")
    scene.write("b")
    pauses = []
    for _ in range(8):
        seconds = scene.mirror.step()
        assert seconds is not None
        pauses.append(seconds)
        scene.clock.now += seconds
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    (delayed,) = scene.news
    assert isinstance(delayed, Delayed)
    assert (delayed.waiting, str(delayed.error)) == (2, "cannot send a")
    scene.store.is_away = False
    scene.run()
    assert scene.there() == {"a": "x", "b": "x"}
    assert isinstance(scene.news[-1], Recovered)
    scene.store.is_away = True
    scene.write("c")
    assert scene.mirror.step() == 1.0


def test_it_is_said_again_now_and_then(scene: Scene) -> None:
    """A store that is away for an hour is mentioned some times, and not sixty."""
    scene.store.is_away = True
    scene.write("a")
    while scene.clock.now < 3600:
        scene.clock.now += scene.mirror.step() or 0.0
    assert 5 <= len(scene.news) <= 7


def test_a_store_that_is_away_from_the_start_delays_as_well(tmp_path: Path) -> None:
    """Even what it has cannot be asked; and what nobody told is found when it is back."""
    scene = Scene(tmp_path, every=None)
    scene.store.is_away = True
    (scene.folder / "a").write_text("x")
    assert scene.mirror.step() == 1.0
    scene.store.is_away = False
    scene.clock.now = 1.0
    scene.run()
    assert [type(news) for news in scene.news] == [Delayed, Recovered]
    assert scene.there() == {"a": "x"}


def test_one_file_that_fails_does_not_keep_the_others(scene: Scene) -> None:
    """They go on after each failure, and the one is said in the end."""
    scene.store.disliked = {"a"}
    for key in "abc":
        scene.write(key)
    scene.run()
    for _ in range(3):
        scene.clock.now += 1.0
        scene.run()
    assert scene.there() == {"b": "x", "c": "x"}
    assert scene.mirror.close(timeout=100) == ["a"]
    assert scene.news[-1] == Incomplete(("a",))


def test_a_name_that_cannot_be_there_is_not_tried_for_ever(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged at once, said in the end, and a manifest above it does not claim that it is there."""
    scene.write("1/a:b")
    scene.write("1/manifest.json")
    scene.write("c")
    scene.run()
    assert scene.there() == {"c": "x"}
    assert caplog.text.count("never will be") == 1
    assert scene.mirror.close() == ["1/a:b", "1/manifest.json"]


def test_what_waits_is_bounded_and_nothing_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Beyond the capacity names are forgotten, said, and found again in the folder."""
    scene = Scene(tmp_path, capacity=3, every=None)
    scene.run()
    scene.store.is_away = True
    for number in range(20):
        scene.write(str(number))
    assert caplog.text.count("3 files wait") == 1
    for _ in range(4):
        scene.clock.now += scene.mirror.step() or 0.0
    assert isinstance(scene.news[0], Delayed)
    assert scene.news[0].waiting == 3
    scene.store.is_away = False
    scene.run()
    assert len(scene.there()) == 20
    assert scene.mirror.close() == []


def test_at_close_it_says_what_is_missing(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """By return, log and news; it does not take longer than it may, and raises nothing."""
    scene.write("a")
    scene.run()
    scene.store.is_away = True
    scene.write("b")
    scene.write("a", "changed")
    with caplog.at_level(logging.WARNING):
        assert scene.mirror.close(timeout=10) == ["a", "b"]
    assert scene.clock.now == 10
    assert scene.news[-1] == Incomplete(("a", "b"))
    assert "Incomplete(files=('a', 'b'))" in caplog.text
    assert scene.mirror.close() == []


def test_what_changes_while_it_is_sent_is_sent_again(scene: Scene) -> None:
    """What was sent is then known to be old, and the newest content is there in the end."""
    changes = iter(["second", "third"])

    def change() -> None:
        text = next(changes, None)
        if text is not None:
            (scene.folder / "log").write_text(text)

    scene.store.after = change
    scene.write("log", "first")
    for text in ["first", "second"]:
        scene.run()
        assert scene.there() == {"log": text}
        assert scene.mirror.missing() == ["log"]
        scene.clock.now += 60.0
    scene.run()
    assert scene.there() == {"log": "third"}
    assert scene.mirror.missing() == []


def test_a_process_that_goes_on_sends_only_what_is_new(scene: Scene) -> None:
    """It knows what was sent by the one before; and sends what is gone there, or was changed here."""
    for key in "abcd":
        scene.write(key)
    assert scene.mirror.close() == []
    (scene.folder / "b").write_text("y")
    fsspec.filesystem("memory").rm_file(f"{scene.store._place._open()[1]}/c")  # type: ignore[attr-defined]  # noqa: SLF001
    scene.store.sent.clear()
    assert scene.open().close() == []
    assert sorted(scene.store.sent) == ["b", "c"]
    scene.store.sent.clear()
    assert scene.open(into="other").close() == []
    assert sorted(scene.store.sent) == ["other/a", "other/b", "other/c", "other/d"]


@pytest.mark.parametrize("record", ['{"target"', "[]", '{"sent": []}', '{"sent": {"a": 1}}'])
def test_a_record_that_cannot_be_read_costs_time_only(
    scene: Scene, caplog: pytest.LogCaptureFixture, record: str
) -> None:
    """Everything is sent again."""
    scene.write("a")
    scene.mirror.close()
    (scene.folder / ".mirror.json").write_text(record)
    scene.store.sent.clear()
    assert scene.open().close() == []
    assert scene.store.sent == ["a"]
    assert "cannot be read" in caplog.text


def test_what_is_removed_here_stays_there(scene: Scene) -> None:
    """A folder that was emptied by accident does not empty its mirror."""
    scene.write("a")
    scene.run()
    (scene.folder / "a").unlink()
    assert scene.mirror.close() == []
    assert scene.there() == {"a": "x"}


def test_news_that_nobody_can_bear_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A listener that fails does not end the mirror."""

    def fail(news: News) -> None:
        raise RuntimeError(f"not now: {news}")

    store, clock = Moody(), Clock()
    store.is_away = True
    (tmp_path / "a").write_text("x")
    mirror = Mirror(tmp_path, store, background=False, clock=clock, sleep=clock.sleep, on_news=fail)
    assert mirror.step() == 1.0
    assert "not now" in caplog.text


def test_telling_too_late_or_from_outside_is_refused(scene: Scene) -> None:
    """It would not be mirrored, and nobody would know."""
    with pytest.raises(OutsideRoot, match="is not in"):
        scene.mirror.tell("../other")
    scene.mirror.close()
    with pytest.raises(MirrorClosed, match="closed"):
        scene.mirror.tell("a")


@pytest.mark.parametrize("options", [{"every": 0.0}, {"capacity": 0}, {"first": 0.0}, {"first": 9.0, "longest": 1.0}])
def test_numbers_without_meaning_are_refused(scene: Scene, options: dict[str, Any]) -> None:
    """When the mirror is made."""
    with pytest.raises(InvalidMirror, match=next(iter(options)) if len(options) == 1 else "longest"):
        scene.open(**options)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    """An address alone, for one."""
    with pytest.raises(InvalidMirror, match=r"Store\('s3:"):
        Mirror(tmp_path, "s3://bucket")  # type: ignore[arg-type]


def test_a_mirror_does_not_mirror_itself(tmp_path: Path) -> None:
    """What it sent would be found again, and sent again, for ever."""
    for there in [tmp_path, tmp_path / "mirror"]:
        with pytest.raises(InvalidMirror, match="mirror itself"):
            Mirror(tmp_path, Store(there))


def test_training_does_not_wait_for_the_store(tmp_path: Path) -> None:
    """While the store hangs, telling returns; when it goes on, all is sent by the thread."""

    class Hanging(Moody):
        def __init__(self) -> None:
            super().__init__()
            self.reached, self.let_go = Event(), Event()

        def put(self, key: str, source: Source, /) -> None:
            self.reached.set()
            assert self.let_go.wait(200)
            super().put(key, source)

    store = Hanging()
    with Mirror(tmp_path, store) as mirror:
        for number in range(50):
            (tmp_path / str(number)).write_text("x")
            mirror.tell(str(number))
        assert store.reached.wait(200)
        mirror.tell("0")
        assert store.sent == []
        assert mirror.close(timeout=0.01) == sorted(map(str, range(50)))
        store.let_go.set()


UNCLOSED = """
import sys
from pathlib import Path
from torchsystem.storage.mirror import Mirror
from torchsystem.storage.store import Store
mirror = Mirror(sys.argv[1], Store(sys.argv[2]))
Path(sys.argv[1], "last").write_text("x")
"""


def test_what_was_not_closed_is_mirrored_at_exit(tmp_path: Path) -> None:
    """A program that just ends loses nothing, if the store is there."""
    (tmp_path / "here").mkdir()
    program = start(UNCLOSED, str(tmp_path / "here"), str(tmp_path / "there"))
    program.communicate(timeout=200)
    assert program.returncode == 0
    assert (tmp_path / "there" / "last").read_text() == "x"


IN_POOLS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from torchsystem.storage.mirror import Mirror
from torchsystem.storage.store import Store

class Pooled(Store):
    first = Event()

    def put(self, key, source):
        ThreadPoolExecutor(1).submit(super().put, key, source).result()
        self.first.set()

here, there = sys.argv[1:]
Path(here, "first").write_text("x")
mirror = Mirror(here, Pooled(there), every=None)
mirror.tell("first")
assert Pooled.first.wait(200)
Path(here, "last").write_text("x")
"""


def test_what_was_not_closed_is_mirrored_at_exit_to_a_store_that_needs_threads(tmp_path: Path) -> None:
    """As those of fsspec do to open a connection, for which it is too late when the interpreter has begun to exit."""
    (tmp_path / "here").mkdir()
    program = start(IN_POOLS, str(tmp_path / "here"), str(tmp_path / "there"))
    program.communicate(timeout=200)
    assert program.returncode == 0
    assert (tmp_path / "there" / "last").read_text() == "x"


def test_what_is_told_while_the_mirror_goes_to_sleep_wakes_it(tmp_path: Path) -> None:
    """Not only the next look through the folder, minutes later."""
    store = Moody()

    class Late(Mirror):
        """A mirror that is told something when it has found nothing to do, and does not sleep yet."""

        def step(self) -> float | None:
            seconds = super().step()
            if seconds != 0.0 and not (tmp_path / "late").exists():
                (tmp_path / "late").write_text("x")
                self.tell("late")
            return seconds

    sent = Event()
    store.after = sent.set
    with Late(tmp_path, store, every=3600.0):
        assert sent.wait(200)
    assert store.sent == ["late"]


def port_of_nobody() -> int:
    """Return a port that systems give to no connection: else one that is tried again and again might get its own."""
    for port in random.sample(range(20_000, 32_000), 1000):
        with suppress(OSError), socket.socket() as found:
            found.bind(("127.0.0.1", port))
            return port
    raise AssertionError


def test_a_bucket_that_goes_away_and_comes_back_has_all_of_it(tmp_path: Path) -> None:
    """Against a real server, which is stopped and started again while files are told."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port_of_nobody(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options: dict[str, Any] = {
        "key": "nobody",
        "secret": "nothing",
        "client_kwargs": {"endpoint_url": f"http://{host}:{port}", "region_name": "eu-west-1"},
        "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 5},
    }
    fsspec.filesystem("s3", **options).mkdir(name := f"away-{uuid4().hex}")
    store, delayed, recovered = Store(f"s3://{name}/runs", options=options), Event(), Event()

    def hear(news: News) -> None:
        (delayed if isinstance(news, Delayed) else recovered).set()

    mirror = Mirror(tmp_path, store, into="first", first=0.05, longest=0.2, on_news=hear)
    (tmp_path / "before").write_text("1")
    mirror.tell("before")
    server.stop()
    (tmp_path / "meanwhile").write_text("2")
    mirror.tell("meanwhile")
    assert delayed.wait(200)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        assert recovered.wait(200)
        assert mirror.close() == []
        assert store.keys() == ["first/before", "first/meanwhile"]
        assert store.get("first/meanwhile") == b"2"
    finally:
        server.stop()


def test_a_bucket_holds_the_folder_of_a_run(tmp_path: Path, bucket: Bucket) -> None:
    """On a real server, a manifest after its parts, in the order in which they were stored."""
    for name in ["manifest.json", "model", "state"]:
        (tmp_path / "1").mkdir(exist_ok=True)
        (tmp_path / "1" / name).write_text(name)
    store = Store(bucket.url, options=bucket.options)
    with Mirror(tmp_path, store, into="digits/first") as mirror:
        mirror.tell("1/manifest.json")
    assert store.keys("digits") == [f"digits/first/1/{name}" for name in ["manifest.json", "model", "state"]]
    assert mirror.missing() == []
