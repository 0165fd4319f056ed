"""The mark that a parameter is not the caller's to give: ``device: str = Depends(device)``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Literal, TypeAlias, TypeVar, overload

from torchsystem.errors import InvalidDependency, ScopeMismatch, UnknownScope

T = TypeVar("T")
Scope: TypeAlias = Literal["call", "provider"]
SCOPES = ("call", "provider")


class Dependency:
    """What ``Depends(f)`` leaves in a signature: which callable, made how often, kept how long."""

    __slots__ = ("cache", "dependency", "scope")

    def __init__(self, dependency: Callable[..., object], *, cache: bool = True, scope: Scope | None = None) -> None:
        if not callable(dependency):
            message = (
                f"Depends({dependency!r}): a dependency is something to call (a function, a class, ...). "
                f"Write Depends(lambda: {dependency!r}) for a fixed value."
            )
            raise InvalidDependency(message)
        check_scope(scope)
        if scope == "provider" and not cache:
            message = (
                f"Depends({_name(dependency)}, cache=False, scope='provider'): made anew for each use and kept for "
                f"all of them cannot both be. Leave out one of the two."
            )
            raise ScopeMismatch(message)
        self.dependency = dependency
        self.cache = cache
        self.scope: Scope | None = scope

    def __repr__(self) -> str:
        """Spell the mark as it was written."""
        options = ("" if self.cache else ", cache=False") + ("" if self.scope is None else f", scope={self.scope!r}")
        return f"Depends({_name(self.dependency)}{options})"


def check_scope(scope: str | None) -> None:
    """Refuse a scope that does not exist.

    Raises:
        UnknownScope: ``scope`` is neither None nor one of ``SCOPES``.
    """
    if scope is not None and scope not in SCOPES:
        message = f"scope={scope!r}: there are {' and '.join(map(repr, SCOPES))}."
        raise UnknownScope(message)


def _name(dependency: object) -> str:
    return getattr(dependency, "__qualname__", None) or repr(dependency)


# A generator function, a context-managed one and an async function give what they yield or return.
@overload
def Depends(
    dependency: Callable[..., AbstractContextManager[T] | Generator[T, Any, Any] | Iterator[T]],
    *,
    cache: bool = ...,
    scope: Scope | None = ...,
) -> T: ...
@overload
def Depends(
    dependency: Callable[
        ..., AbstractAsyncContextManager[T] | AsyncGenerator[T, Any] | AsyncIterator[T] | Awaitable[T]
    ],
    *,
    cache: bool = ...,
    scope: Scope | None = ...,
) -> T: ...
@overload
def Depends(dependency: Callable[..., T], *, cache: bool = ..., scope: Scope | None = ...) -> T: ...
def Depends(  # noqa: N802 - reads as what it is in a signature, like a type
    dependency: Callable[..., object], *, cache: bool = True, scope: Scope | None = None
) -> Any:
    """Declare that a parameter is made by calling ``dependency``, late, and not given by the caller.

    Written as a default (``device: str = Depends(device)``) or in the annotation
    (``device: Annotated[str, Depends(device)]``). For a type checker it is what ``dependency`` gives.

    Args:
        dependency: What to call: a function, a generator function (what follows its ``yield`` cleans up), their
            async kinds, a function decorated with ``@contextmanager``, a class, any callable.
        cache: Whether all uses in one call share one value; False makes a new one for this use.
        scope: How long the value lives: ``"call"``, ``"provider"`` (until the provider is closed), or None for
            the scope of whoever uses it.

    Raises:
        InvalidDependency: ``dependency`` cannot be called.
        UnknownScope: ``scope`` does not exist.
        ScopeMismatch: A value kept by the provider was asked for without cache.

    Examples:
        >>> from torchsystem import Depends, Provider, inject
        >>> def device() -> str: ...
        >>> provider = Provider()
        >>> @inject(provider)
        ... def train(model: str, device: str = Depends(device)) -> str:
        ...     return f"{model} on {device}"
        >>> provider.dependency_overrides[device] = lambda: "cuda"
        >>> train("mlp")
        'mlp on cuda'
    """
    return Dependency(dependency, cache=cache, scope=scope)
