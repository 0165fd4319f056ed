"""What belongs to an aggregate and has a state, beside its tree of modules."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch.nn import Module
from torch.optim import Optimizer

from torchsystem.domain.optimization import NamedOptimizer
from torchsystem.domain.plain import Copy, Plain, cloned, like, plain
from torchsystem.errors import UnkeepableValue
from torchsystem.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from torch import Tensor

    from torchsystem.domain.misfits import Misfits
    from torchsystem.domain.names import Names

OF_TORCH = frozenset(vars(Module()))  # what every module has for torch's own sake, its tree of modules included


class Part(Protocol):
    """Something whose state can be kept, compared with what was kept, and put back."""

    def snapshot(self, copy: Copy = cloned) -> Plain:
        """Copy the state, tensors by `copy`."""

    def compare(self, kept: Plain, misfits: Misfits) -> None:
        """Look what of a kept state does not fit."""

    def restore(self, kept: Plain, weights: Mapping[str, Tensor]) -> None:
        """Put a kept state in place, together with the entries of the ``state_dict`` that are."""


class Place(NamedTuple):
    """Where something stands, ``holder[key]``, and what it is called there."""

    name: str
    value: Any
    holder: Any
    key: Any


class StatefulPart:
    """Anything with ``state_dict`` and ``load_state_dict``, which alone knows what fits, and so may fail late."""

    def __init__(self, place: Place) -> None:
        self._name = place.name
        self._value = place.value

    def snapshot(self, copy: Copy = cloned) -> Plain:
        """Copy the state, tensors by `copy`."""
        return plain(self._value.state_dict(), self._name, copy)

    def compare(self, kept: Plain, misfits: Misfits) -> None:
        """Leave it to `restore`."""

    def restore(self, kept: Plain, weights: Mapping[str, Tensor]) -> None:  # noqa: ARG002 - as every part's
        """Have the state loaded."""
        try:
            self._value.load_state_dict(like(kept, self._value.state_dict()))
        except BaseException as error:
            error.add_note(f"in restoring {self._name}")
            raise

    def remember(self) -> Callable[[], object]:
        """Return what puts back the state that it has now."""
        return partial(self._value.load_state_dict, deepcopy(self._value.state_dict()))


class ProgressPart:
    """A `Progress`: a value, and so replaced where it stands."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def snapshot(self, copy: Copy = cloned) -> Plain:  # noqa: ARG002 - as every part's
        """Copy the fields."""
        return asdict(self._place.value)

    def compare(self, kept: Plain, misfits: Misfits) -> None:
        """Compare the names of the fields."""
        misfits.compare(asdict(self._place.value), kept, f"{self._place.name}.")

    def restore(self, kept: Plain, weights: Mapping[str, Tensor]) -> None:  # noqa: ARG002 - as every part's
        """Put a new value there."""
        mine = asdict(self._place.value)
        self._place.holder[self._place.key] = Progress(**{name: kept.get(name, mine[name]) for name in mine})


def parts(root: Module, names: Names) -> dict[str, Part]:
    """Find what has ``state_dict`` and ``load_state_dict`` and is not in the tree of modules, and every `Progress`.

    That is an attribute of a module, or stands in a list, a tuple or a dictionary that is one. What stands in several
    places is found once.

    Raises:
        UnkeepableValue: Two of them have one name, as what stands in a dictionary at ``1`` and at ``"1"`` has.
    """
    seen = {id(module) for module in root.modules()}
    found: dict[str, Part] = {}
    for path, module in root.named_modules():
        prefix = names.of(f"{path}.") if path else ""
        for name, value in vars(module).items():
            if name not in OF_TORCH:
                for place in _within(Place(prefix + name, value, vars(module), name), seen):
                    if place.name in found:
                        message = f"two parts are called {place.name}: a snapshot has room for one. Rename one of them."
                        raise UnkeepableValue(message)
                    found[place.name] = _part(place, names)
    return found


def _within(place: Place, seen: set[int]) -> Iterator[Place]:
    if id(place.value) in seen:
        return
    if callable(getattr(place.value, "parts", None)) and _has_state(place.value):
        seen.add(id(place.value))
        for key, value in place.value.parts().items():  # made of parts, it is known by theirs
            yield from _within(Place(f"{place.name}.{key}", value, None, key), seen)
    elif _has_state(place.value):
        seen.add(id(place.value))
        yield place
    elif isinstance(place.value, dict | list | tuple):
        seen.add(id(place.value))
        items: Iterable[tuple[Any, Any]]
        items = place.value.items() if isinstance(place.value, dict) else enumerate(place.value)
        for key, value in items:
            yield from _within(Place(f"{place.name}.{key}", value, place.value, key), seen)


def _has_state(value: object) -> bool:
    if isinstance(value, type):
        return False
    return isinstance(value, Progress) or (hasattr(value, "state_dict") and hasattr(value, "load_state_dict"))


def _part(place: Place, names: Names) -> Part:
    if isinstance(place.value, Optimizer):
        return NamedOptimizer(place.name, place.value, names)
    return ProgressPart(place) if isinstance(place.value, Progress) else StatefulPart(place)
