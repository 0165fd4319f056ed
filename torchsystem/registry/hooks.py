"""What registering adds to a class: its constructor is looked at, and its copies keep the identity of the original.

Each method is wrapped once. Where the class has no method of its own, the wrapper goes on to the next class of the
object's bases, as if it were not there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from inspect import Parameter, Signature
from types import MethodType
from typing import Any, cast

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchsystem.errors import InvalidRegistration
from torchsystem.registry.record import Identity, recall, remember, revive, without
from torchsystem.registry.registration import Registration


def constructor_signature(cls: Any) -> Signature:
    """Tell what the constructor of a class is given, without `self`."""
    for base in cls.__mro__:
        if "__signature__" in vars(base) and isinstance(base.__signature__, Signature):
            return base.__signature__  # pydantic says here what its constructor does not
        if "__init__" in vars(base):  # of which a base says nothing
            break
    constructor = _constructor(cls.__mro__)
    if constructor is object.__init__:
        constructor = cls.__new__
    if constructor is object.__new__:
        return Signature()
    if not callable(constructor):  # a `partialmethod`
        constructor = constructor.__get__(None, cls)
    try:
        return inspect.signature(MethodType(constructor, cls))
    except ValueError:  # written in C, and silent about it
        return Signature([Parameter("args", Parameter.VAR_POSITIONAL), Parameter("kwargs", Parameter.VAR_KEYWORD)])


def registration_of(cls: type) -> Registration | None:
    """Find what a class itself, not one of its bases, is registered as."""
    registration = getattr(vars(cls).get("__init__"), "__registration__", None)
    return registration if isinstance(registration, Registration) and registration.cls is cls else None


def replace(before: Registration, after: Registration) -> None:
    """Let a registered class be registered as something else from now on."""
    vars(before.cls)["__init__"].__registration__ = after


def equip(cls: type, registration: Registration) -> None:
    """Add to a class all that registering adds.

    Raises:
        InvalidRegistration: The class does not let itself be changed.
    """
    hooks: dict[str, Callable[..., object]] = {"__init__": _capturing(cls, registration)}
    if not issubclass(cls, Tensor):  # which are loaded where nothing but tensors may be: `weights_only=True`
        hooks["__reduce_ex__"] = _carrying_pickle(cls)
    copying = [name for name in ("__copy__", "__deepcopy__") if callable(getattr(cls, name, None))]
    hooks |= {name: _carrying_copy(cls, name) for name in copying}
    try:
        for name, hook in hooks.items():
            setattr(cls, name, hook)
    except TypeError as error:
        message = f"{cls.__module__}.{cls.__qualname__} cannot be changed ({error}). Register a subclass of it."
        raise InvalidRegistration(message) from error


def _capturing(cls: type, registration: Registration) -> Callable[..., None]:
    """Wrap a constructor to look at what it is given, before it can change that."""
    init = _init(cls)

    @wraps(init)
    def capture(self: object, /, *args: Any, **kwargs: Any) -> None:
        if type(self) is cls and not is_dynamo_compiling():  # a compiled graph has no room for a record
            remember(self, Identity(capturing.__registration__.capture(args, kwargs)))
        init(self, *args, **kwargs)

    capturing: Any = capture
    capturing.__registration__ = registration
    if _constructor(cls.__mro__) is object.__init__:  # whose own signature says nothing
        itself = Parameter("self", Parameter.POSITIONAL_ONLY)
        capturing.__signature__ = Signature([itself, *registration.signature.parameters.values()])
    return capture


def _carrying_pickle(cls: type) -> Callable[..., object]:
    """Wrap the method that takes an object apart, for a pickle or a copy, to put the identity beside its parts."""
    reduce = _method(cls, "__reduce_ex__")

    @wraps(reduce)
    def carrying(self: object, protocol: Any, /) -> object:
        parts = reduce(self, protocol)
        identity = recall(self)
        if identity is None or isinstance(parts, str):  # a string is the name under which the object itself is found
            return parts
        make, arguments, *state = parts
        return revive, (identity, make, arguments), *map(without, state)

    return carrying


def _carrying_copy(cls: type, name: str) -> Callable[..., object]:
    """Wrap a method that copies an object, to give the copy the identity."""
    original = _method(cls, name)

    @wraps(original)
    def carrying(self: object, /, *args: Any, **kwargs: Any) -> object:
        copied: object = original(self, *args, **kwargs)
        identity = recall(self)
        if identity is not None and type(copied) is type(self):
            remember(copied, identity.copy())
        return copied

    return carrying


def _method(cls: type, name: str) -> Callable[..., Any]:
    """Find a method of a class: its own, or one that goes on to the next class of the object, whichever that is."""
    own: Callable[..., Any] | None = vars(cls).get(name)
    if own is not None:
        return own

    @wraps(getattr(cls, name))
    def inherited(self: object, /, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(cls, self), name)(*args, **kwargs)

    return inherited


def _init(cls: Any) -> Callable[..., None]:
    """Find the constructor of a class, as `_method` does, with the rules that `object` and protocols have for it."""
    own: Any = vars(cls).get("__init__")
    if callable(own):
        return cast("Callable[..., None]", own)

    complete = _has_dataclass_constructor(cls)

    @wraps(cls.__init__)
    def inherited(self: object, /, *args: Any, **kwargs: Any) -> None:
        bases = type(self).__mro__
        if cls not in bases or _has_dataclass_constructor(cls) is not complete:
            message = (
                f"{cls.__module__}.{cls.__qualname__} was registered before it was complete, and so it did not get the "
                f"constructor of a dataclass. Write `@register` above its other decorators."
            )
            raise InvalidRegistration(message)
        init = own if own is not None else _constructor(bases[bases.index(cls) + 1 :])
        if init is object.__init__ and type(self).__new__ is not object.__new__:
            return init(self)  # the arguments were meant for `__new__`, and `object` lets them pass
        return init.__get__(self)(*args, **kwargs)  # type: ignore[no-any-return]

    return inherited


def _has_dataclass_constructor(cls: type) -> bool:
    parameters = vars(cls).get("__dataclass_params__")
    return parameters is not None and bool(parameters.init)


def _constructor(classes: Iterable[type]) -> Callable[..., None]:
    """Find the first constructor, but for those of protocols: they go on to the next only where nobody wraps them."""
    constructors: Iterator[Callable[..., None]] = (vars(cls)["__init__"] for cls in classes if "__init__" in vars(cls))
    return next(each for each in constructors if getattr(each, "__name__", "") != "_no_init_or_replace_init")
