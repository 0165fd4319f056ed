"""Files that are replaced as a whole: whoever reads one sees the old or the new, and never a part."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Generator[Path]:
    """Give a path beside that of a file; what is written there takes its place if the block succeeds.

    Args:
        path: The file. Its folder is made if need be.

    Yields:
        Where to write, of the same suffix.

    Examples:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from torchsystem.adapters.files import replacing
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "notes.txt")
        ...     with replacing(file) as beside:
        ...         _ = beside.write_text("whole")
        ...     file.read_text()
        'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
