"""Build training systems the way good web services are built.

The names below are the whole of the first screen; each lives in a package of its own, which says more about it:

- `torchsystem.depends`: `Depends`, `Provider`, `inject` — what a function needs,
- `torchsystem.domain`: `Aggregate`, `Event`, `Events` — what changes,
- `torchsystem.compiler`: `Compiler` — how an aggregate is built,
- `torchsystem.services` — who acts and who listens,
- `torchsystem.registry` — what a thing is.

Importing this package imports none of them: a name is fetched when it is first asked for (PEP 562), so that whoever
needs no tensors never waits for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchsystem.compiler import Compiler
    from torchsystem.depends import Depends, Provider, inject
    from torchsystem.domain import Aggregate, Event, Events

__all__ = ["Aggregate", "Compiler", "Depends", "Event", "Events", "Provider", "inject"]

_HOMES = {
    "Aggregate": "torchsystem.domain",
    "Compiler": "torchsystem.compiler",
    "Depends": "torchsystem.depends",
    "Event": "torchsystem.domain",
    "Events": "torchsystem.domain",
    "Provider": "torchsystem.depends",
    "inject": "torchsystem.depends",
}


def __getattr__(name: str) -> object:
    """Fetch a public name from where it lives, and keep it."""
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, fetched or not, beside what every module has."""
    return sorted({*globals(), *__all__})
