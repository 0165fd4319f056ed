"""Causes: why something failed, in words that can be written anywhere."""

from __future__ import annotations

from traceback import format_exception_only


def said(error: BaseException) -> str:
    """Say what an error says, also where that fails.

    Examples:
        >>> from torchsystem.adapters.causes import said
        >>> said(ValueError("no such file"))
        'ValueError: no such file'
    """
    return writable("".join(format_exception_only(error))).rstrip()


def writable(text: str) -> str:
    """Return a text that can be encoded: halves of characters, as of names that are no UTF-8, are spelled out."""
    return text.encode(errors="backslashreplace").decode()
