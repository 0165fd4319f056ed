"""Redaction: what looks like a secret, by its name or its form, is not written down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "(hidden)"

_SECRET = re.compile(
    r"(?:^|[^a-z])(?:token|auth|pwd)(?:$|[^a-z])|(?:access|api|auth|refresh|bearer).?token|secret|passw|passphrase"
    r"|credential|(?:access|api|auth|private|secret).?key",
    re.IGNORECASE,
)
_USER_IN_URL = re.compile(r"(?<=://)[^/\s@]+(?=@)")


def is_secret(name: str) -> bool:
    """Tell whether something of this name is a secret.

    Args:
        name: The name of an option, a setting or a variable.

    Examples:
        >>> is_secret("hf_token"), is_secret("--api-key"), is_secret("max_tokens"), is_secret("tokenizer")
        (True, True, False, False)
    """
    return _SECRET.search(name) is not None


def redacted(value: Any) -> Any:
    """Return settings without the secrets in them: text under a secret name, and who logs in to an address.

    Args:
        value: A value, or lists and dictionaries of them, to any depth.

    Examples:
        >>> redacted({"data": {"password": "abc", "url": "https://me:abc@host/data"}, "rates": [0.1]})
        {'data': {'password': '(hidden)', 'url': 'https://(hidden)@host/data'}, 'rates': [0.1]}
    """
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if isinstance(each, str | bytes) and is_secret(str(key)) else redacted(each)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(each) for each in value]
    return _USER_IN_URL.sub(HIDDEN, value) if isinstance(value, str) else value


def command_line(arguments: Iterable[str]) -> list[str]:
    """Return the words of a command line without the secrets in them.

    Args:
        arguments: The words.

    Examples:
        >>> command_line(["train.py", "--epochs", "3", "--api-key", "abc", "--token=abc"])
        ['train.py', '--epochs', '3', '--api-key', '(hidden)', '--token=(hidden)']
    """
    shown: list[str] = []
    hides_next = False
    for word in arguments:
        name, is_assignment, _ = word.partition("=")
        is_option = word.startswith("-")
        if hides_next and not is_option:
            shown.append(HIDDEN)
        elif is_assignment and is_secret(name):
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(str(redacted(word)))
        hides_next = is_option and not is_assignment and is_secret(word)
    return shown
