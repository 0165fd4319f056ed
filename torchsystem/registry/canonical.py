"""The canonical form of values that JSON does not know, version 1.

A value is taken apart into simpler ones, and these in turn. What it is made of is written
`{"$canonical": 1, "type": ..., "value": ...}`:

| value | type | made of |
| --- | --- | --- |
| tensor | `torch.Tensor` | dtype, shape, and the SHA-256 of its elements |
| dtype, device, layout, memory format | `torch.dtype`, ... | how it prints |
| random generator | `torch.Generator` | device and seed, not how far it was drawn from |
| array | `numpy.ndarray` | dtype, shape, and the SHA-256 of its elements |
| path | `path` | its name, with forward slashes |
| enum member | `enum` | class and name |
| set, frozenset | `set`, `frozenset` | its elements, sorted by their own form |
| ordered dict; dict with other keys than strings | `OrderedDict`; `dict` | its pairs |
| bytes | `bytes`, `bytearray` | hexadecimal digits |
| complex number | `complex` | real and imaginary part |
| range, slice | `range`, `slice` | start, stop, step |
| dataclass, pydantic model | `dataclass`, `pydantic` | class and fields; of a dataclass, those that count in `==` |
| function, method of a built-in class, class | `function`, `class` | the name under which every process finds it |
| `functools.partial` | `partial` | function and arguments; keywords in the order of their names |
| value of a type taught by `register` | its name | what the given function returns |

A number of NumPy is the number it holds, and any other subclass of a plain type what JSON makes of it. A dict that
would be taken for one of these forms, or for a registered object, is written as its pairs.

The form of a value never changes: a change would be version 2, and make new hashes only where it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from itertools import chain
from typing import Any, TypeVar

from torchsystem.errors import InvalidRegistration, NameTaken
from torchsystem.registry.forms import DATACLASS, FORMS, FORMS_BY_NAME, Form
from torchsystem.registry.names import name_of_type
from torchsystem.registry.values import PLAIN, VERSION

__all__ = ["VERSION", "register"]

T = TypeVar("T")

_PLAIN_TYPES = PLAIN | {list, tuple, dict}


def register(
    cls: type[T], function: Callable[[T], object], *, rebuild: Callable[[Any], T] | None = None, replace: bool = False
) -> None:
    """Teach the canonical form of a type, and of its subclasses.

    Args:
        cls: The type.
        function: Gives what a value is made of: plain values, or others with a canonical form. Whatever two values
            should differ in must be in it.
        rebuild: Makes a value from that again, where a value is needed (`Registry.build`).
        replace: Whether the form may replace one that is known. The hashes of what it was used for change.

    Raises:
        NameTaken: The form is known already, and `replace` is not given.
        InvalidRegistration: It is no type, or a plain one, whose form is fixed for ever.

    Examples:
        ```python
        from torchsystem.registry import canonical, gethash, register


        class Money:
            def __init__(self, cents: int) -> None:
                self.cents = cents


        @register
        class Budget:
            def __init__(self, limit: Money) -> None: ...


        canonical.register(Money, lambda money: money.cents, rebuild=Money)
        assert gethash(Budget(Money(100))) == gethash(Budget(limit=Money(100)))
        ```
    """
    if not isinstance(cls, type) or cls in _PLAIN_TYPES or cls is object:
        message = f"the canonical form of {cls!r} cannot be taught. Give a type that is neither plain nor `object`."
        raise InvalidRegistration(message)
    if not (callable(function) and (rebuild is None or callable(rebuild))):
        message = (
            f"the canonical form of {name_of_type(cls)} is taught by functions, and not by {function!r} and "
            f"{rebuild!r}. Write `canonical.register({cls.__name__}, lambda value: ..., rebuild=lambda parts: ...)`."
        )
        raise InvalidRegistration(message)
    known = _own_form(cls)
    if known is not None and known.take is not function and not replace:
        message = (
            f"the canonical form of {name_of_type(cls)} is known already. Write `replace=True` if every hash that it "
            f"is part of may change."
        )
        raise NameTaken(message)
    FORMS[cls] = Form(None, function, None if rebuild is None else lambda parts, _: rebuild(parts))


def form_of(cls: type) -> Form | None:
    """Find the canonical form of the values of a type; `None` if there is none."""
    for base in cls.__mro__:
        form = _own_form(base)
        if form is not None:
            return form
    return DATACLASS if is_dataclass(cls) else None


def _own_form(cls: type) -> Form | None:
    return FORMS.get(cls) or FORMS_BY_NAME.get(name_of_type(cls))


def form_named(kind: str) -> Form | None:
    """Find the canonical form of a kind of values; `None` if there is none."""
    if kind == DATACLASS.kind:
        return DATACLASS
    named = [(form.kind or name_of_type(cls), form) for cls, form in list(FORMS.items())]
    return next((form for name, form in chain(named, FORMS_BY_NAME.items()) if kind in {name, form.kind}), None)
