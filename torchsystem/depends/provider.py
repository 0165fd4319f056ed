"""The provider: which implementation stands behind each dependency, and what is kept between calls."""

from __future__ import annotations

import functools
import sys
import threading
import types
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, Protocol, Self, TypeVar

from torchsystem.depends import draw
from torchsystem.depends.bound import BoundCall
from torchsystem.depends.declared import describe
from torchsystem.depends.facts import wrapped_plainly
from torchsystem.depends.graph import Factory
from torchsystem.depends.kept import Keep
from torchsystem.depends.kinds import hidden_kind, managed_kind
from torchsystem.depends.linker import Linker
from torchsystem.depends.marker import Scope
from torchsystem.depends.mistakes import name_of
from torchsystem.depends.overrides import Override, Overrides
from torchsystem.depends.plan import Planner
from torchsystem.depends.recipes import BindingOf, Recipes, needs_of
from torchsystem.depends.session import Session
from torchsystem.depends.signature import Parameters, parameters_of
from torchsystem.depends.users import Users
from torchsystem.errors import InvalidDependency, UnboundInterface

P = ParamSpec("P")
R = TypeVar("R")


class Provider:
    """Bind implementations to dependencies, late: at the next call of any handler that uses them.

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
        self._users = Users()
        self._keep = Keep()
        self._blocks = 0
        self._overrides = Overrides(self._lock, self._changed)
        self._recipes = Recipes(self._overrides, self._planner)

    @property
    def dependency_overrides(self) -> Overrides:
        """The implementations in force, by dependency: to be written to, or replaced as a whole."""
        return self._overrides

    @dependency_overrides.setter
    def dependency_overrides(self, overrides: Mapping[Factory, Factory]) -> None:
        self._overrides.replace(overrides)

    def override(self, dependency: Factory, implementation: Factory, scope: Scope | None = None) -> Override:
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

    def __copy__(self) -> Self:
        """Return the provider itself: it is wiring, and wiring is not copied with what it connects."""
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def explain(self, handler: Callable[..., object]) -> str:
        """Print, and return, the tree of what ``handler`` gets and from where, and the code that does it.

        Never raises: a branch that cannot be made is marked, with what is wrong.
        """
        try:
            text = self._explanation(handler)
        except Exception as error:  # noqa: BLE001 - it is asked when something is wrong, and must not make it worse
            text = f"{handler!r} cannot be explained: {error}"
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding))  # noqa: T201 - what it is for
        return text

    def _explanation(self, handler: Callable[..., object]) -> str:
        linker = _linker_of(handler)
        original = getattr(handler, "__wrapped__", handler) if linker is not None else handler
        parameters = parameters_of(original)
        plan = self._planner(self._overrides.snapshot()).plan(original, parameters or ())
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
        return Session(self._planner(self._overrides.snapshot()))

    def _planner(self, binding_of: BindingOf) -> Planner:
        return Planner(binding_of, self._keep.intern)

    def _changed(self, dependency: Factory) -> None:
        """Have everything that uses ``dependency`` bound anew (the lock is held)."""
        for linker in self._users.of(dependency):
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
            return Linker(recipe, find, self._users.add, self._lock).function


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
            message = f"{handler!r} cannot be called, so nothing can be injected. Write a function."
            raise InvalidDependency(message)
        parameters = parameters_of(handler) or ()
        if all(parameter.dependency is None for parameter in parameters):
            return handler
        _refuse_unfit(handler)
        return provider.link(handler, parameters)

    return decorate


def _refuse_unfit(handler: Any) -> None:
    """Refuse what has dependencies, and would not be what it was after injection.

    Raises:
        InvalidDependency: A class, a static method, a context manager, or a plain wrapper of something that is not.
    """
    hidden = hidden_kind(handler)
    if isinstance(handler, type):
        message = f"{name_of(handler)} is a class, and would become a function. Inject its `__init__`."
    elif isinstance(handler, staticmethod | classmethod):
        message = f"{describe(handler)}: put @{type(handler).__name__} above the injecting decorator, not below it."
    elif managed_kind(handler) is not None:
        message = f"{describe(handler)}: put @contextmanager above the injecting decorator, or all is closed too early."
    elif hidden is not None:
        message = wrapped_plainly(handler, hidden)
    else:
        return
    raise InvalidDependency(message)


def _linker_of(function: object) -> Linker | None:
    function = getattr(function, "__func__", function)
    closure = function.__closure__ if isinstance(function, types.FunctionType) else None
    if closure is None or len(closure) != 1:
        return None
    try:
        binding = closure[0].cell_contents
    except ValueError:  # not assigned yet
        return None
    linker = binding[-1] if isinstance(binding, tuple) and binding else None
    linker = linker.linker if isinstance(linker, BoundCall) else linker
    return linker if isinstance(linker, Linker) else None
