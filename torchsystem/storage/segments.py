"""Segments: names of one file or folder, the same on every system and in every bucket."""

from __future__ import annotations

from unicodedata import is_normalized

from torchsystem.errors import UnsafeName
from torchsystem.storage.naming import RESERVED

FORBIDDEN = frozenset('/\\:*?"<>|')
LONGEST = 200  # bytes; file systems take 255, and what is written next to a file adds to its name
OURS = ".torchsystem"


def is_segment(value: str) -> bool:
    """Tell whether a name is that of one file or folder, and of the same one on every system.

    Examples:
        >>> from torchsystem.storage.segments import is_segment
        >>> is_segment("lr=0.1, seed 3"), is_segment("a/b"), is_segment("..")
        (True, False, False)
    """
    return (
        bool(value)
        and value.isprintable()  # no control characters, nor halves of characters that cannot be encoded
        and not FORBIDDEN & set(value)
        and not RESERVED.fullmatch(value)
        and not value.startswith(" ")
        and not value.endswith((" ", "."))
        and len(value.encode()) <= LONGEST
    )


def check_segment(what: str, value: object) -> str:
    """Return a name that is one segment of a path.

    Args:
        what: What to call it in the message.
        value: The name.

    Raises:
        UnsafeName: It is none: it would be elsewhere, or not be called so on every system.
    """
    # Some systems take a letter and its accent, as two characters, for the same in one; two values would be one file.
    if not isinstance(value, str) or not is_segment(value) or not is_normalized("NFC", value):
        message = (
            f"{what}={value!r} cannot be the name of a file or folder. Write a name of up to {LONGEST} bytes, without "
            f"{' '.join(sorted(FORBIDDEN))} and control characters, accents in one with their letters (Unicode's NFC), "
            f"that neither begins with a space nor ends with a space or a dot."
        )
        raise UnsafeName(message)
    return value


def check_key(key: object) -> str:
    """Return the path of something in a store, which is relative, and made of segments that `/` divides.

    Raises:
        UnsafeName: It is not, or it lies where the store keeps its own.
    """
    if not isinstance(key, str) or not all(map(is_segment, key.split("/"))):
        message = (
            f"{key!r} is no path in a store. Write a relative one, of names divided by '/', as in 'digits/a.json'."
        )
        raise UnsafeName(message)
    if key.split("/", 1)[0].casefold() == OURS:
        message = f"{key!r} lies where a store keeps what is its own. Write to a folder that is not called {OURS!r}."
        raise UnsafeName(message)
    return key
