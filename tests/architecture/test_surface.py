"""The public surface is small, and frozen: a name is promised here before it is promised to anyone else."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

import torchsystem
from tests.architecture.imports import imports, sources

SURFACE = {
    "torchsystem": {"Aggregate", "Compiler", "Depends", "Event", "Events", "Provider", "inject"},
    "torchsystem.compiler": {"Compiler", "Depends", "compile"},
    "torchsystem.depends": {"Depends", "Provider", "ProviderHost", "inject"},
    "torchsystem.domain": {"Aggregate", "Event", "Events"},
    "torchsystem.plans": {
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
    },
    "torchsystem.registry": {
        "Registry",
        "canonical",
        "fingerprint",
        "getarguments",
        "gethash",
        "getmetadata",
        "getname",
        "register",
        "sethash",
        "setname",
    },
    "torchsystem.services": {
        "FOREVER",
        "UNTIL_END_OF_EPOCH",
        "UNTIL_READ",
        "Consumer",
        "Depends",
        "Elapsed",
        "HandlerFailed",
        "Mailbox",
        "Producer",
        "Publisher",
        "Registered",
        "Service",
        "Subscriber",
        "Timers",
        "background",
        "deferred",
        "event",
        "handler",
        "mailbox",
    },
    "torchsystem.storage": {
        "Artefact",
        "BegunAnew",
        "Checkpoint",
        "Layout",
        "Mirror",
        "Repository",
        "Retention",
        "SaveFailed",
        "SkippedCheckpoint",
        "StorageWarning",
        "Store",
        "Unit",
        "UnknownBest",
    },
    "torchsystem.testing": {"JournalContract"},
    "torchsystem.training": {
        "EarlyStopping",
        "Epoch",
        "Optimization",
        "Split",
        "StopOnDegeneratePredictions",
        "StopOnNonFinite",
        "StopOnThreshold",
        "Supervised",
        "Training",
        "WeightAverage",
        "accuracy",
        "batches",
        "device",
        "epochs",
        "interrupts",
        "metrics",
        "precision",
        "seed",
    },
    "torchsystem.triggers": {"after", "at", "every", "once"},
}


@pytest.mark.parametrize(("package", "names"), SURFACE.items(), ids=SURFACE)
def test_a_package_exports_exactly_what_is_promised(package: str, names: set[str]) -> None:
    """`__all__` is the surface; it is sorted, without doubles, and every name in it is there."""
    module = import_module(package)
    exported: list[str] = module.__all__
    assert set(exported) == names
    assert len(exported) == len(names)
    assert all(hasattr(module, name) for name in names)


@pytest.mark.parametrize(("package", "names"), SURFACE.items(), ids=SURFACE)
def test_what_is_public_is_documented(package: str, names: set[str]) -> None:
    """Every public function and class says what it is for."""
    module = import_module(package)
    assert module.__doc__
    undocumented = {name for name in names if not getattr(module, name).__doc__}
    assert undocumented == set()


def test_the_front_door_hands_out_the_very_objects() -> None:
    """A name from `torchsystem` is the one from the package where it lives, and `dir` lists it beforehand."""
    for name in torchsystem.__all__:
        assert name in dir(torchsystem)
        homes = [package for package in SURFACE if package != "torchsystem" and name in SURFACE[package]]
        assert homes
        assert all(getattr(import_module(home), name) is getattr(torchsystem, name) for home in homes)


def test_type_checkers_see_all_that_the_front_door_hands_out() -> None:
    """What is fetched lazily at run time is imported plainly for type checkers, from the same place."""
    modules = sources(Path(torchsystem.__file__).parent)
    seen = {found.target for found in imports(modules["torchsystem"], modules) if found.deferred}
    assert seen == {"torchsystem.compiler", "torchsystem.depends", "torchsystem.domain"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    """`torchsystem.Agregate` fails as any module does."""
    with pytest.raises(AttributeError, match="module 'torchsystem' has no attribute 'Agregate'"):
        torchsystem.Agregate  # noqa: B018 - the access is the act
