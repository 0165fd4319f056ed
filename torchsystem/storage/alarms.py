"""What is said aloud, by warning, where work goes on."""

from __future__ import annotations


class StorageWarning(UserWarning):
    """Stand for anything in storage that goes on in another way than was meant."""


class BegunAnew(StorageWarning):
    """A training begins anew where checkpoints of an earlier one are, which its own will replace."""


class SkippedCheckpoint(StorageWarning):
    """A checkpoint is broken, and an older one is used."""


class SaveFailed(StorageWarning):
    """A checkpoint could not be saved, and the run goes on without."""


class UnknownBest(StorageWarning):
    """The best checkpoint cannot be told, because the metric it is told by was never given."""
