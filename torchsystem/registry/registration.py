"""What a class is registered as: its name, its signature, and which of its arguments do not count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from difflib import get_close_matches
from inspect import Parameter, Signature
from itertools import chain, repeat
from typing import Any

from torchsystem.errors import InvalidExclusion, NoCanonicalForm
from torchsystem.registry.freeze import freeze, thawed
from torchsystem.registry.values import PLAIN, Construction, Formless, Frozen, Unknown, text

_HIDDEN = "_HAS_DEFAULT_FACTORY_CLASS"  # of what dataclasses and pydantic show in a signature as the default


class Registration:
    """One registered class: captures what its constructor is given, and binds it when somebody asks.

    Args:
        cls: The class.
        name: The name that counts in the identity of its objects.
        signature: The signature of its constructor, without `self`.
        excluded: The names of the parameters that do not count; `None` if nobody said.
    """

    def __init__(self, cls: type, name: str, signature: Signature, excluded: frozenset[str] | None) -> None:
        parameters = signature.parameters.values()
        self.cls = cls
        self.name = name
        self.signature = signature
        self.stated = excluded
        self.excluded = excluded or frozenset()
        # Now, not later: a constructor may change a mutable default.
        self._defaults = {each.name: freeze(each.default) for each in parameters if each.default is not each.empty}
        self._factories = _default_factories(cls, signature)
        self._positional = [each.name for each in parameters if each.kind <= Parameter.POSITIONAL_OR_KEYWORD]
        self._rest = next((each.name for each in parameters if each.kind is Parameter.VAR_POSITIONAL), None)
        self._extra = next((each.name for each in parameters if each.kind is Parameter.VAR_KEYWORD), None)

    def without(self, excluded: frozenset[str]) -> Registration:
        """Give the same registration, now that somebody has said what does not count."""
        registration = copy(self)  # with the defaults as they were
        registration.stated = registration.excluded = excluded
        return registration

    def capture(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Construction:
        """Freeze what the constructor is given, before it runs. Binding waits: most objects are never asked."""
        if not (PLAIN.issuperset(map(type, args)) and PLAIN.issuperset(map(type, kwargs.values()))):
            names = chain(self._positional, repeat(self._rest))
            args = tuple([self._freeze(value, name) for value, name in zip(args, names, strict=False)])
            kwargs = {name: self._freeze(value, name) for name, value in kwargs.items()}
        return Construction(self, args, kwargs)

    def bind(self, args: tuple[Frozen, ...], kwargs: Mapping[str, Frozen]) -> dict[str, Frozen]:
        """Bind captured arguments to the signature: in its order, without excluded ones and without defaults.

        Extra keywords follow, by name, as if they were parameters; under the name of the `**` parameter if one of them
        has the name of another parameter.
        """
        try:
            bound: dict[str, Any] = self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            message = f"{self.name} was constructed in a way that its signature {self.signature} does not tell: {error}"
            raise NoCanonicalForm(message) from error
        given = bound.pop(self._extra, {}) if self._extra is not None else {}
        arguments = {
            name: value for name, value in bound.items() if not (self._excludes(name) or self._is_default(name, value))
        }
        extra = {name: given[name] for name in sorted(given) if not self._excludes(name)}
        if self._extra is not None and not self.signature.parameters.keys().isdisjoint(extra):
            extra = {self._extra: extra}
        return arguments | extra

    def _freeze(self, value: Any, name: str | None) -> Frozen:
        if type(value) in PLAIN:
            plain: Frozen = value
            return plain
        return None if self._excludes(name) else freeze(value)  # what does not count is not even looked at

    def _excludes(self, name: str | None) -> bool:
        return name in self.excluded or (name not in self.signature.parameters and self._extra in self.excluded)

    def _is_default(self, name: str, value: Frozen) -> bool:
        if name not in self._defaults:
            return False
        default = freeze(self._factories[name]()) if name in self._factories else thawed(self._defaults[name])
        if isinstance(value, Unknown) and isinstance(default, Unknown):
            return value.look() is self.signature.parameters[name].default
        try:
            return text(value) == text(default)
        except (Formless, RecursionError, ValueError):  # what cannot be written is no default
            return False


def _default_factories(cls: Any, signature: Signature) -> dict[str, Callable[[], object]]:
    """Find the functions that make defaults, where a signature shows no more than that there is one.

    That is so for dataclasses and pydantic models, and there only where the constructor is not written by hand.
    """
    fields: dict[str, Any] = dict(getattr(cls, "__dataclass_fields__", {}))
    for name, each in getattr(cls, "__pydantic_fields__", {}).items():
        fields[each.alias if each.alias in signature.parameters else name] = each
    hidden = {each.name for each in signature.parameters.values() if type(each.default).__name__ == _HIDDEN}
    return {name: fields[name].default_factory for name in hidden & fields.keys() if _needs_nothing(fields[name])}


def _needs_nothing(field: Any) -> bool:
    """Tell whether a field has a factory that takes no arguments; pydantic has some that look at other fields."""
    return callable(field.default_factory) and not getattr(field, "default_factory_takes_validated_data", False)


def exclusions(
    cls: type, signature: Signature, positions: Iterable[int] | None, names: Iterable[str] | None
) -> frozenset[str] | None:
    """Name the parameters that do not count, given by position and by name; `None` if nothing was said of them.

    Raises:
        InvalidExclusion: There is no such parameter, or it is given in a way that says another thing.
    """
    if positions is None and names is None:
        return None
    by_position = [_at(cls, list(signature.parameters), position) for position in _several("excluded_args", positions)]
    by_name = [_called(cls, signature, name) for name in _several("excluded_kwargs", names)]
    return frozenset(by_position + by_name)


def _several(option: str, given: Iterable[Any] | None) -> Iterable[Any]:
    """See that an option names several things; one by itself, or a string, would say something else."""
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, Iterable):
        message = f"{option}={given!r} is one thing, where several are meant. Write `{option}={{{given!r}}}`."
        raise InvalidExclusion(message)
    return given


def _at(cls: type, names: list[str], position: int) -> str:
    if type(position) is int and position in range(len(names)):
        return names[position]
    there = ", ".join(f"{index} {name}" for index, name in enumerate(names)) or "none"
    message = f"excluded_args: {cls.__qualname__} has no parameter at {position!r}. There are: {there}."
    raise InvalidExclusion(message)


def _called(cls: type, signature: Signature, name: str) -> str:
    parameters = signature.parameters
    if name in parameters or any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values()):
        return name
    near = get_close_matches(str(name), parameters) or parameters
    message = f"excluded_kwargs: {cls.__qualname__} has no parameter {name!r}. There is: {', '.join(near) or 'none'}."
    raise InvalidExclusion(message)
