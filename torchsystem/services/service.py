"""Services: handlers of actions, called by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from torchsystem.depends import ProviderHost, inject
from torchsystem.errors import DuplicateHandler, InvalidHandler, UnknownAction
from torchsystem.services.names import Named, kebab, near
from torchsystem.services.signatures import place

if TYPE_CHECKING:
    from torchsystem.depends import Provider
    from torchsystem.services.names import NameGenerator

F = TypeVar("F", bound=Callable[..., object])


class Service(Named, ProviderHost):
    """A stateless service: functions that say what they need, and are called by hand or by name.

    Args:
        name: What to call it in messages; it needs none.
        provider: Where its handlers' dependencies are bound; one of its own by default.
        generator: How the name of a function is spelled as an action; kebab case by default.

    Examples:
        >>> from torchsystem.services import Depends, Service
        >>> def device() -> str: ...
        >>> service = Service("training")
        >>> @service.handler
        ... def train_model(model: str, device: str = Depends(device)) -> str:
        ...     return f"{model} on {device}"
        >>> service.dependency_overrides[device] = lambda: "cuda"
        >>> service.handle("train-model", "mlp")
        'mlp on cuda'
        >>> train_model("mlp", device="cpu")
        'mlp on cpu'
    """

    def __init__(
        self, name: str | None = None, *, provider: Provider | None = None, generator: NameGenerator = kebab
    ) -> None:
        super().__init__(provider=provider)
        self.name = name
        self.generator = generator
        self._handlers: dict[str, Callable[..., Any]] = {}

    @property
    def handlers(self) -> Mapping[str, Callable[..., Any]]:
        """The handlers by the name of their action, as registered; to be read only."""
        return MappingProxyType(self._handlers)

    @overload
    def handler(self, function: F, /) -> F: ...
    @overload
    def handler(self, /, *, replace: bool = ...) -> Callable[[F], F]: ...
    def handler(
        self, function: Callable[..., object] | None = None, /, *, replace: bool = False
    ) -> Callable[..., object]:
        """Make a function a handler of this service, under its own name.

        Args:
            function: The handler. Its dependencies are injected; the rest is given by the caller.
            replace: Whether it may take the place of another handler of its name.

        Returns:
            The function, injected: it works just as well when it is called by hand.

        Raises:
            DuplicateHandler: The name is taken by a handler that is written elsewhere.
            InvalidHandler: The function has no name.
        """

        def register(function: Callable[..., object]) -> Callable[..., object]:
            action = self._action(function)
            taken = self._handlers.get(action)
            # The same lines again, as when a module is reloaded or a cell run twice, are the same handler.
            if taken is not None and not replace and place(taken) != place(function):
                message = (
                    f"{self!r} has a handler for {action!r} already: {place(taken)}. Name "
                    f"{place(function)} differently, or take its place by @service.handler(replace=True)."
                )
                raise DuplicateHandler(message)
            injected = inject(self.provider)(function)
            self._handlers[action] = injected
            return injected

        return register if function is None else register(function)

    def handle(self, action: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a handler by the name of its action.

        Args:
            action: The name, as generated (`"train-model"`) or as written in Python (`"train_model"`).
            args: What the handler is called with.
            kwargs: What the handler is called with, by name.

        Returns:
            What the handler returns.

        Raises:
            UnknownAction: No handler has this name.
        """
        handler = self._handlers.get(action)
        if handler is None:
            handler = self._handlers.get(self.generator(action))
        if handler is None:
            message = f"{self!r} has no handler for {action!r}. {near(action, self._handlers)}"
            raise UnknownAction(message)
        return handler(*args, **kwargs)

    def _action(self, function: object) -> str:
        """Return the name under which a function is registered."""
        name = getattr(function, "__name__", "")
        if not callable(function) or not name.isidentifier():
            message = f"{function!r} has no name to be called by. Write it as a function: def train(model): ..."
            raise InvalidHandler(message)
        return self.generator(name)
