"""Values that nobody passes by chance, unlike ``None``."""

from __future__ import annotations


class Mark:
    """One such value, by name."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<{self._name}>"


EMPTY = Mark("empty")  # there is no default, or no annotation
MISSING = Mark("missing")  # a caller did not give what has to be given, or is made
NEEDED = Mark("needed")  # stands for the binding in force, where that is the default
