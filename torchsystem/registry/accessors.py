"""What an object is: the name, the arguments, the hash and the metadata of how it was constructed."""

from __future__ import annotations

import hashlib
from typing import Any, TypedDict

from torchsystem.errors import InvalidRegistration, NoCanonicalForm, NotRegistered
from torchsystem.registry.freeze import thawed
from torchsystem.registry.hooks import registration_of
from torchsystem.registry.record import Identity, recall, remember
from torchsystem.registry.values import JSON, Construction, arguments_as_json, stumble
from torchsystem.registry.views import as_argument


class Metadata(TypedDict):
    """What there is to say about an object, ready for JSON."""

    name: str
    hash: str
    arguments: dict[str, JSON]


def getarguments(obj: object) -> dict[str, Any]:
    """Give the arguments an object was constructed from.

    Args:
        obj: An object of a registered class.

    Returns:
        The arguments by name, in the order of the signature, without excluded ones and without those that are equal to
        their default. Tuples are lists. A registered object among them is its `{"name": ..., "arguments": ...}`, or its
        bare name if it had no arguments.

    Raises:
        NotRegistered: The class of the object is not registered, or was not when the object was made.

    Examples:
        >>> from torchsystem.registry import register
        >>> @register
        ... class Perceptron:
        ...     def __init__(self, features: int, hidden: int = 64) -> None: ...
        >>> getarguments(Perceptron(784, 128))
        {'features': 784, 'hidden': 128}
    """
    return {name: as_argument(value) for name, value in _construction(obj).arguments.items()}


def getname(obj: object) -> str:
    """Give the name of an object: the one set by `setname`, or else the one its class is registered under.

    Raises:
        NotRegistered: The class of the object is not registered, and no name was set.
    """
    identity = recall(obj)
    return _construction(obj).name if identity is None or identity.name is None else identity.name


def gethash(obj: object) -> str:
    """Give the identity of an object: the same construction has the same one, in every spelling and everywhere.

    It is the MD5 of the name and the arguments in JSON, or what was set by `sethash`. An identifier, no protection.

    Args:
        obj: An object of a registered class.

    Returns:
        32 hexadecimal digits.

    Raises:
        NotRegistered: The class of the object is not registered, and no hash was set.
        NoCanonicalForm: An argument is of a kind that has none.

    Examples:
        >>> from torchsystem.registry import register
        >>> @register
        ... class Perceptron:
        ...     def __init__(self, features: int, hidden: int = 64) -> None: ...
        >>> gethash(Perceptron(784)) == gethash(Perceptron(hidden=64, features=784))
        True
        >>> gethash(Perceptron(784)) == gethash(Perceptron(784.0))
        False
    """
    identity = recall(obj)
    if identity is not None and identity.hash is not None:
        return identity.hash
    return digest(getname(obj), _whole(_construction(obj)).text)


def getmetadata(obj: object) -> Metadata:
    """Give the name, the hash and the arguments of an object, ready for JSON.

    Args:
        obj: An object of a registered class.

    Returns:
        `{"name": ..., "hash": ..., "arguments": ...}`, where a registered object among the arguments is its
        `{"name": ..., "arguments": ...}`.

    Raises:
        NotRegistered: The class of the object is not registered.
        NoCanonicalForm: An argument is of a kind that has none.

    Examples:
        >>> from torchsystem.registry import register
        >>> @register
        ... class Perceptron:
        ...     def __init__(self, features: int, hidden: int = 64) -> None: ...
        >>> getmetadata(Perceptron(784))
        {'name': 'Perceptron', 'hash': '7e44661136354857c215f79df76bfa62', 'arguments': {'features': 784}}
    """
    construction = _whole(_construction(obj))
    return {"name": getname(obj), "hash": gethash(obj), "arguments": arguments_as_json(construction)}


def setname(obj: object, name: str | None = None) -> None:
    """Give an object a name of its own, or freeze the one it has.

    The name counts in the hash, of the object and of what is constructed from it afterwards.

    Args:
        obj: The object.
        name: The name; the present one if it is not given.

    Raises:
        NotRegistered: No name is given, and the class of the object is not registered.
        InvalidRegistration: The name is no string, or the object has no place for it.
    """
    _identity(obj).name = getname(obj) if name is None else _string(name)


