"""The provider: which implementation stands behind each dependency, and what is kept between calls."""

from __future__ import annotations

import functools
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, Self, TypeVar

from torchsystem.depends import draw
from torchsystem.depends.bound import BoundCall
from torchsystem.depends.graph import Factory
from torchsystem.depends.kept import Keep
from torchsystem.depends.linker import Linker
from torchsystem.depends.marker import Scope
from torchsystem.depends.overrides import Overrides, Written
from torchsystem.depends.plan import Planner
from torchsystem.depends.recipes import BindingOf, Recipes, needs_of
from torchsystem.depends.session import Session
from torchsystem.depends.signature import Parameters, parameters_of
from torchsystem.errors import InvalidDependency, TorchSystemError, UnboundInterface

P = ParamSpec("P")
R = TypeVar("R")


class Provider:
    """Bind implementations to dependencies, late: at the next call of any handler that uses them.

    Attributes:
        dependency_overrides: The implementations in force, by dependency; a dictionary to be written to.

    Examples:
        >>> from torchsystem import Depends, Provider, inject
        >>> provider = Provider()
        >>> def device() -> str: ...
        >>> @inject(provider)
        ... def where(device: str = Depends(device)) -> str:
        ...     return device
        >>> provider.dependency_overrides[device] = lambda: "cpu"
        >>> where()
        'cpu'
        >>> with provider.override(device, lambda: "cuda"):
        ...     where()
        'cuda'
        >>> where()
        'cpu'
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._linkers: set[weakref.ref[Linker]] = set()
        self._keep = Keep()
        self._blocks = 0
        self.dependency_overrides = Overrides(self._lock, self._changed)
        self._recipes = Recipes(self.dependency_overrides.binding_of, self._planner)

    def override(self, dependency: Factory, implementation: Factory, scope: Scope | None = None) -> Written:
        """Bind ``implementation`` in the place of ``dependency``, from now on or for a ``with`` block.

        Inside ``implementation`` the dependency means the original, so that an override can decorate it; an override
        of an override is not followed. Blocks of several threads are one stack that all of them see.

        Args:
            dependency: What stands in ``Depends(...)``.
            implementation: What is called instead.
            scope: How long its value lives where a use does not say: ``"call"`` or ``"provider"``.

        Raises:
            InvalidDependency: One of the two cannot be called.
            AsyncInSync: An async implementation for a sync dependency.
            UnknownScope: ``scope`` does not exist.
        """
        return self.dependency_overrides.write(dependency, implementation, scope)

    def close(self) -> None:
        """Close what is kept, in reverse order of making; the next use makes it anew.

        Raises:
            AsyncInSync: An async generator is open: ``await provider.aclose()``.
        """
        self._keep.close()

    async def aclose(self) -> None:
        """Close what is kept, async generators too."""
        await self._keep.close_async()

    def __enter__(self) -> Self:
        with self._lock:
            self._blocks += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        """Close what is kept when the outermost block ends; what is kept sees the exception that ended it."""
        if self._left_all_blocks():
            self._keep.close(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        if self._left_all_blocks():
            await self._keep.close_async(error)

    def _left_all_blocks(self) -> bool:
        with self._lock:
            self._blocks -= 1
            return self._blocks == 0

    def __del__(self) -> None:
        keep = getattr(self, "_keep", None)
        if keep is not None and keep.open_names and not sys.is_finalizing():
            message = (
                f"a provider was never closed: {', '.join(keep.open_names)} still open. "
                f"Write `with provider:` around the run, or call `provider.close()`."
            )
            warnings.warn(message, ResourceWarning, stacklevel=1, source=self)

    def explain(self, handler: Callable[..., object]) -> str:
        """Print, and return, the tree of what ``handler`` gets and from where, and the code that does it.

        Never raises: a branch that cannot be made is marked, with what is wrong.
        """
        text = self._explanation(handler)
        print(text)  # noqa: T201 - what it is for
        return text

    def _explanation(self, handler: Callable[..., object]) -> str:
        linker = _linker_of(handler)
        original = getattr(handler, "__wrapped__", handler) if linker is not None else handler
        try:
            parameters = parameters_of(original)
        except TorchSystemError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - explains, never raises
            return f"{original!r} cannot be explained: {error}"
        plan = self._planner(self.dependency_overrides.snapshot()).plan(original, parameters or ())
        text = draw.tree(plan, next(plan.problems(), None))
        text += "".join(f"\n✗ {node.problem.message}" for node in plan.problems() if node.problem is not None)
        if linker is not None:
            text += f"\n\n{linker.generated.source}"
        return text

    def session(self) -> Session:
        """Share one call among several functions: ``call(function, *args, **kwargs)``, as often as one likes.

        Each dependency is made once in the whole block, and generators stay open until its end; but one that is
        filled from arguments is made anew for each function. Overrides are those of the beginning of the block.

        Examples:
            >>> from torchsystem import Depends, Provider
            >>> def device() -> str:
            ...     return "cuda"
            >>> def build(size: int, device: str = Depends(device)) -> str:
            ...     return f"mlp({size}) on {device}"
            >>> with Provider().session() as call:
            ...     call(build, 64)
            'mlp(64) on cuda'
        """
        return Session(self._planner(self.dependency_overrides.snapshot()))

    def _planner(self, binding_of: BindingOf) -> Planner:
        return Planner(binding_of, self._keep.nodes, self._keep.make)

    def _changed(self, dependency: Factory) -> None:
        """Have everything that uses ``dependency`` bound anew (the lock is held)."""
        for reference in self._linkers.copy():
            linker = reference()
            if linker is not None and dependency in linker.keys:
                linker.invalidate()

    def link(self, handler: Factory, parameters: Parameters) -> Callable[..., Any]:
        """Make the injected function of ``handler``: see `inject`."""
        with self._lock:
            find = functools.partial(self._recipes.find, handler, parameters, needs_of(handler, parameters))
            recipe = find()
            for node in recipe.plan.problems():
                # Whoever is not bound yet may be by the time of the call; all else is a mistake now.
                if node.problem is not None and node.problem.error is not UnboundInterface:
                    raise draw.error(recipe.plan, node)
            linker = Linker(handler, parameters, recipe, find, self._lock)
            self._linkers.add(weakref.ref(linker, self._linkers.discard))
        return linker.function


class _Inject(Protocol):
    """A decorator that keeps the type of what it decorates."""

    def __call__(self, handler: Callable[P, R], /) -> Callable[P, R]: ...


def inject(provider: Provider) -> _Inject:
    """Return the decorator that has a function's dependencies made by ``provider`` at each call.

    The decorated function keeps its name, signature and type, and may be called by hand; an argument passed
    explicitly wins, and its dependency is not made. A function that needs nothing is returned as it is.

    Raises:
        DependencyError: What the function needs cannot be made, whatever is bound later; the tree shows where.

    Examples:
        >>> from torchsystem import Depends, Provider, inject
        >>> def device() -> str:
        ...     return "cuda"
        >>> @inject(Provider())
        ... def where(device: str = Depends(device)) -> str:
        ...     return device
        >>> where(), where("cpu")
        ('cuda', 'cpu')
    """
    if not isinstance(provider, Provider):
        message = f"inject({provider!r}): it takes a provider. Write @inject(provider), or @service.handler."
        raise InvalidDependency(message)

    def decorate(handler: Callable[P, R], /) -> Callable[P, R]:
        if not callable(handler):
            message = f"{handler!r} cannot be called, so nothing can be injected. Put @staticmethod outside."
            raise InvalidDependency(message)
        parameters = parameters_of(handler) or ()
        if all(parameter.dependency is None for parameter in parameters):
            return handler
        return provider.link(handler, parameters)

    return decorate


def _linker_of(function: object) -> Linker | None:
    closure = function.__closure__ if isinstance(function, types.FunctionType) else None
    if closure is None or len(closure) != 1:
        return None
    binding = closure[0].cell_contents
    linker = binding[-1] if isinstance(binding, tuple) and binding else None
    linker = linker.linker if isinstance(linker, BoundCall) else linker
    return linker if isinstance(linker, Linker) else None
