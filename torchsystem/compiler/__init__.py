"""How an aggregate is built: in steps whose needs are injected, compiled in place where that pays."""

from torchsystem.compiler.inplace import compile  # noqa: A004 - named as torch names it
from torchsystem.compiler.pipeline import Compiler
from torchsystem.depends import Depends

__all__ = ["Compiler", "Depends", "compile"]