def sethash(obj: object, hash: str | None = None) -> None:  # noqa: A002 - what it is called since version 1
    """Give an object a hash of its own, or freeze the one it has.

    Args:
        obj: The object.
        hash: The hash; the present one if it is not given.

    Raises:
        NotRegistered: No hash is given, and the class of the object is not registered.
        NoCanonicalForm: No hash is given, and an argument is of a kind that has no canonical form.
        InvalidRegistration: The hash is no string, or the object has no place for it.
    """
    _identity(obj).hash = gethash(obj) if hash is None else _string(hash)


def digest(name: str, arguments: str) -> str:
    """Give the hash of a construction from its name and the canonical form of its arguments, as JSON."""
    return hashlib.md5((name + arguments).encode(errors="surrogatepass"), usedforsecurity=False).hexdigest()


def _string(value: object) -> str:
    if isinstance(value, str):
        return value
    message = f"the names and hashes of objects are strings, and {value!r} is none. Write `str(...)` around it."
    raise InvalidRegistration(message)


def _whole(construction: Construction) -> Construction:
    """Give a construction of which everything has a canonical form, or refuse by name what has none."""
    try:
        if construction.has_form:
            return construction
        again = construction.mapped(thawed)  # what had no form when the object was made may have been taught one since
        if again.has_form:
            return again
    except RecursionError:
        why = "they are nested too deeply. Leave a part out, `register(TheClass, excluded_kwargs={'part'})`"
        raise _unwritten(construction, why) from None
    except ValueError as error:  # of a number that Python does not write either
        raise _unwritten(construction, f"{error}. Give such a number as a string") from None
    raise _refusal(again)


def _unwritten(construction: Construction, why: str) -> NoCanonicalForm:
    message = f"the arguments of {construction.name} cannot be written as JSON, and so it has no hash: {why}."
    return NoCanonicalForm(message)


def _construction(obj: object) -> Construction:
    identity = recall(obj)
    if identity is None or identity.construction is None:
        raise _unregistered(obj)
    return identity.construction


def _identity(obj: object) -> Identity:
    """Find the identity of an object, for something to be set in it."""
    identity = recall(obj)
    if identity is None:
        identity = Identity()
        try:
            remember(obj, identity)
        except TypeError:
            message = f"{obj!r} has no place for a name or a hash: it has neither a __weakref__ nor a __dict__."
            raise InvalidRegistration(message) from None
    return identity


def _unregistered(obj: object) -> NotRegistered:
    if isinstance(obj, type):
        return NotRegistered(
            f"{obj.__qualname__} is a class. Only its objects are constructed from arguments: make one."
        )
    cls = type(obj)
    where, name = f"{cls.__module__}.{cls.__qualname__}", cls.__name__
    if registration_of(cls) is not None:
        return NotRegistered(
            f"this {where} does not know how it was constructed: its class was registered after that. Write "
            f"`register({name})` before the first one is made; and none in compiled code, nor past the constructor."
        )
    base = next((each for each in cls.__mro__ if registration_of(each) is not None), None)
    although = f" ({base.__qualname__} is, but a subclass is a class of its own)" if base is not None else ""
    return NotRegistered(
        f"{where} is not registered{although}. Write `register({name})` before the object is made, or `@register` "
        f"above the class and above its other decorators."
    )


def _refusal(construction: Construction) -> NoCanonicalForm:
    owner, argument, path, value = next(stumble(construction))
    inside = f" (at {path!r} in {construction.name})" if path != argument else ""
    remedy = f"{value.remedy}, or leave it out" if value.remedy else "Leave it out"
    return NoCanonicalForm(
        f"the argument {argument!r} of {owner}{inside} has no canonical form, and so {construction.name} has no hash: "
        f"it is {value.what}. {remedy} of the identity: `register({owner}, excluded_kwargs={{{argument!r}}})`."
    )
