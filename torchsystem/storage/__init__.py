"""What survives: checkpoints, and artefacts in places that have names."""

from torchsystem.storage.alarms import BegunAnew, SaveFailed, SkippedCheckpoint, StorageWarning, UnknownBest
from torchsystem.storage.artefacts import Artefact
from torchsystem.storage.checkpoint import Checkpoint
from torchsystem.storage.layout import Layout
from torchsystem.storage.mirror import Mirror
from torchsystem.storage.repository import Repository
from torchsystem.storage.retention import Retention
from torchsystem.storage.store import Store
from torchsystem.storage.unit import Unit

__all__ = [
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
]
