"""Routing by type: which events the annotation of a handler means."""

from __future__ import annotations

import sys
from types import NoneType, SimpleNamespace, UnionType
from typing import TYPE_CHECKING, Annotated, Any, NewType, TypeVar, Union, get_args, get_origin, get_type_hints
from weakref import WeakKeyDictionary

from typing_extensions import TypeAliasType, get_protocol_members, is_protocol

from torchsystem.errors import UnroutableAnnotation

if TYPE_CHECKING:
    from collections.abc import Iterator

UNSEEN: Any = object()


class Interest:
    """What a handler listens to: every event that is an instance of one of some types.

    Nearly always the class of an event tells. Only a protocol with data members has to see an instance, because
    attributes may come into being in `__init__`: the first event of each class decides for all that follow.
    """

    __slots__ = ("_fits", "classes", "shapes")

    def __init__(self, accepted: tuple[type, ...]) -> None:
        self.shapes = tuple(cls for cls in accepted if _is_shape(cls))
        self.classes = tuple(cls for cls in accepted if cls not in self.shapes)
        self._fits: WeakKeyDictionary[type, bool] = WeakKeyDictionary()

    def covers(self, kind: type, event: Any = UNSEEN) -> bool | None:
        """Tell whether the events of a class are heard.

        Args:
            kind: The class in question.
            event: An instance of it, where there is one.

        Returns:
            None if only an instance could tell.
        """
        if any(issubclass(kind, cls) for cls in self.classes):
            return True
        if not self.shapes:
            return False
        fits = self._fits.get(kind)
        if fits is None and event is not UNSEEN:
            fits = self._fits[kind] = isinstance(event, self.shapes)
        return fits

    def names(self, kind: type) -> bool:
        """Tell whether a class is asked for by its name, or by that of a base other than `object`."""
        return any(cls is not object and issubclass(kind, cls) for cls in self.classes)


def interest(annotation: object, place: str) -> Interest:
    """Find out which events an annotation means.

    Args:
        annotation: The annotation of a handler's first parameter, already evaluated.
        place: Where it stands, for the message of an error.

    Raises:
        UnroutableAnnotation: Nothing about an event can tell, at run time, whether it is meant.
    """
    return Interest(tuple(dict.fromkeys(_accepted(annotation, place))))


def _accepted(annotation: object, place: str) -> Iterator[type]:
    """Yield the classes and protocols that an annotation comes down to."""
    parts = _parts(annotation, place)
    if parts is None:
        yield _routable(annotation, place)
    else:
        for part in parts:
            yield from _accepted(part, place)


def _parts(annotation: object, place: str) -> tuple[object, ...] | None:
    """Open an annotation that only joins, names or decorates others; None if it does not."""
    origin = get_origin(annotation)
    if origin in {Union, UnionType}:
        return get_args(annotation)
    if origin is Annotated:
        return get_args(annotation)[:1]
    if isinstance(annotation, TypeVar):
        bounds = annotation.__constraints__ or (annotation.__bound__ or object,)
        return tuple(_evaluated(bound, annotation, place) for bound in bounds)
    alias = annotation if origin is None else origin
    if isinstance(alias, TypeAliasType):
        return (_filled(_evaluated(alias.__value__, alias, place), alias.__type_params__, get_args(annotation)),)
    return None


def _evaluated(meaning: object, name: TypeVar | TypeAliasType, place: str) -> object:
    """Evaluate the strings in what a type variable or an alias stands for, in the module that defines it."""
    holder = SimpleNamespace(__annotations__={"meaning": meaning})
    known = vars(sys.modules[name.__module__]) if name.__module__ in sys.modules else {}
    try:
        return get_type_hints(holder, known, include_extras=True)["meaning"]
    except Exception as error:
        message = f"{place}: {name} stands for {meaning!r}, which cannot be resolved ({error}). Write the class itself."
        raise UnroutableAnnotation(message) from error


def _filled(meaning: Any, parameters: tuple[object, ...], arguments: tuple[object, ...]) -> object:
    """Put what a generic alias was given into what it stands for."""
    given = dict(zip(parameters, arguments, strict=False))
    if isinstance(meaning, TypeVar):
        return given.get(meaning, meaning)
    free = getattr(meaning, "__parameters__", ())
    return meaning[tuple(given.get(each, each) for each in free)] if given and free else meaning


def _routable(annotation: object, place: str) -> type:
    """Return the class or protocol that an annotation names, or refuse it with the way out."""
    if annotation is Any:
        return object
    if annotation is None:
        return NoneType
    cls = get_origin(annotation) or annotation
    if not isinstance(cls, type) or (cls is type and cls is not annotation):
        remedy = f"Annotate it with a class, or with a union of classes; {_why_not(annotation)}"
    elif _tells_instances(cls):
        return cls
    elif is_protocol(cls):
        remedy = f"Write @runtime_checkable above the protocol {cls.__qualname__}"
    else:
        remedy = f"Annotate it with a class that isinstance can tell; {cls.__qualname__} cannot be asked"
    message = f"{place}: events cannot be routed by {annotation!r}. {remedy}."
    raise UnroutableAnnotation(message)


def _why_not(annotation: object) -> str:
    """Say what an annotation that is no class lacks."""
    if isinstance(annotation, NewType):
        return f"a NewType does not exist at run time, where every {annotation.__supertype__!r} would be meant"
    if get_origin(annotation) is type:
        return "events are instances, and `type` alone means every class"
    return "this is none at run time"


def _tells_instances(cls: type) -> bool:
    """Tell whether `isinstance` can be asked about a class: not for typed dictionaries and mere protocols."""
    try:
        isinstance(None, cls)
    except TypeError:
        return False
    return True


def _is_shape(cls: type) -> bool:
    """Tell a protocol with data members, about which only an instance can be asked."""
    return is_protocol(cls) and not all(callable(getattr(cls, name, None)) for name in get_protocol_members(cls))
