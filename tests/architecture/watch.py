"""Import a module, named on the command line, and print whatever importing it does to the world around it.

Run as a program in a fresh interpreter. Modules named after the first are imported before the watch begins: what they
do is their own affair.
"""

from __future__ import annotations

import atexit
import logging
import signal
import sys
import threading
from importlib import import_module

WRITING = set("wax+")
DOING = {"os.fork", "os.mkdir", "os.putenv", "os.remove", "os.rename", "os.system", "subprocess.Popen"}


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """Print an audit event (PEP 578) that leaves a trace outside the interpreter."""
    writes = event == "open" and WRITING & set(str(arguments[1] or ""))
    if writes or event in DOING or event.startswith("socket."):
        print("does", event, arguments)


def state() -> dict[str, object]:
    """Return what an import must leave as it was: threads, exit and signal handlers, logging, hooks."""
    return {
        "threads": threading.active_count(),
        "exit handlers": atexit._ncallbacks(),  # noqa: SLF001 - nothing else counts them
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "log handlers": list(logging.root.handlers),
        "hooks": (sys.excepthook, sys.getprofile(), sys.gettrace()),
    }


def main(name: str, *others: str) -> None:
    """Import the others unseen, then the module under watch."""
    for other in others:
        import_module(other)
    before = state()
    sys.addaudithook(watch)
    import_module(name)
    for what, value in state().items():
        if value != before[what]:
            print("changes", what)


if __name__ == "__main__":
    main(*sys.argv[1:])
