"""What everything with a provider has in common: services, consumers, subscribers and compilers."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from torchsystem.depends.graph import Factory
from torchsystem.depends.marker import Scope
from torchsystem.depends.overrides import Override, Overrides
from torchsystem.depends.provider import Provider


class ProviderHost:
    """Hand a provider through, so that a composition root binds things where they are used.

    Args:
        provider: What binds the dependencies; one of its own if none is given. Several hosts may share one.

    Examples:
        >>> from torchsystem.services import Service
        >>> from torchsystem import Depends
        >>> def device() -> str: ...
        >>> service = Service("training")
        >>> @service.handler
        ... def where(device: str = Depends(device)) -> str:
        ...     return device
        >>> with service.override(device, lambda: "cuda"):
        ...     service.handle("where")
        'cuda'
    """

    def __init__(self, *, provider: Provider | None = None) -> None:
        self.provider = Provider() if provider is None else provider

    @property
    def dependency_overrides(self) -> Overrides:
        """The provider's overrides: a dictionary to be written to, or replaced as a whole."""
        return self.provider.dependency_overrides

    @dependency_overrides.setter
    def dependency_overrides(self, overrides: Mapping[Factory, Factory]) -> None:
        self.provider.dependency_overrides = overrides

    def override(self, dependency: Factory, implementation: Factory, scope: Scope | None = None) -> Override:
        """Bind ``implementation`` in the place of ``dependency``: see `Provider.override`."""
        return self.provider.override(dependency, implementation, scope)

    def close(self) -> None:
        """Close what the provider keeps: see `Provider.close`."""
        self.provider.close()

    def __enter__(self) -> Self:
        self.provider.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.provider.__exit__(kind, error, traceback)
