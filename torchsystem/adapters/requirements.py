"""Optional packages: imported when an adapter is, and named with the extra that brings them when they are missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from torchsystem.errors import MissingExtra


def require(package: str, *, extra: str) -> ModuleType:
    """Import an optional package, or say what to install.

    Args:
        package: The package, or a module of it: `"matplotlib"`, `"matplotlib.pyplot"`.
        extra: The extra of torchsystem that brings it.

    Returns:
        The module of that name.

    Raises:
        MissingExtra: It is not installed. What goes wrong inside an installed package is raised as itself.

    Examples:
        >>> from torchsystem.adapters.requirements import require
        >>> require("json", extra="plots").dumps([1])
        '[1]'
        >>> require("no_such_package", extra="plots")
        Traceback (most recent call last):
        torchsystem.errors.MissingExtra: no_such_package is not installed. Write: pip install 'torchsystem[plots]'
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{package}.".startswith(f"{error.name}."):
            raise  # it is there, and something that it needs is not
        message = f"{error.name} is not installed. Write: pip install 'torchsystem[{extra}]'"
        raise MissingExtra(message, name=error.name) from error
