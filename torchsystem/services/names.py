"""Names: how a Python name is spelled to the outside world, and which known name a wrong one is near to."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from typing import TypeAlias

from torchsystem.errors import AmbiguousEvent, UnknownEvent

NameGenerator: TypeAlias = Callable[[str], str]

_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_+")


class Named:
    """Something that may be given a name, to be told by in messages."""

    name: str | None = None

    def __repr__(self) -> str:
        """Show the class and the name."""
        return f"{type(self).__qualname__}({'' if self.name is None else repr(self.name)})"


def kebab(name: str) -> str:
    """Spell a Python name in kebab case, the default language of services and events.

    Args:
        name: The name of a function or of a class.

    Returns:
        Its words in lower case, joined by hyphens. A name that is in kebab case already stays as it is.

    Examples:
        >>> kebab("train_model"), kebab("BatchEnded"), kebab("HTTPRequest"), kebab("train-model")
        ('train-model', 'batch-ended', 'http-request', 'train-model')
    """
    return _WORD_STARTS.sub("-", name).strip("-").lower()


def near(name: str, known: Collection[str]) -> str:
    """Say which of the known names was probably meant, or list them when none is close.

    Args:
        name: The name that is not known.
        known: All the names that are.

    Examples:
        >>> near("trian", ["train", "validate"])
        "Did you mean 'train'?"
        >>> near("export", ["train", "validate"])
        "There are 'train', 'validate'."
    """
    close = get_close_matches(name, known)
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?"
    if known:
        return f"There are {', '.join(map(repr, sorted(known)))}."
    return "There are none yet."


class Vocabulary:
    """Types by name: what `produce` may be asked for.

    Args:
        types: The types that are known. Two may have one name: then it is the name that is refused, when it is used.
        generator: How the name of a type is spelled.
    """

    def __init__(self, types: Iterable[type], generator: NameGenerator) -> None:
        self._generator = generator
        self._types: dict[str, list[type]] = {}
        for kind in dict.fromkeys(types):
            self._types.setdefault(generator(kind.__name__), []).append(kind)

    def find(self, name: str) -> type:
        """Return the type that a name means, spelled as generated or as in Python.

        Raises:
            UnknownEvent: No type has this name.
            AmbiguousEvent: More than one type has it.
        """
        kinds = self._types.get(name) or self._types.get(self._generator(name))
        if kinds is None:
            message = f"No event is called {name!r}. {near(name, self._types)}"
            raise UnknownEvent(message)
        if len(kinds) > 1:
            places = " and ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
            message = f"{name!r} could be {places}. Build the one you mean yourself, and dispatch it."
            raise AmbiguousEvent(message)
        return kinds[0]
