"""The files of this machine: what they say when they fail."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from torchsystem.storage.ports import LocalFiles


def chunks() -> Iterator[bytes]:
    """Give one chunk, after which the disk is full; an error of a file that is open has no name in it."""
    yield b"one"
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Whoever reads that a disk is full wants to know which."""
    with pytest.raises(OSError, match="No space left") as caught:
        LocalFiles().write(tmp_path / "weights", chunks())
    assert caught.value.filename == str(tmp_path / "weights")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """A file that is there stays as it is."""
    (tmp_path / "weights").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        LocalFiles().write(tmp_path / "weights", [b"new"])
    assert (tmp_path / "weights").read_bytes() == b"old"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a file system that cannot sync folders")
def test_a_file_system_that_cannot_sync_folders_will_do() -> None:
    """As some shares; one that has such a sync and fails in it is an error."""
    LocalFiles().sync_folder(Path("/proc"))
    with pytest.raises(FileNotFoundError):
        LocalFiles().sync_folder(Path("/proc/nowhere"))
