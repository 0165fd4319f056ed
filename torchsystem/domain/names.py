"""What the parameters and the state of an aggregate are called without the wrappers that torch puts around modules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch.nn import DataParallel
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from torch.nn import Module

# The names under which torch keeps a module that it has wrapped; nobody gives them to modules of one's own.
WRAPPED = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def unwrapped(name: str) -> str:
    """Leave out of a name what ``torch.compile`` and other wrappers have put into it."""
    return WRAPPED.sub("", name)


class Names:
    """Name what is inside a module.

    ``DistributedDataParallel`` keeps what it wraps as ``module``, which may be anybody's name, so the type decides.
    """

    def __init__(self, root: Module) -> None:
        wrappers = (DistributedDataParallel, DataParallel)
        paths = [path for path, module in root.named_modules() if isinstance(module, wrappers)]
        self._wrapped = [f"{path}.module." for path in reversed(paths)]
        parameters = list(root.named_parameters(remove_duplicate=False))
        self._of_parameters = {id(parameter): self.of(name) for name, parameter in reversed(parameters)}

    def of(self, name: str) -> str:
        """Name an entry of the ``state_dict``."""
        for prefix in self._wrapped:  # the inner wrappers first, while the names of the outer ones still fit
            if name.startswith(prefix):
                name = prefix.removesuffix("module.") + name.removeprefix(prefix)
        return unwrapped(name)

    def of_parameter(self, parameter: object) -> str | None:
        """Name a parameter, by the first of its names; None if it is not inside."""
        return self._of_parameters.get(id(parameter))
