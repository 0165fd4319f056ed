"""Importing is cheap and quiet: it defines things, and does nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.imports import sources
from tests.architecture.layers import LAYERS
from tests.architecture.statements import deeds

PACKAGE = Path(__file__).parents[2] / "torchsystem"
WATCH = str(Path(__file__).with_name("watch.py"))
MODULES = sources(PACKAGE)
RIM = {part for part, layer in LAYERS.items() if layer == 3}
TORCHLESS = {"torchsystem", "services", "compiler", "plans", *(part for part, layer in LAYERS.items() if layer == 0)}


def part(name: str) -> str:
    """Return the part of the house that a module is in; the house itself for its front door."""
    return name.split(".")[1] if "." in name else name


def run(*arguments: str, path: Path = PACKAGE.parent) -> str:
    """Run a fresh interpreter, with a folder to import from, and return all that it printed; it must end well."""
    done = subprocess.run(  # noqa: S603 - our own interpreter, our own programs
        [sys.executable, "-B", *arguments],
        cwd=PACKAGE.parent,
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", [name for name in MODULES if part(name) in TORCHLESS])
def test_importing_does_not_import_torch(name: str) -> None:
    """The front door, layer 0, `services`, `compiler` and `plans` are there at once: none of them waits for torch."""
    assert run("-c", f"import sys, {name}; print('torch' in sys.modules)").strip() == "False"


@pytest.mark.parametrize("name", sorted({part(name) for name in MODULES if name != "torchsystem"} - RIM))
def test_importing_does_nothing(name: str) -> None:
    """No file written, no socket, process, thread, signal or exit handler, and not a word printed."""
    assert run(WATCH, f"torchsystem.{name}", *(() if name in TORCHLESS else ("torch",))) == ""


def test_the_watch_sees_what_an_import_does(tmp_path: Path) -> None:
    """A module that writes a file, starts a thread and leaves handlers behind is seen doing all of it."""
    (tmp_path / "busy.py").write_text(
        "import atexit, logging, signal, sys, threading\n"
        "open(__file__ + '.txt', 'w').close()\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "atexit.register(int)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "logging.basicConfig()\n"
        "sys.excepthook = print\n"
        "print('hello')\n"
    )
    seen = run(WATCH, "busy", path=tmp_path)
    assert "does open" in seen
    assert "hello" in seen
    changes = {line.removeprefix("changes ") for line in seen.splitlines() if line.startswith("changes ")}
    assert changes == {"threads", "exit handlers", "signal handlers", "log handlers", "hooks"}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_only_defines(name: str) -> None:
    """At its top level a module imports, assigns, defines functions and classes, and does nothing."""
    assert deeds(MODULES[name].text) == []


@pytest.mark.parametrize(
    ("text", "deed"),
    [
        ("print('hello')", "1: print('hello')"),
        ("x = 1\nfor y in ():\n    pass", "2: for y in ():"),
        ("if True:\n    run()", "2: run()"),
        ("try:\n    import torch\nexcept ImportError:\n    print()", "4: print()"),
        ("with door():\n    pass", "1: with door():"),
        ("x = []\nx += [1]", "2: x += [1]"),
        ("x = 1\ndel x", "2: del x"),
        ("assert door", "1: assert door"),
    ],
)
def test_a_deed_at_the_top_level_is_found(text: str, deed: str) -> None:
    """Calls, loops, blocks and changes are found, also below `if` and `try`."""
    assert deeds(text) == [deed]


@pytest.mark.parametrize(
    "text",
    [
        '"""A docstring."""\nimport os\nfrom os import path\nx = 1\ny: int = f()',
        "def g(): run()\nclass C: run()\nasync def h(): run()",
        "if TYPE_CHECKING:\n    import torch\nelse:\n    pass",
        "try:\n    import rich\nexcept ImportError as error:\n    raise MissingExtra('rich') from error",
    ],
)
def test_definitions_are_no_deeds(text: str) -> None:
    """What every module consists of may stand; so may the refusal to be imported without an extra."""
    assert deeds(text) == []
