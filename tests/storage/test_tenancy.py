"""Several repositories of one process, in whatever threads, that write in one folder."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import torch

from tests.storage.disk import Slow
from torchsystem.storage import Repository, Retention


def test_who_leaves_takes_the_folder_from_nobody(tmp_path: Path) -> None:
    """A save goes on while another repository closes, and a third one comes: neither cleans it away."""
    disk = Slow()
    (tmp_path / "link").symlink_to(tmp_path / "runs", target_is_directory=True)
    writing, leaving = Repository(tmp_path / "runs", files=disk), Repository(tmp_path / "runs")
    leaving.claim()
    writing.save({"weight": torch.ones(2)}, id="first", wait=False)
    assert disk.begun.wait(200)
    leaving.close()
    with Repository(tmp_path / "link") as coming:
        coming.save({"weight": torch.ones(2)}, id="second")
        disk.go.set()
        writing.close()
        assert [each.number for each in coming.verify(None, id="first")] == [1]
        assert [each.number for each in coming.verify(None, id="second")] == [1]
    assert [path.suffix for path in (tmp_path / "runs" / "default").glob(".lease*")] == [".free"]


def test_threads_save_the_same_thing_one_after_the_other(tmp_path: Path) -> None:
    """No number is given twice, and each goes by its own rule, which finds the newest whole."""
    failures: list[BaseException] = []

    def save(thread: int) -> None:
        try:
            with Repository(tmp_path, retention=Retention(keep_last=4)) as repository:
                for number in range(8):
                    repository.save({"thread": torch.tensor(thread)}, id="shared", wait=number % 2 == 0)
        except BaseException as error:  # noqa: BLE001 - the test tells
            failures.append(error)

    threads = [Thread(target=save, args=(thread,)) for thread in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Repository(tmp_path) as repository:
        assert [each.number for each in repository.verify(None, id="shared")] == [21, 22, 23, 24]
