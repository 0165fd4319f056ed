"""Building: from metadata, as JSON has it, back to an object.

Metadata may come from anywhere, so building imports nothing, and calls nothing but what somebody has named for it: the
constructors of the classes in a registry, data classes, and the ways back that `canonical` was taught. Functions and
classes by name are only those of `torch.nn` and `torch.optim`, and of the modules where the registered classes are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from inspect import BoundArguments, Parameter
from reprlib import repr as shortened
from typing import Any

from torchsystem.errors import CannotBuild
from torchsystem.registry.accessors import digest, gethash, sethash
from torchsystem.registry.decode import decode
from torchsystem.registry.names import find, findable_name
from torchsystem.registry.registration import Registration

_OPEN = ("torch.nn.", "torch._C._nn.", "torch.optim.")
_ACTIVATIONS = {f"torch.{name}" for name in ("celu", "exp", "relu", "selu", "sigmoid", "sin", "softmax", "tanh")}


class Builder:
    """Builds objects of the classes in a registry.

    Args:
        registration: Gives what is registered under a name.
        homes: The modules of the registered classes.
    """

    def __init__(self, registration: Callable[[str], Registration], homes: Collection[str]) -> None:
        self._registration = registration
        self._homes = homes

    def build(self, metadata: Mapping[str, Any], given: Mapping[str, object]) -> object:
        """Build what metadata describe, and see that it is that.

        Raises:
            CannotBuild: It cannot be built, or it is something else.
            UnknownName: No class has this name.
        """
        match metadata:
            case {"name": str(name), "arguments": dict(arguments), **rest} if _is_hash(rest):
                expected, built = rest.get("hash"), self.construct(name, arguments, given)
            case _:
                found = shortened(metadata)
                message = f"metadata are {{'name': ..., 'hash': ..., 'arguments': {{...}}}}, and not {found}."
                raise CannotBuild(message)
        if expected is None:  # and perhaps a given value has no canonical form
            return built
        found = gethash(built)
        if expected == found:
            return built
        if found != digest(name, json.dumps(arguments)):
            message = (
                f"what was built is {found}, and not {expected}. Its class has changed since, or another value was "
                f"given; leave the hash out of the metadata to build it all the same."
            )
            raise CannotBuild(message)
        sethash(built, expected)  # it was not computed, but set by hand
        return built

    def construct(self, name: str, arguments: Mapping[str, Any], given: Mapping[str, object]) -> object:
        """Construct an object from its name and arguments, with some values given as they are.

        Raises:
            CannotBuild: An argument is not known, cannot be made, or is missing.
            UnknownName: No class has this name.
        """
        registration = self._registration(name)
        values = dict(given)
        for argument, value in arguments.items():
            if argument not in values:
                values[argument] = self._argument(name, argument, value)
        bound = _bind(registration, values)
        made: object = registration.cls(*bound.args, **bound.kwargs)
        return made

    def _argument(self, name: str, argument: str, value: Any) -> object:
        try:
            return decode(value, self._find, lambda part, arguments: self.construct(part, arguments, {}))
        except CannotBuild as error:
            message = f"the argument {argument!r} of {name}: {error}"
            raise CannotBuild(message) from error
        except RecursionError as error:
            message = (
                f"the argument {argument!r} of {name} is nested too deeply. Pass it: `build(..., {argument}=...)`."
            )
            raise CannotBuild(message) from error

    def _find(self, name: str) -> Any:
        thing = find(name)
        if thing is None:
            message = f"nothing is loaded as {name}. Import its module first."
            raise CannotBuild(message)
        home = getattr(thing, "__module__", None)
        known = home in self._homes or name.startswith(_OPEN) or name in _ACTIVATIONS
        if not known or findable_name(thing) != name:
            message = (
                f"{name} is defined where none of the registered classes is, and metadata may come from anywhere. "
                f"Register it if it is a class, or pass the value: `build(metadata, argument=value)`."
            )
            raise CannotBuild(message)
        return thing


def _is_hash(rest: Mapping[str, object]) -> bool:
    """Tell whether the rest of some metadata is their hash, or nothing."""
    return rest.keys() <= {"hash"} and isinstance(rest.get("hash"), str | None)


def _bind(registration: Registration, values: Mapping[str, object]) -> BoundArguments:
    """Arrange values by name as the constructor takes them."""
    name, parameters = registration.name, registration.signature.parameters
    arguments = {each: _fitting(registration, parameters[each], values[each]) for each in parameters if each in values}
    extra = next((each.name for each in parameters.values() if each.kind is Parameter.VAR_KEYWORD), None)
    beyond = {each: value for each, value in values.items() if each not in parameters}
    if beyond and extra is None:
        unknown = next(iter(beyond))
        near = ", ".join(get_close_matches(str(unknown), parameters) or parameters) or "none"
        message = f"{name} has no parameter {unknown!r}. There is: {near}."
        raise CannotBuild(message)
    if beyond and extra is not None:
        arguments[extra] = _fitting(registration, parameters[extra], arguments.get(extra, {}) | beyond)
    bound = BoundArguments(registration.signature, arguments)
    kinds = {parameters[each].kind for each in arguments}
    if not kinds.isdisjoint({Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL}):
        bound.apply_defaults()  # what is passed by position needs all that comes before it
    for each in parameters.values():
        optional = each.default is not each.empty or each.kind in {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}
        if not optional and each.name not in bound.arguments:
            why = "does not count in the identity, so" if each.name in registration.excluded else "is missing:"
            message = f"the argument {each.name!r} of {name} {why} pass it: `build(metadata, {each.name}=...)`."
            raise CannotBuild(message)
    return bound


def _fitting(registration: Registration, parameter: Parameter, value: Any) -> Any:
    """See that what `*args` and `**kwargs` stand for can be spread."""
    match parameter.kind, value:
        case Parameter.VAR_POSITIONAL, list() | tuple():
            return value
        case Parameter.VAR_POSITIONAL, _:
            kind = "a list"
        case Parameter.VAR_KEYWORD, dict() if {str}.issuperset(map(type, value)):
            return value
        case Parameter.VAR_KEYWORD, _:
            kind = "a dict with strings as keys"
        case _:
            return value
    message = f"the argument {parameter.name!r} of {registration.name} is {kind}, and not {shortened(value)}."
    raise CannotBuild(message)
