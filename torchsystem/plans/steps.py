"""Steps: what a plan is made of, and how one refers to the result of another."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from torchsystem.errors import NotPlain

if TYPE_CHECKING:
    from torchsystem.plans.handlers import Actor

_WORDS = "<result of step "


class Reference:
    """The result of a step, before there is one: what `plan.add` returns, and takes as an argument.

    Attributes:
        owner: What tells its plan from others.
        number: Its place in the plan, from 0.
        action: What is done there.
    """

    __slots__ = ("action", "number", "owner")

    def __init__(self, owner: object, number: int, action: str) -> None:
        self.owner = owner
        self.number = number
        self.action = action

    def __repr__(self) -> str:
        """Show which step it is."""
        return f"{_WORDS}{self.number}, {self.action}>"

    def __deepcopy__(self, _: dict[int, object]) -> Self:
        """Be itself in what is copied, as `dataclasses.asdict` does: it stands for the same result there."""
        return self


def refuse_words(texts: Iterable[str], where: str) -> None:
    """Refuse references that were put into text, where no result could take their place.

    Raises:
        NotPlain: There is one.
    """
    for text in texts:
        if _WORDS in text and (words := re.search(rf"{_WORDS}\d+, [^>]*>", text)):
            message = (
                f"{where} is given the text {text!r}, but {words[0]} is known only when that step is done. "
                f"Pass the reference itself, and make the text in the handler."
            )
            raise NotPlain(message)


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a plan.

    Attributes:
        number: Its place in the plan, from 0.
        actor: Who does it.
        arguments: What it is called with: plain values and references.
        needs: The numbers of the steps whose results it takes.
        text: The arguments as JSON, if they have no references.
    """

    number: int
    actor: Actor
    arguments: dict[str, Any]
    needs: tuple[int, ...]
    text: str | None

    @property
    def action(self) -> str:
        """What is done."""
        return self.actor.action
