"""Redaction: what looks like a secret, by its name or its form, is not written down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "(hidden)"

_SECRET = re.compile(
    r"(?:^|[^a-z])(?:token|auth|pwd|pw|pat|bearer|cookies?)(?:$|[^a-z])|(?:access|api|auth|refresh|bearer).?token"
    r"|secret|passw|passphrase|credential|authoriz|authentic"
    r"|(?:access|account|api|auth|encryption|master|private|secret|signing|ssh|wandb).?key",
    re.IGNORECASE,
)
_SECRET_NUMBER = re.compile(r"passw|passphrase|pwd|secret", re.IGNORECASE)  # a number of tokens is none
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_USER_IN_URL = re.compile(r"(?<=://)[^/\s]+(?=@)")
_ASSIGNED = re.compile(
    r"""(?<![\w.\-])(?=[\w.\-]*?(?:token|auth|pwd|pw|pat|bearer|cookie|secret|pass|credential|key|sig))"""
    r"""([\w.\-]++)(["']?\s*+[=:]\s*+)"""
    r"""("[^"]*"|'[^']*'|(?:(?:Bearer|Basic|Token)\s+)?[^\s"'&;,)}\]]+)""",
    re.IGNORECASE,
)
_SIGNED = re.compile(r"(?:^|-)(?:sig|signature)$", re.IGNORECASE)  # in an address; elsewhere that is no secret
_ISSUED = re.compile(  # by well-known services, in forms of their own
    r"\b(?:hf_|gh[opsu]_|github_pat_|glpat-|xox[abp]-|sk-(?:ant-|proj-)?|AKIA|ASIA)[A-Za-z0-9_]{12,}[\w\-]*"
    r"|\beyJ[\w\-]+\.[\w\-]+\.[\w\-]+|\bBearer\s+[^\s\"',;]+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)


def is_secret(name: str) -> bool:
    """Tell whether something of this name is a secret.

    Args:
        name: The name of an option, a setting or a variable.

    Examples:
        >>> is_secret("hf_token"), is_secret("--api-key"), is_secret("max_tokens"), is_secret("tokenizer")
        (True, True, False, False)
    """
    return _SECRET.search(_CAMEL.sub("_", name)) is not None


def redacted(value: Any) -> Any:
    """Return settings without the secrets in them: what is under a secret name, and what has the form of a secret.

    Such forms are the user in an address, `password=...` within a text, and the tokens of well-known services. What a
    part of an aggregate is called makes it no secret.

    Args:
        value: A value, or lists and dictionaries of them, to any depth.

    Examples:
        >>> redacted({"data": {"password": "abc", "url": "https://me:abc@host/data?token=abc"}, "rates": [0.1]})
        {'data': {'password': '(hidden)', 'url': 'https://(hidden)@host/data?token=(hidden)'}, 'rates': [0.1]}
    """
    if isinstance(value, Mapping):
        return {key: _hidden(str(key), each) if is_secret(str(key)) else redacted(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(each) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    shown = str(value)
    safe = _without_secrets(shown)
    return value if safe == shown else safe  # another kind of value, such as a dataclass, may show secrets, too


def _hidden(name: str, value: Any) -> Any:
    """Hide all that stands under a secret name, but for what is no secret by its kind."""
    if isinstance(value, Mapping):
        is_part = "name" in value and not value.keys().isdisjoint({"arguments", "shown"})
        return redacted(value) if is_part else {key: _hidden(name, each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_hidden(name, each) for each in value]
    is_plain = value is None or isinstance(value, bool)
    is_number = isinstance(value, int | float) and _SECRET_NUMBER.search(name) is None
    return value if is_plain or is_number else HIDDEN


def _without_secrets(text: str) -> str:
    """Return a text without what has the form of a secret."""
    return _ISSUED.sub(HIDDEN, _ASSIGNED.sub(_assigned, _USER_IN_URL.sub(HIDDEN, text)))


def _assigned(found: re.Match[str]) -> str:
    name, between, _ = found.groups()
    is_hidden = is_secret(name) or (between == "=" and _SIGNED.search(name) is not None)
    return f"{name}{between}{HIDDEN}" if is_hidden else found[0]


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
