"""Topics: words separated by `.` or `/`, and what it means to subscribe to some of them."""

from __future__ import annotations

import re

from torchsystem.errors import InvalidTopic

_WORD = r"[^./]+"
_SEPARATORS = re.compile(r"[./]")
_WILDCARDS = {"*", ">"}


class Subscription:
    """What a handler subscribes to.

    Args:
        topics: The topics that it hears. In each, `*` stands for any one word, and `>` at the end for any one or more.

    Raises:
        InvalidTopic: There is no topic, or one is malformed.

    Examples:
        >>> subscription = Subscription(("*.loss", "train/>"))
        >>> subscription.covers("validation.loss"), subscription.covers("train/layer/3")
        (True, True)
        >>> subscription.covers("validation/loss"), subscription.covers("train")
        (False, False)
    """

    __slots__ = ("_names", "_patterns")

    def __init__(self, topics: tuple[str, ...]) -> None:
        if not topics:
            message = "There is no topic. Write one or more: @subscriber.subscribe('loss')."
            raise InvalidTopic(message)
        patterns = {topic for topic in topics if _wildcards(topic)}
        self._names = frozenset(topics) - patterns
        self._patterns = tuple(map(_compiled, sorted(patterns)))

    def covers(self, topic: str) -> bool:
        """Tell whether what is published to a topic is heard."""
        return topic in self._names or any(pattern.fullmatch(topic) for pattern in self._patterns)


def check_published(topic: object) -> None:
    """Refuse what cannot be published to.

    Raises:
        InvalidTopic: It is no topic, or stands for many.
    """
    if _wildcards(topic):
        message = f"Publishing to {topic!r}: wildcards are for those who subscribe. Write one topic out."
        raise InvalidTopic(message)


def _wildcards(topic: object) -> set[str]:
    """Return the wildcards in a topic, after checking that it is a topic."""
    if not isinstance(topic, str):
        message = f"{topic!r} is no topic. A topic is a string: publish(message, 'loss'), @subscribe('loss')."
        raise InvalidTopic(message)
    words = _SEPARATORS.split(topic)
    if not all(words):
        message = f"The topic {topic!r} has an empty word. Separate words by one '.' or '/'."
        raise InvalidTopic(message)
    found = _WILDCARDS.intersection(topic)
    if not _WILDCARDS.issuperset(word for word in words if _WILDCARDS.intersection(word)) or ">" in words[:-1]:
        message = f"The topic {topic!r}: '*' stands for one whole word, and '>' for all that follow, at the end only."
        raise InvalidTopic(message)
    return found


def _compiled(topic: str) -> re.Pattern[str]:
    """Return the pattern of a topic that has wildcards; separators stand for themselves."""
    parts = re.split(r"([./*>])", topic)
    meanings = {"*": _WORD, ">": rf"{_WORD}(?:[./]{_WORD})*"}
    return re.compile("".join(meanings.get(part) or re.escape(part) for part in parts))
