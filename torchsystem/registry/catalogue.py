"""A collection of registered classes, to be found again by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Generic, TypeVar, cast, overload

from torchsystem.errors import NameTaken, UnknownName
from torchsystem.registry.annotations import written_annotations
from torchsystem.registry.build import Builder
from torchsystem.registry.core import name_of, one_name, register
from torchsystem.registry.hooks import registration_of
from torchsystem.registry.registration import Registration

T = TypeVar("T")
C = TypeVar("C")


class Registry(Generic[T]):
    """Classes of one kind by the names they are registered under, in the order in which they were registered.

    Examples:
        ```python
        from torch.nn import CrossEntropyLoss, Module

        from torchsystem.registry import Registry

        criterions = Registry[Module]()
        criterions.register(CrossEntropyLoss)


        @criterions.register("mse", excluded_kwargs={"reduction"})
        class MeanSquaredError(Module):
            def __init__(self, weight: float = 1.0, reduction: str = "mean") -> None:
                super().__init__()


        assert criterions.keys() == ["CrossEntropyLoss", "mse"]
        assert criterions.signature("mse") == {"weight": "float"}
        ```
    """

    def __init__(self) -> None:
        self._classes: dict[str, type[T]] = {}

    @overload
    def register(
        self,
        target: type[C],
        /,
        excluded_args: Iterable[int] | None = None,
        excluded_kwargs: Iterable[str] | None = None,
        *,
        name: str | None = None,
    ) -> type[C]: ...

    @overload
    def register(
        self,
        target: str | None = None,
        /,
        excluded_args: Iterable[int] | None = None,
        excluded_kwargs: Iterable[str] | None = None,
        *,
        name: str | None = None,
    ) -> Callable[[type[C]], type[C]]: ...

    def register(
        self,
        target: type[C] | str | None = None,
        /,
        excluded_args: Iterable[int] | None = None,
        excluded_kwargs: Iterable[str] | None = None,
        *,
        name: str | None = None,
    ) -> type[C] | Callable[[type[C]], type[C]]:
        """Register a class, as `torchsystem.registry.register` does, and keep it under its name.

        Args:
            target: The class, or the name under which it is kept and its objects are known.
            excluded_args: The positions of parameters that do not count, from 0, without `self`.
            excluded_kwargs: The names of parameters that do not count.
            name: The name, where the target is the class, or nothing.

        Returns:
            The class, or a decorator for it.

        Raises:
            NameTaken: Another class has this name here, or the class has another name already.
            InvalidRegistration: It is no class, its objects have no place for a record, or the name is no string.
            InvalidExclusion: There is no such parameter.
        """
        if isinstance(target, str | None):
            name = one_name(target, name)
            return lambda cls: self.register(cls, excluded_args, excluded_kwargs, name=name)
        name = name_of(target, name)
        holder = self._classes.get(name)
        if holder is not None and holder is not target:
            message = (
                f"{name!r} is {holder.__module__}.{holder.__qualname__} here, so {target.__module__}."
                f"{target.__qualname__} needs another name. Write `@register('another_name')` above it."
            )
            raise NameTaken(message)
        register(target, excluded_args, excluded_kwargs, name=name)
        self._classes[name] = cast("type[T]", target)
        return target

    def get(self, name: str) -> type[T] | None:
        """Give the class registered under a name, `None` if there is none."""
        return self._classes.get(name)

    def keys(self) -> list[str]:
        """Give the names in the order in which they were registered."""
        return list(self._classes)

    def signature(self, name: str) -> dict[str, str]:
        """Give the parameters of a class and their annotations, as its author wrote them.

        Args:
            name: The name of the class.

        Returns:
            Each parameter with its annotation, `"Any"` where there is none; those that do not count are left out.

        Raises:
            UnknownName: No class has this name here.
        """
        registration = self._registration(name)
        written = written_annotations(registration.cls, registration.signature)
        return {parameter: words for parameter, words in written.items() if parameter not in registration.excluded}

    def build(self, metadata: Mapping[str, Any], /, **given: object) -> T:
        """Build an object from its metadata, as `getmetadata` gave them, also by way of a JSON file or a request.

        Metadata may come from anywhere: nothing is imported for them, and nothing is called that is not registered
        here or taught to `canonical`, or else a dataclass, model or enum beside a registered class. Functions and
        classes by name are those of `torch.nn`, `torch.optim` and the modules of the registered classes.

        Args:
            metadata: `{"name": ..., "arguments": ...}`, and the `"hash"` if the object has to have it. All classes
                named there, also of nested parts, are registered here.
            given: Arguments given as they are: those that do not count, and those to which there is no way back.

        Returns:
            A new object of the class with this name.

        Raises:
            UnknownName: A class is not registered here.
            CannotBuild: An argument is missing, not known or cannot be made, or the hash is another.

        Examples:
            ```python
            from torch.nn import Linear, Module, ReLU, Sequential

            from torchsystem.registry import Registry, gethash, getmetadata

            modules = Registry[Module]()
            for module in (Linear, ReLU, Sequential):
                modules.register(module)

            net = Sequential(Linear(64, 32), ReLU(), Linear(32, 10))
            again = modules.build(getmetadata(net))
            assert gethash(again) == gethash(net)
            ```
        """
        homes = {cls.__module__ for cls in self._classes.values()}
        return cast("T", Builder(self._registration, homes).build(metadata, given))

    def _registration(self, name: str) -> Registration:
        cls = self._classes.get(name)
        registration = None if cls is None else registration_of(cls)
        if registration is None:
            near = get_close_matches(name, self._classes) or self._classes
            there = ", ".join(map(repr, near)) or "nothing yet"
            message = f"no class is registered here as {name!r}. There is: {there}."
            raise UnknownName(message)
        return registration
