"""A region: a function that is compiled where it is called from outside of compiled code."""

# ruff: noqa: PLC0415 - torch is imported where it is used, so that importing the compiler stays quick

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

from torchsystem.compiler.quiet import quiet

if TYPE_CHECKING:
    from torchsystem.compiler.hooks import Hooks

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """How to compile an aggregate.

    Attributes:
        options: What ``torch.compile`` takes.
        step: Whether to compile ``fit``, and the steps of the optimizers, too.
        regional: Whether to compile repeated blocks alone, once for all of a class.
        cache: Where to keep what compiling makes, and to look for it.
    """

    options: dict[str, Any]
    step: bool = False
    regional: bool = False
    cache: str | os.PathLike[str] | None = None

    def use_cache(self) -> None:
        """Tell torch where it is; torch looks when it compiles, and knows one place for a process."""
        if self.cache is not None:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.fspath(self.cache)


class Region:
    """Do what a function does, compiled; called by code that is being compiled, be a part of that.

    So regions may lie inside one another, and one costs nothing where another is around it: what is compiled as a
    whole is what was called first.

    Args:
        name: What it is, for whoever reads of it in an error.
        function: What to compile.
        hooks: The hooks that may be traced into it.
        settings: How to compile.
        isolated: Whether what is compiled is for this region alone, and counted for it alone. A function in which
            graphs break, as they do at ``backward``, leaves code to compile that others have too: that of an optimizer.

    Attributes:
        captured: Whether the first call captured a graph; None before that.
    """

    def __init__(
        self, name: str, function: Function, hooks: Hooks, settings: Settings, *, isolated: bool = False
    ) -> None:
        from torch.compiler import is_dynamo_compiling, is_exporting

        self.name = name
        self.captured: bool | None = None
        self._function = function
        self._hooks = hooks
        self._settings = settings
        self._isolated = isolated
        self._is_traced = is_dynamo_compiling  # `is_compiling` is true in all threads while one of them compiles
        self._is_exported = is_exporting
        self._run = self._first

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run compiled, or be traced."""
        if self._is_traced() or self._is_exported():
            return self._function(*args, **kwargs)
        self._hooks.refresh()
        return self._run(*args, **kwargs)

    def _first(self, *args: Any, **kwargs: Any) -> Any:
        from torch._dynamo.utils import counters

        if stance() == "force_eager":
            return self._function(*args, **kwargs)
        self._settings.use_cache()
        before, breaks = graphs(), counters["graph_break"].total()
        run = self._compiled((_bare_frame if self._isolated else _frame)(self._function))
        with quiet:
            result = run(*args, **kwargs)
        self.captured = graphs() > before
        broken = counters["graph_break"].total() > breaks
        self._run = self._compiled(_bare_frame(self._function)) if broken and not self._isolated else run
        return result

    def _compiled(self, frame: Function) -> Function:
        from torch import compile as torch_compile

        options: dict[str, Any] = {"isolate_recompiles": self._isolated, **self._settings.options}
        compiled: Function = torch_compile(_with_own_code(frame), **options)
        return compiled


def graphs() -> int:
    """Count the graphs that dynamo has captured in this process."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def stance() -> str:
    """Tell how the user has told torch to treat compiled code, in one of the ways that it has for that."""
    from torch._dynamo import config, eval_frame

    return "force_eager" if config.disable else eval_frame._stance.stance  # noqa: SLF001 - torch tells nobody else


def _frame(function: Function) -> Function:
    """Put a frame around a function that lets the integers of modules, such as an epoch, change without a new graph.

    It is needed for torch's own functions besides, as dynamo skips their frames: that of a ``Sequential``, say.
    """
    from torch._dynamo import patch_dynamo_config

    def frame(*args: Any, **kwargs: Any) -> Any:
        with patch_dynamo_config(allow_unspec_int_on_nn_module=True):
            return function(*args, **kwargs)

    return frame


def _bare_frame(function: Function) -> Function:
    """Put a frame around a function that costs little where it runs, as it does if the function breaks a graph."""

    def frame(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return frame


def _with_own_code(frame: Any) -> Function:
    """Copy a frame with its code: dynamo keeps what it compiled by code, and counts by it."""
    return FunctionType(frame.__code__.replace(), frame.__globals__, frame.__name__, None, frame.__closure__)
