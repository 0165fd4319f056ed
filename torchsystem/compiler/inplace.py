"""Compiling an aggregate in place: the same object, of the same type, with the same state, whose modules are compiled.

``torch.compile(aggregate)`` gives something else: a wrapper that is no aggregate, renames the state, and compiles
``forward`` where the work is done by ``fit`` and ``evaluate``. And ``Module.compile()`` captures nothing of a
``Sequential`` or a ``Linear``, whose frames are torch's own.
"""

# ruff: noqa: PLC0415 - torch is imported where it is used, so that importing the compiler stays quick

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, overload

from torchsystem.compiler.compilation import Compilation
from torchsystem.compiler.recognition import is_aggregate, wrapped_aggregate
from torchsystem.errors import InvalidCompileOption, NothingCaptured, WrappedAggregate

T = TypeVar("T")


@overload
def compile(target: T, /, *, step: bool = ..., **options: Any) -> T: ...  # noqa: A001 - named as torch names it
@overload
def compile(*, step: bool = ..., **options: Any) -> Callable[[T], T]: ...  # noqa: A001
def compile(target: Any = None, /, *, step: bool = False, **options: Any) -> Any:  # noqa: A001
    """Compile an aggregate in place, and give it back.

    It stays the same object, with its type, id, hash, events and state-dict keys. Whatever module ``fit`` and
    ``evaluate`` call is compiled, containers of torch's own included, at its first call; the first use makes sure
    that something was. A copy is eager until it is compiled again.

    Anything but an aggregate is given to ``torch.compile``.

    Args:
        target: The aggregate. Without it, a decorator is returned.
        step: Whether to compile ``fit`` as a whole as well, and the step of every optimizer of the aggregate.
        options: What ``torch.compile`` takes: ``mode``, ``backend``, ``dynamic``, ... With ``disable=True`` an
            aggregate is made eager again.

    Raises:
        WrappedAggregate: The target is what ``torch.compile`` made of an aggregate.
        InvalidCompileOption: ``step`` is given for something that has none.
        NothingCaptured: There is nothing to compile yet; or, raised by the first use, nothing was captured in it.

    Examples:
        >>> import torch
        >>> from torchsystem import Aggregate
        >>> from torchsystem.compiler import compile
        >>> class Classifier(Aggregate):
        ...     def __init__(self, nn: torch.nn.Module) -> None:
        ...         super().__init__()
        ...         self.nn = nn
        ...
        ...     def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        ...         return self.nn(x).argmax(1)
        >>> classifier = Classifier(torch.nn.Sequential(torch.nn.Linear(2, 3)))
        >>> compile(classifier, backend="eager") is classifier
        True
        >>> classifier.evaluate(torch.zeros(4, 2)).shape
        torch.Size([4])
    """
    if target is None:
        return functools.partial(compile, step=step, **options)
    if (aggregate := wrapped_aggregate(target)) is not None:
        name = type(aggregate).__qualname__
        message = f"this is what torch.compile made of a {name}, and no {name}. Compile the {name} itself, with this."
        raise WrappedAggregate(message)
    import torch

    if not is_aggregate(target):
        if step:
            message = f"compile({type(target).__qualname__}, step=True): only an aggregate has a step. Leave it out."
            raise InvalidCompileOption(message)
        return torch.compile(target, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's backend is imported here, and warns of torch's own code
        torch.compile(_nothing, **options)  # refuses here what it would refuse at the first use
    Compilation.undo(target)
    if options.get("disable"):
        return target
    if next(target.parameters(), None) is None:
        message = f"nothing in {type(target).__qualname__} has parameters. Compile it when its modules are in it."
        raise NothingCaptured(message)
    Compilation(target, options, step=step)
    return target


def _nothing() -> None:
    pass
