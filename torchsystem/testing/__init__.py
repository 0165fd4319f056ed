"""What tests of systems built with torchsystem need: contracts as suites, to be run on one's own implementations.

- `JournalContract`: what every journal of plans keeps.
"""

from torchsystem.testing.journals import JournalContract

__all__ = ["JournalContract"]
