"""Names of folders for ids and runs: safe on every system, and no two alike."""

from __future__ import annotations

import re
from hashlib import sha256

from torchsystem.errors import Unnameable

# What may stand as it is. A name that is changed gets a "~" and a digest, which no name that stands as it is can have.
SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]{0,79}")
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[\d¹²³])(\..*)?")  # of Windows, for devices
UNSAFE = re.compile(r"[^A-Za-z0-9_.=+-]+")
KEPT = 40  # characters of a changed name, for whoever looks into the folder


def folder_name(value: object) -> str:
    """Give the name of the folder for an id or a run.

    Args:
        value: A string stands for itself; anything else for its type and what `repr` says.

    Returns:
        The string, if it is safe as the name of a folder; or what is safe of it, and a digest.

    Raises:
        Unnameable: The `repr` of it says where in the memory it is, and so means nothing tomorrow.

    Examples:
        >>> from torchsystem.storage.naming import folder_name
        >>> folder_name("7e44661136354857c215f79df76bfa62")
        '7e44661136354857c215f79df76bfa62'
        >>> folder_name("../../etc")
        'etc~74ccf3c5b4c1'
        >>> folder_name(7) == folder_name("7")
        False
    """
    text = value if isinstance(value, str) else _text(value)
    if SAFE.fullmatch(text) and not RESERVED.fullmatch(text) and not text.endswith("."):
        return text
    digest = sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{UNSAFE.sub('-', text)[:KEPT].strip('-.')}~{digest}"


def _text(value: object) -> str:
    if type(value).__repr__ is object.__repr__:
        message = (
            f"{value!r} is no name: no other process could tell it from another {type(value).__qualname__}. "
            f"Give a string, as in initialize('baseline') or Repository(root, run='baseline')."
        )
        raise Unnameable(message)
    return f"{type(value).__qualname__} {value!r}"
