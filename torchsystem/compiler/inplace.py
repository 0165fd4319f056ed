"""Compiling an aggregate in place: the same object, of the same type, with the same state, whose modules are compiled.

``torch.compile(aggregate)`` gives something else: a wrapper that is no aggregate, renames the state, and compiles
``forward`` where the work is done by ``fit`` and ``evaluate``. And ``Module.compile()`` captures nothing of a
``Sequential`` or a ``Linear``, whose frames are torch's own.
"""

# ruff: noqa: PLC0415 - torch is imported where it is used, so that importing the compiler stays quick

from __future__ import annotations

import functools
import logging
import warnings
from typing import TYPE_CHECKING, Any, TypeVar, overload

from torchsystem.compiler.compilation import Compilation, repeated_blocks
from torchsystem.compiler.optimizers import optimizers
from torchsystem.compiler.recognition import is_aggregate, wrapped_aggregate
from torchsystem.compiler.regions import Settings
from torchsystem.errors import InvalidCompileOption, MissingCompiler, NothingCaptured, WrappedAggregate

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from torch.nn import Module

T = TypeVar("T")

logger = logging.getLogger("torchsystem.compiler")


@overload
def compile(  # noqa: A001 - named as torch names it
    target: T,
    /,
    *,
    step: bool = ...,
    regional: bool = ...,
    required: bool = ...,
    cache: str | os.PathLike[str] | None = ...,
    **options: Any,
) -> T: ...
@overload
def compile(  # noqa: A001
    *,
    step: bool = ...,
    regional: bool = ...,
    required: bool = ...,
    cache: str | os.PathLike[str] | None = ...,
    **options: Any,
) -> Callable[[T], T]: ...
def compile(  # noqa: A001
    target: Any = None,
    /,
    *,
    step: bool = False,
    regional: bool = False,
    required: bool = False,
    cache: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Any:
    """Compile an aggregate in place, and give it back.

    It stays the same object, with its type, id, hash, events and state-dict keys. Whatever module ``fit`` and
    ``evaluate`` call is compiled, containers of torch's own included, at its first call; the first use makes sure
    that something was. A copy is eager until it is compiled again.

    Anything but an aggregate is given to ``torch.compile``.

    Args:
        target: The aggregate. Without it, a decorator is returned.
        step: Whether to compile ``fit`` as a whole as well, and the step of every optimizer of the aggregate.
        regional: Whether to compile the blocks that are repeated, once for all of a class, and nothing around them: it
            takes less time to compile, and a little more to run.
        required: Whether it is an error if there is no C++ compiler, which torch's default backend needs on CPUs.
            Otherwise that is said once, and everything runs eagerly.
        cache: The folder in which to keep what compiling makes, such as that of the run, for the next process to find.
        options: What ``torch.compile`` takes: ``mode``, ``backend``, ``dynamic``, ... With ``disable=True`` an
            aggregate is made eager again.

    Raises:
        WrappedAggregate: The target is what ``torch.compile`` made of an aggregate.
        InvalidCompileOption: An option for aggregates is given for something else, ``regional`` for an aggregate in
            which nothing is repeated, or ``step`` for one that has no steps.
        MissingCompiler: There is no C++ compiler, and it is required.
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
    wishes = {"step": step, "regional": regional, "required": required, "cache": cache}
    if target is None:
        return functools.partial(compile, **wishes, **options)
    _refuse_wrapper(target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's backend is imported here, and warns of torch's own code
        if not is_aggregate(target):
            return _by_torch(target, wishes, options)
        settings = Settings(options, step=step, regional=regional, cache=cache)
        settings.use_cache()
        _by_torch(_nothing, {}, options)  # refuses here what it would refuse at the first use
    Compilation.undo(target)
    if options.get("disable"):
        return target
    name = type(target).__qualname__
    if next(target.parameters(), None) is None:
        message = f"nothing in {name} has parameters. Compile it when its modules are in it."
        raise NothingCaptured(message)
    if regional and not repeated_blocks(target):
        message = f"compile({name}, regional=True): no kind of block is repeated in it. Leave the option out."
        raise InvalidCompileOption(message)
    if step and not hasattr(target, "fit") and next(optimizers(target), None) is None:
        message = f"compile({name}, step=True): it has no `fit`, and no optimizer inside. Leave the option out."
        raise InvalidCompileOption(message)
    if _can_be_compiled(target, options, required=required):
        Compilation(target, settings)
    return target


def _refuse_wrapper(target: object) -> None:
    aggregate = wrapped_aggregate(target)
    if aggregate is not None:
        name = type(aggregate).__qualname__
        message = f"this is what torch.compile made of a {name}, and no {name}. Compile the {name} itself, with this."
        raise WrappedAggregate(message)


def _by_torch(target: Any, wishes: dict[str, Any], options: dict[str, Any]) -> Any:
    import torch

    for wish, value in wishes.items():
        if value not in (None, False):
            message = (
                f"compile({type(target).__qualname__}, {wish}={value!r}): this is no aggregate, so it goes to "
                f"torch.compile, which has no such option. Leave it out."
            )
            raise InvalidCompileOption(message)
    return torch.compile(target, **options)


def _can_be_compiled(aggregate: Module, options: dict[str, Any], *, required: bool) -> bool:
    """Tell whether torch's default backend has the C++ compiler that it needs on CPUs."""
    on_cpu = any(parameter.device.type == "cpu" for parameter in aggregate.parameters())
    if options.get("backend", "inductor") != "inductor" or not on_cpu or _has_cpp_compiler():
        return True
    if required:
        message = (
            "there is no C++ compiler, which torch.compile needs on CPUs. Install g++ or clang, or set CXX to one."
        )
        raise MissingCompiler(message)
    return False


@functools.cache
def _has_cpp_compiler() -> bool:
    """Look for the C++ compiler, and say once if there is none."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        logger.warning("there is no C++ compiler (g++ or clang, or what CXX says): nothing is compiled")
        return False
    return True


def _nothing() -> None:
    pass
