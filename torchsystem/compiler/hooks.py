"""Which hooks are part of compiled code, so that one registered later is not left out in silence."""

# ruff: noqa: PLC0415 - torch is imported where it is used, so that importing the compiler stays quick

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Module

KINDS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

logger = logging.getLogger("torchsystem.compiler")


class Hooks:
    """Watch the hooks of a module and of the modules inside it.

    Dynamo traces the hooks that it finds and does not look for others later; having it guard on all of them would
    cost every call. But torch numbers all hooks from one counter: where that stands still, no hook was registered.
    """

    def __init__(self, module: Module) -> None:
        from torch.utils.hooks import RemovableHandle

        self._handles = RemovableHandle
        self._latest = RemovableHandle.next_id
        self._module = module
        self._known = self._found()

    def refresh(self) -> None:
        """Have everything compiled anew if a hook has come or gone."""
        if self._handles.next_id == self._latest and not self._known:
            return
        self._latest = self._handles.next_id
        if (found := self._found()) != self._known:
            import torch

            logger.info("the hooks of %s have changed, so it is compiled anew", type(self._module).__qualname__)
            torch.compiler.reset()  # reaches also what dynamo made of the code that follows a graph break
            self._known = found

    def _found(self) -> list[int]:
        from torch.nn.modules import module as torch_module

        everywhere = [getattr(torch_module, f"_global{kind}") for kind in KINDS]
        own = [module.__dict__[kind] for module in self._module.modules() for kind in KINDS]
        return [number for hooks in (*everywhere, *own) if hooks for number in hooks]
