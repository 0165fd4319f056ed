"""Handlers of steps: found by action, also in another process."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, TypeAlias

from torchsystem.depends.kinds import Kind, kind
from torchsystem.errors import AmbiguousAction, InvalidPlan, UnknownAction, UnreachableHandler, UnusableHandler
from torchsystem.plans.options import is_unicode
from torchsystem.plans.versions import version_of
from torchsystem.services import Service
from torchsystem.services.names import near
from torchsystem.services.signatures import place

Root: TypeAlias = Callable[[], Iterable[Service]]


class Actor:
    """The handler of an action, which is sent to other processes as the way to find it there.

    Args:
        action: The action.
        service: Whose handler it is.
        root: What puts the services together, in any process; None if they stand in their modules.
        versions: Versions that are not to be told from the code, by action.
    """

    def __init__(self, action: str, service: Service, root: Root | None, versions: Mapping[str, str]) -> None:
        self.action = action
        self.service = service
        self.root = root
        self.handler = service.handlers[action]
        self.signature = _signature(self.handler)
        self.code = version_of(self.handler)
        self.version = versions.get(action, self.code)

    def check(self, arguments: dict[str, Any]) -> None:
        """Refuse arguments that the handler does not take.

        Raises:
            UnusableHandler: There is one too many, or one too few.
        """
        try:
            self.signature.bind(**arguments)
        except TypeError as error:
            message = (
                f"{self.action!r} cannot be called so: {error}. It is {place(self.handler)}, "
                f"and takes {self.signature}."
            )
            raise UnusableHandler(message) from None

    def find(self) -> Actor:
        """Return itself: here it is."""
        return self

    def __reduce__(self) -> tuple[object, ...]:
        """Be found again by the root, or by where the service stands."""
        if self.root is not None:
            return ByRoot, (self.root, self.action, self.code)
        module, name = self._address()
        return ByName, (module, name, self.action, self.code, _wiring(self.service))

    def _address(self) -> tuple[str, str]:
        """Return the module in which the service has a name, and the name.

        Raises:
            UnreachableHandler: There is none.
        """
        module = inspect.unwrap(self.handler).__module__
        for name, value in vars(sys.modules[module]).items() if module in sys.modules else ():
            if value is self.service:
                return module, name
        message = (
            f"{place(self.handler)} cannot be sent to another process: its service has no name in module {module}. "
            f"Define it at the top of the module, or write Plan(..., services=f) with a function f of the module that "
            f"puts the services together."
        )
        raise UnreachableHandler(message)


class Handlers:
    """The handlers of a plan, by action.

    Args:
        services: The services, or a function that puts them together.
        versions: The versions of handlers, by action, where they are not to be told from the code.

    Raises:
        InvalidPlan: Something is no service.
        AmbiguousAction: Two services answer to one action.
    """

    def __init__(self, services: Iterable[Service] | Root, versions: Mapping[str, str]) -> None:
        self._root = services if callable(services) else None
        given: Any = services() if callable(services) else services
        if isinstance(given, Service):
            message = f"services={given!r} is one service. Write a list of services: services=[...]."
            raise InvalidPlan(message)
        if not isinstance(given, Iterable):
            message = f"services={services!r}: {given!r} is no list of services. Write services=[...], or a function."
            raise InvalidPlan(message)
        self._services: list[Service] = list(dict.fromkeys(given))
        if not isinstance(versions, Mapping):
            message = f"versions={versions!r}: write a dict of versions by action, as {{'train-fold': '2'}}."
            raise InvalidPlan(message)
        self._versions = dict(versions)
        self._actors: dict[str, Actor] = {}
        for service in self._services:
            if not isinstance(service, Service):
                message = f"services=...: {service!r} is no service. Write a list of Service objects, or a function."
                raise InvalidPlan(message)
        for action, version in self._versions.items():
            if not isinstance(version, str) or not is_unicode(version):
                message = f"versions={{{action!r}: {version!r}}}: a version is a str. Write {str(version)!r}."
                raise InvalidPlan(message)
        self._check()

    def find(self, action: str) -> Actor:
        """Return the handler of an action, spelled as generated or as in Python.

        Raises:
            UnknownAction: There is none.
            AmbiguousAction: There are two.
            UnusableHandler: Calling it would not run it.
            InvalidPlan: It is no name.
        """
        if not isinstance(action, str) or not is_unicode(action):
            message = f"plan.add({action!r}): write the name of an action, as 'train-fold'."
            raise InvalidPlan(message)
        known = self._actors.get(action)
        if known is not None and known.service.handlers.get(known.action) is known.handler:
            return known
        owners = [service for service in self._services if _spelled(action, service) in service.handlers]
        if not owners:
            actions = {action for service in self._services for action in service.handlers}
            message = f"no service of the plan answers to {action!r}. {near(action, actions)}"
            raise UnknownAction(message)
        self._check()
        service = owners[0]
        self._actors[action] = actor = Actor(_spelled(action, service), service, self._root, self._versions)
        sort = kind(actor.handler)
        if sort is not Kind.PLAIN:
            article = "an" if sort.is_async else "a"
            message = (
                f"{place(actor.handler)} is {article} {sort.value} function: calling it would run nothing of it. "
                f"Write a plain function as a step."
            )
            raise UnusableHandler(message)
        return actor

    def check_versions(self) -> None:
        """Refuse versions of what there is not.

        Raises:
            InvalidPlan: A version is given for an action that nobody answers to.
        """
        known = {action for service in self._services for action in service.handlers}
        for action in self._versions.keys() - known:
            message = f"versions={{{action!r}: ...}}: no service of the plan answers to it. {near(action, known)}"
            raise InvalidPlan(message)

    def _check(self) -> None:
        taken: dict[str, Callable[..., Any]] = {}
        for service in self._services:
            for action, handler in service.handlers.items():
                if action in taken:
                    message = (
                        f"two services answer to {action!r}: {place(taken[action])} and {place(handler)}. "
                        f"Name one of them differently, or give the plan only one of the services."
                    )
                    raise AmbiguousAction(message)
                taken[action] = handler


def _signature(handler: Callable[..., Any]) -> inspect.Signature:
    """Return what a handler takes.

    Raises:
        UnusableHandler: Nobody knows.
    """
    try:
        return inspect.signature(handler)
    except ValueError:
        message = f"nobody can tell what {place(handler)} takes. Write a function that calls it as a step."
        raise UnusableHandler(message) from None


def _spelled(action: str, service: Service) -> str:
    return action if action in service.handlers else service.generator(action)


def _wiring(service: Service) -> list[tuple[str, str]]:
    """Say in words what a service is bound to, to be compared in another process."""
    return sorted((_word(key), _word(value)) for key, value in service.dependency_overrides.items())


def _word(thing: object) -> str:
    name = getattr(thing, "__qualname__", None)
    return type(thing).__qualname__ if name is None else f"{getattr(thing, '__module__', '')}.{name}"


@dataclass(frozen=True, slots=True)
class ByName:
    """A handler by the name of its service, to be found where it is wanted, and not before: there it can be told of.

    Attributes:
        module: Where the service stands.
        name: What it is called there.
        action: The action.
        code: The version of the code.
        wiring: What the service is bound to.
    """

    module: str
    name: str
    action: str
    code: str
    wiring: list[tuple[str, str]]

    def find(self) -> Actor:
        """Find it, and see that it is the same one, wired the same.

        Raises:
            UnreachableHandler: It is not.
        """
        service = getattr(import_module(self.module), self.name, None)
        where = f"{self.module}.{self.name}"
        if not isinstance(service, Service) or self.action not in service.handlers:
            message = (
                f"this process has no {self.action!r} in {where}. Define services where all processes can import them, "
                f"or write Plan(..., services=f) with a function f that puts them together."
            )
            raise UnreachableHandler(message)
        here = {tuple(map(_program, pair)) for pair in _wiring(service)}
        there = {tuple(map(_program, pair)) for pair in self.wiring}
        if here != there:
            differing = ", ".join(sorted({pair[0] for pair in here ^ there}))
            message = (
                f"{where} is bound differently in this process than where the plan is run: {differing}. "
                f"Write Plan(..., services=f) with a function f that binds what is needed and returns the services."
            )
            raise UnreachableHandler(message)
        return _same(Actor(self.action, service, None, {}), self.code)


@dataclass(frozen=True, slots=True)
class ByRoot:
    """A handler among the services that a function puts together, once in each process.

    Attributes:
        root: The function.
        action: The action.
        code: The version of the code.
    """

    root: Root
    action: str
    code: str

    def find(self) -> Actor:
        """Find it, and see that it is the same one."""
        return _same(_put_together(self.root).find(self.action), self.code)


def _program(word: str) -> str:
    """Call the program by one name: in a process that was started for it, it is `__mp_main__`."""
    return f"__main__{word.removeprefix('__mp_main__')}" if word.startswith("__mp_main__") else word


@lru_cache(maxsize=16)
def _put_together(root: Root) -> Handlers:
    return Handlers(root, {})


def _same(actor: Actor, code: str) -> Actor:
    """Refuse a handler that is not written as where the plan is run.

    Raises:
        UnreachableHandler: It is another.
    """
    if actor.code != code:
        message = (
            f"{place(actor.handler)} is written differently in this process than where the plan is run: one of both "
            f"has read an older file. Start the processes anew."
        )
        raise UnreachableHandler(message)
    return actor
