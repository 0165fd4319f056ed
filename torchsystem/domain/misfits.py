"""What of a snapshot does not fit an aggregate, by name, unless it is accepted."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from torchsystem.errors import SnapshotMismatch

if TYPE_CHECKING:
    from collections.abc import Iterable

SHOWN = 20  # names of each kind in a message; the error has them all


class Misfits:
    """Collect what is missing, what is unexpected, and what is there and differs.

    Args:
        accept: Patterns of names that may differ, with ``*`` for any part of a name.

    Attributes:
        missing: What the aggregate has and the snapshot has not.
        unexpected: What the snapshot has and the aggregate has not.
        different: What both have, and in what it differs.
    """

    def __init__(self, accept: Iterable[str] = ()) -> None:
        self._accept = tuple(accept)
        self.missing: list[str] = []
        self.unexpected: list[str] = []
        self.different: dict[str, str] = {}

    def compare(self, ours: Iterable[str], theirs: Iterable[str], prefix: str = "") -> None:
        """Compare names in the aggregate with names in the snapshot."""
        here, there = dict.fromkeys(ours), dict.fromkeys(theirs)
        self.missing += [f"{prefix}{name}" for name in here if name not in there and not self.accepts(prefix + name)]
        self.unexpected += [f"{prefix}{name}" for name in there if name not in here and not self.accepts(prefix + name)]

    def differ(self, name: str, difference: str) -> None:
        """Note in what something differs."""
        if not self.accepts(name):
            self.different[name] = difference

    def accepts(self, name: str) -> bool:
        """Tell whether a name may differ."""
        return any(fnmatchcase(name, pattern) for pattern in self._accept)

    def refuse(self, owner: str) -> None:
        """Raise if there are any.

        Raises:
            SnapshotMismatch: Something does not fit, and is not accepted.
        """
        kinds = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "different": [f"{name} ({difference})" for name, difference in self.different.items()],
        }
        lines = [f"\n  {kind}: {_listed(names)}" for kind, names in kinds.items() if names]
        if lines:
            first = [*self.missing, *self.unexpected, *self.different][0]
            message = (
                f"the snapshot does not fit the {owner}, which is left as it was:{''.join(lines)}\n"
                f"Restore it into a {owner} built like the one it was taken of, or say what may differ: "
                f"restore(snapshot, accept=[{first!r}]), where * stands for any part of a name."
            )
            raise SnapshotMismatch(message, missing=self.missing, unexpected=self.unexpected, different=self.different)


def _listed(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
