"""Options: what plans and their runs are given beside steps, and what of it has a meaning."""

from __future__ import annotations

from typing import Any

from torchsystem.errors import InvalidPlan
from torchsystem.plans.ports import JournalPort
from torchsystem.services import Producer


def check_name(name: Any) -> None:
    """Refuse what no journal can know a plan by.

    Raises:
        InvalidPlan: It is no text, empty, or holds what is no Unicode.
    """
    if not isinstance(name, str) or not name or not is_unicode(name):
        message = f"Plan({name!r}, ...): a plan is known by its name. Write a word, as 'digits-cv'."
        raise InvalidPlan(message)


def is_unicode(text: str) -> bool:
    """Tell whether a text can be written down: halves of letters, as in the names of some files, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_producer(name: str, producer: object) -> None:
    """Refuse what tells nothing.

    Raises:
        InvalidPlan: It is no producer.
    """
    if producer is not None and not isinstance(producer, Producer):
        message = f"Plan({name!r}, producer={producer!r}): write a Producer, or leave it out for one of its own."
        raise InvalidPlan(message)


def check_functions(name: str, *, seed: object, clock: object, sleep: object) -> None:
    """Refuse what cannot be called.

    Raises:
        InvalidPlan: One of them cannot.
    """
    if seed is not None and not callable(seed):
        message = f"Plan({name!r}, seed={seed!r}): write a function of the seed, or None to seed nothing."
        raise InvalidPlan(message)
    for option, function in (("clock", clock), ("sleep", sleep)):
        if not callable(function):
            message = (
                f"Plan({name!r}, {option}={function!r}): write a function, as time.{option.replace('clock', 'time')}."
            )
            raise InvalidPlan(message)


def check_lapse(lapse: object) -> None:
    """Refuse what is no length of time.

    Raises:
        InvalidPlan: It is none.
    """
    if isinstance(lapse, bool) or not isinstance(lapse, int | float) or not lapse > 0:
        message = f"lapse={lapse!r} has no meaning. Write a number of seconds above 0."
        raise InvalidPlan(message)


def check_journal(journal: object) -> JournalPort:
    """Return a journal; refuse what is none.

    Raises:
        InvalidPlan: It is none.
    """
    if not isinstance(journal, JournalPort):
        message = f"{journal!r} is no journal. Write Journal(path), or MemoryJournal() for tests."
        raise InvalidPlan(message)
    return journal
