"""Where a run comes from: the code, the machine, and how it was called. Secrets are left out."""

from __future__ import annotations

import inspect
import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from torchsystem.adapters.redaction import command_line

ENVIRONMENT = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
    "RANK",
    "WORLD_SIZE",
)
SECONDS = 20.0
NO_GIT = "git is not installed"
_APPLICABLE = (
    "--no-color", "--no-ext-diff", "--no-textconv", "--no-relative", "--binary", "--src-prefix=a/", "--dst-prefix=b/",
)  # fmt: skip

logger = logging.getLogger(__name__)


def environment(allowed: Iterable[str], variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment variables that are allowed, and no other.

    Args:
        allowed: Their names.
        variables: The environment.
    """
    return {name: variables[name] for name in sorted(allowed) if name in variables}


def libraries() -> dict[str, str]:
    """Return the versions of all installed distributions, by name."""
    found = ((each.metadata["Name"], each.version) for each in distributions())
    return dict(sorted({name: version for name, version in found if name}.items(), key=lambda pair: pair[0].lower()))


def machine() -> dict[str, Any]:
    """Return what the run runs on: Python, torch, the system, and its devices."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cuda": torch.version.cuda,
        "devices": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def source_of(cls: type) -> Path | None:
    """Return the file that a class was written in; None where there is none, as in a notebook."""
    try:
        found = inspect.getsourcefile(cls)
    except (OSError, TypeError):
        return None
    return None if found is None or not Path(found).is_file() else Path(found)


def revision(folder: Path) -> dict[str, Any]:
    """Return the commit that a folder is at, and which files differ from it.

    Args:
        folder: A folder, perhaps inside a repository of git.

    Returns:
        `commit`, `branch`, `changed` and `untracked`; only `unknown`, with the reason, where there is no repository.
    """
    commit, reason = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {"unknown": reason}
    branch, _ = _git(folder, "rev-parse", "--abbrev-ref", "HEAD")
    status, reason = _git(folder, "status", "--porcelain=v1", "-z", "--no-renames")
    if status is None:
        return {"commit": commit.strip(), "unknown": reason}
    entries = [(entry[:2], entry[3:]) for entry in status.split("\0") if entry]
    return {
        "commit": commit.strip(),
        "branch": (branch or "").strip(),
        "changed": [path for state, path in entries if state != "??"],
        "untracked": [path for state, path in entries if state == "??"],
    }


def difference(folder: Path) -> str:
    """Return what the files that git tracks have that their commit has not; nothing where there is no repository.

    It can be applied whatever the files hold, and however the user likes to see differences. Bytes that are no UTF-8
    are surrogates, to be written as they were.
    """
    text, reason = _git(folder, "diff", *_APPLICABLE, "HEAD")
    if text is None and not any(known in reason for known in ("not a git repository", NO_GIT)):
        logger.warning("What is not committed in %s is not kept: %s", folder, reason)
    return "" if text is None else text


def arguments() -> list[str]:
    """Return how this process was called, secrets hidden."""
    return command_line(sys.argv)


def _git(folder: Path, *words: str) -> tuple[str | None, str]:
    """Run git in a folder; return what it printed, or None and why not."""
    program = shutil.which("git")
    if program is None:
        return None, NO_GIT
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(  # noqa: S603 - the program is git's, the words are ours
            [program, "-C", str(folder), *words],
            env={**variables, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    if done.returncode != 0:
        return None, done.stderr.decode(errors="replace").strip().partition("\n")[0]
    return done.stdout.decode(errors="surrogateescape"), ""
