"""What an aggregate costs beside a plain module: reading and writing attributes.

    taskset -c 0 python benchmarks/aggregates.py

The first line of each case is a plain `torch.nn.Module` with the same attributes; a case does its statement ten times.
Writing another epoch includes calling the hook. Writing another phase stands beside the calls of `train` and `eval`
that it makes, of which torch's own share grows with the number of modules: there is no target. Exits with 1 when a
target is missed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from timing import Operation, table
from torch import nn

from torchsystem import Aggregate

CASES = {
    "reading an attribute": "module.patience",
    "reading a module": "module.nn",
    "reading the epoch": "module.epoch",
    "reading the phase": "module.phase",
    "writing an attribute": "module.patience = 4",
    "writing the same epoch": "module.epoch = 0",
    "writing another epoch": "module.epoch += 1",
    "writing the same phase": "module.phase = 'train'",
    "writing another phase": "module.phase = 'evaluation'; module.phase = 'train'",
}
PLAINLY = {"writing another phase": "module.eval(); module.train()"}
TARGETS = {case: 1.2 if case.startswith("writing the") or case == "writing another epoch" else 1.05 for case in CASES}
del TARGETS["writing another phase"]


def made(base: type[nn.Module]) -> Any:
    """Make a module of a few parts."""
    module: Any = base()
    module.nn = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    module.patience = 3
    module.epoch = 0
    module.phase = "train"
    return module


def repeated(statement: str) -> Callable[..., None]:
    """Make a function that does a statement ten times."""
    namespace: dict[str, Any] = {}
    lines = "\n    ".join([statement] * 10)
    exec(f"def repeat(module):\n    {lines}", namespace)  # noqa: S102 - our own text
    function: Callable[..., None] = namespace["repeat"]
    return function


if __name__ == "__main__":
    cases = {
        case: [
            Operation("a plain module", repeated(PLAINLY.get(case, statement)), (made(nn.Module),)),
            Operation("torchsystem", repeated(statement), (made(Aggregate),)),
        ]
        for case, statement in CASES.items()
    }
    sys.exit(not table("Attributes, ten times each", cases, TARGETS))
