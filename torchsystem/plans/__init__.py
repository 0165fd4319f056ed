"""Plans: an experiment as steps that are each done once, and continued after anything.

- `Plan`: an ordered list of steps, each the handler of an action with its arguments.
- `Journal`: a SQLite file in which plans are written down; `MemoryJournal`: the same in memory, for tests.
- `JournalPort`: what another kind of journal has to be.
- `Reference`: the result of a step, before there is one.
- `Retry`: runs a failing step again, each time after a longer wait.
- `step_key`, `step_seed`: what a step knows of itself, to be asked for with `Depends`.
- `PlanStarted`, `StepStarted`, `StepFinished`, `StepFailed`, `PlanFinished`: what a plan tells while it is run.
"""

from torchsystem.plans.context import step_key, step_seed
from torchsystem.plans.events import PlanFinished, PlanStarted, StepFailed, StepFinished, StepStarted
from torchsystem.plans.failures import Retry
from torchsystem.plans.journal import Journal
from torchsystem.plans.memory import MemoryJournal
from torchsystem.plans.plan import Plan
from torchsystem.plans.ports import JournalPort
from torchsystem.plans.steps import Reference

__all__ = [
    "Journal",
    "JournalPort",
    "MemoryJournal",
    "Plan",
    "PlanFinished",
    "PlanStarted",
    "Reference",
    "Retry",
    "StepFailed",
    "StepFinished",
    "StepStarted",
    "step_key",
    "step_seed",
]
