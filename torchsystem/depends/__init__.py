"""What a function needs: declared with ``Depends``, bound late through a provider, made for each call.

Examples:
    >>> from torchsystem.depends import Depends, Provider, inject
    >>> def device() -> str: ...
    >>> provider = Provider()
    >>> @inject(provider)
    ... def train(model: str, device: str = Depends(device)) -> str:
    ...     return f"{model} on {device}"
    >>> provider.dependency_overrides[device] = lambda: "cuda"
    >>> train("mlp")
    'mlp on cuda'
"""

from torchsystem.depends.host import ProviderHost
from torchsystem.depends.marker import Depends
from torchsystem.depends.provider import Provider, inject

__all__ = ["Depends", "Provider", "ProviderHost", "inject"]
