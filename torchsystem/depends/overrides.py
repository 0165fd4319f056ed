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
from torchsystem.depends.plan import Binding, is_hashable
from torchsystem.errors import AsyncInSync, InvalidDependency


class _Entry:
    """One implementation of one dependency, simply written or of a block.

    Attributes:
        binding: The implementation, and the scope asked for with it.
        plain: Whether it was simply written, and so gives way to the next that is.
        instead: For a plain entry that became a block's: what it had replaced, which now counts again.
    """

    __slots__ = ("binding", "instead", "plain", "withdrawn")

    def __init__(self, binding: Binding, *, plain: bool) -> None:
        self.binding = binding
        self.plain = plain
        self.withdrawn = False
        self.instead: _Entry | None = None


class Overrides(dict[Factory, Factory]):
    """Map dependencies to the implementations in force.

    A plain dictionary to its user. Below it, each key has a stack: at most one entry that was simply written, and one
    for each ``with`` block that is open, in the order in which they came; the newest is in force.
    """

    def __init__(self, lock: threading.RLock, changed: Callable[[Factory], None]) -> None:
        super().__init__()
        self.lock = lock
        self._changed = changed
        self._stacks: dict[Factory, list[_Entry]] = {}

    def is_lasting(self, key: Factory) -> bool:
        """Tell whether what is in force for ``key`` was simply written, and does not end with a block."""
        stack = self._stacks.get(key)
        return stack is None or stack[-1].plain

    def binding_of(self, key: Factory) -> Binding | None:
        """Return what is in force for ``key``, with its scope."""
        try:
            stack = self._stacks.get(key)
        except TypeError:  # it cannot be hashed, and so never be overridden
            return None
        return stack[-1].binding if stack else None

    def snapshot(self) -> Callable[[Factory], Binding | None]:
        """Return the same for what is in force now, whatever is written later."""
        with self.lock:
            bindings = {key: stack[-1].binding for key, stack in self._stacks.items()}
        return lambda key: bindings.get(key) if is_hashable(key) else None

    def write(self, key: Factory, implementation: Factory, scope: Scope | None = None) -> Override:
        """Bind ``implementation`` in the place of what was written for ``key`` before."""
        check(key, implementation, scope)
        with self.lock:
            stack = self._stacks.setdefault(key, [])
            replaced = next((entry for entry in stack if entry.plain), None)
            index = 0 if replaced is None else stack.index(replaced)
            if replaced is not None:
                stack.remove(replaced)
            entry = _Entry(Binding(implementation, scope), plain=True)
            stack.append(entry)
            self._settle(key)
        return Override(self, key, entry, replaced, index)

    def withdraw(self, key: Factory, entry: _Entry, replaced: _Entry | None, index: int) -> bool:
        """Take back that ``entry`` was simply written: what it had replaced counts again.

        Returns:
            Whether ``entry`` is still the newest; then it stays, as the entry of a block.
        """
        with self.lock:
            entry.withdrawn, entry.instead = True, replaced
            stack = self._stacks.get(key, [])
            if entry not in stack:
                return False
            while replaced is not None and replaced.withdrawn:
                replaced = replaced.instead
            is_newest = stack[-1] is entry
            if is_newest:
                entry.plain = False
            else:
                stack.remove(entry)
            if replaced is not None:
                stack.insert(index, replaced)
            return is_newest

    def push(self, key: Factory, binding: Binding) -> _Entry:
        """Put ``binding`` on top for a block."""
        with self.lock:
            entry = _Entry(binding, plain=False)
            self._stacks.setdefault(key, []).append(entry)
            self._settle(key)
            return entry

    def remove(self, key: Factory, entry: _Entry) -> None:
        """Take ``entry`` out, wherever in the stack it stands; a deletion may have been first."""
        with self.lock:
            stack = self._stacks.get(key, [])
            if entry in stack:
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
        with self.lock:
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
        with self.lock:
            for key in list(self):
                del self[key]

    def pop(self, key: Factory, /, *default: Any) -> Any:
        """Remove the override of ``key`` and return it."""
        with self.lock:
            if key not in self and default:
                return default[0]
            value = self[key]
            del self[key]
            return value

    def replace(self, other: Mapping[Factory, Factory]) -> None:
        """Bind what is in ``other`` and nothing else."""
        if other is self:  # as after `dependency_overrides |= ...`
            return
        new = dict(other)
        for key, implementation in new.items():
            check(key, implementation, None)
        with self.lock:
            self.clear()
            self.update(new)

    def popitem(self) -> tuple[Factory, Factory]:
        """Remove the last override and return it."""
        with self.lock:
            key = next(reversed(self))
            return key, self.pop(key)

    def setdefault(self, key: Factory, default: Any = None) -> Factory:
        """Return the override of ``key``; bind ``default`` if there is none."""
        with self.lock:
            if key not in self:
                self.write(key, default)
            return self[key]

    def update(self, other: Any = (), /) -> None:
        """Bind everything in ``other``, or nothing if anything in it is refused."""
        new: dict[Factory, Factory] = dict(other)
        for key, implementation in new.items():
            check(key, implementation, None)
        with self.lock:
            for key, implementation in new.items():
                self.write(key, implementation)


class Override:
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
        with self._overrides.lock:
            entry = self._entry
            if entry.withdrawn or not self._overrides.withdraw(self._key, entry, self._replaced, self._index):
                entry = self._overrides.push(self._key, entry.binding)
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
    if not is_hashable(key):
        message = f"override of {name}: it cannot be hashed, and so be no key. Depend on a function that returns it."
        raise InvalidDependency(message)
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
