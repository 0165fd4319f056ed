"""What changes: aggregates, and the events inside them.

A domain knows of modules, losses and epochs, and nothing of devices, files and loggers.
"""

from torchsystem.domain.aggregate import Aggregate
from torchsystem.domain.events import Event, Events

__all__ = ["Aggregate", "Event", "Events"]
