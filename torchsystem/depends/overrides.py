"""What is bound in the place of a dependency: a dictionary that notices every change, and undoes its own exactly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, SupportsIndex

from torchsystem.depends.graph import Factory
from torchsystem.depends.kinds import kind
from torchsystem.depends.marker import Dependency, Scope, check_scope
from torchsystem.depends.mistakes import name_of
from torchsystem.depends.plan import Binding
from torchsystem.errors import AsyncInSync, InvalidDependency


class _Entry:
    """One implementation of one dependency; ``scoped`` if a ``with`` block will remove it."""

    __slots__ = ("binding", "scoped")

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.scoped = False


class Overrides(dict[Factory, Factory]):
    """Map dependencies to the implementations in force.

    A plain dictionary to its user. Below it, each key has a stack: at most one entry that was simply written, and one
    for each ``with`` block that is open, in the order in which they came; the newest is in force.
    """

    def __init__(self, lock: threading.RLock, changed: Callable[[Factory], None]) -> None:
        super().__init__()
        self._lock = lock
        self._changed = changed
        self._stacks: dict[Factory, list[_Entry]] = {}

    def bindings(self) -> Mapping[Factory, Binding]:
        """Return what is in force now, with the scopes."""
        with self._lock:
            return {key: stack[-1].binding for key, stack in self._stacks.items()}

    def write(self, key: Factory, implementation: Factory, scope: Scope | None = None) -> Written:
        """Bind ``implementation`` in the place of what was written for ``key`` before."""
        check(key, implementation, scope)
        with self._lock:
            stack = self._stacks.setdefault(key, [])
            replaced = next((entry for entry in stack if not entry.scoped), None)
            index = len(stack) if replaced is None else stack.index(replaced)
            if replaced is not None:
                stack.remove(replaced)
            entry = _Entry(Binding(implementation, scope))
            stack.append(entry)
            self._settle(key)
        return Written(self, key, entry, replaced, index)

    def scope_entry(self, key: Factory, entry: _Entry, replaced: _Entry | None, index: int) -> None:
        """Make ``entry`` one that will be removed, and put back what it had replaced below it."""
        with self._lock:
            entry.scoped = True
            stack = self._stacks.setdefault(key, [])
            if not any(one is entry for one in stack):
                stack.append(entry)
            elif replaced is not None and all(one.scoped for one in stack):
                stack.insert(index, replaced)
            self._settle(key)

    def remove(self, key: Factory, entry: _Entry) -> None:
        """Take ``entry`` out, wherever in the stack it stands."""
        with self._lock:
            stack = self._stacks.get(key, [])
            if any(one is entry for one in stack):
                stack.remove(entry)
                self._settle(key)

    def _settle(self, key: Factory) -> None:
        """Show the newest entry of ``key``, and tell about it."""
        stack = self._stacks.get(key)
        if stack:
            super().__setitem__(key, stack[-1].binding.implementation)
        else:
            self._stacks.pop(key, None)
            super().pop(key, None)
        self._changed(key)

    def __setitem__(self, key: Factory, implementation: Factory) -> None:
        self.write(key, implementation)

    def __delitem__(self, key: Factory) -> None:
        with self._lock:
            super().__getitem__(key)
            self._stacks[key].clear()
            self._settle(key)

    def __ior__(self, other: Any) -> Self:  # type: ignore[override,misc]
        self.update(other)
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        """Copy and pickle as the plain dictionary it looks like: a copy is bound to no provider."""
        return (dict, (dict(self),))

    def clear(self) -> None:
        """Remove all overrides."""
        with self._lock:
            for key in list(self):
                del self[key]

    def pop(self, key: Factory, /, *default: Any) -> Any:
        """Remove the override of ``key`` and return it."""
        with self._lock:
            if key not in self and default:
                return default[0]
            value = self[key]
            del self[key]
            return value

    def popitem(self) -> tuple[Factory, Factory]:
        """Remove the last override and return it."""
        with self._lock:
            key = next(reversed(self))
            return key, self.pop(key)

    def setdefault(self, key: Factory, default: Any = None) -> Factory:
        """Return the override of ``key``; bind ``default`` if there is none."""
        with self._lock:
            if key not in self:
                self.write(key, default)
            return self[key]

    def update(self, other: Any = (), /) -> None:
        """Bind everything in ``other``, or nothing if anything in it is refused."""
        new: dict[Factory, Factory] = dict(other)
        for key, implementation in new.items():
            check(key, implementation, None)
        with self._lock:
            for key, implementation in new.items():
                self.write(key, implementation)


class Written:
    """An override in force; as a ``with`` block it is undone at its end, exactly, in whatever order blocks end."""

    __slots__ = ("_entered", "_entry", "_index", "_key", "_overrides", "_replaced")

    def __init__(self, overrides: Overrides, key: Factory, entry: _Entry, replaced: _Entry | None, index: int) -> None:
        self._overrides = overrides
        self._key = key
        self._entry = entry
        self._replaced = replaced
        self._index = index
        self._entered: list[_Entry] = []

    def __enter__(self) -> None:
        entry = self._entry if not self._entered and not self._entry.scoped else _Entry(self._entry.binding)
        self._overrides.scope_entry(self._key, entry, self._replaced, self._index)
        self._entered.append(entry)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._overrides.remove(self._key, self._entered.pop())


def check(key: object, implementation: object, scope: str | None) -> None:
    """Refuse an override that cannot work.

    Raises:
        InvalidDependency: One of the two cannot be called.
        AsyncInSync: An async implementation for a sync dependency.
        UnknownScope: ``scope`` does not exist.
    """
    check_scope(scope)
    if isinstance(key, Dependency) or not callable(key):
        hint = f"Write {name_of(key.dependency)}" if isinstance(key, Dependency) else "Write the function or class"
        message = f"override of {key!r}: it is not a dependency. {hint} that stands in Depends(...), not its name."
        raise InvalidDependency(message)
    name = name_of(key)
    if isinstance(implementation, Dependency) or not callable(implementation):
        message = (
            f"override of {name} with {implementation!r}: an implementation is something to call. "
            f"Write `lambda: value` for a fixed value."
        )
        raise InvalidDependency(message)
    if kind(implementation).is_async and not kind(key).is_async:
        message = (
            f"override of {name} with {name_of(implementation)}: it is async, and {name} is not, so that sync handlers "
            f"may use it. Declare `async def {name}`, or bind a sync implementation."
        )
        raise AsyncInSync(message)
