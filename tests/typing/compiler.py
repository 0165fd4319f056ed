"""What type checkers know of compiling: a pipeline gives its aggregate, `compile` gives back what it got."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_type

from torch import nn

from torchsystem import Aggregate, Compiler, Depends, Provider
from torchsystem.compiler import compile as compiled


class Classifier(Aggregate): ...


def device() -> str: ...


compiler = Compiler[Classifier](provider=Provider())


# A step keeps its type.
@compiler.step
def build(width: int) -> Classifier: ...


@compiler.step
def move(classifier: Classifier, device: str = Depends(device)) -> Classifier: ...


@compiler.step(before="move")
def check(classifier: Classifier) -> Classifier: ...


assert_type(build(8), Classifier)
assert_type(move(Classifier()), Classifier)
assert_type(check(Classifier()), Classifier)

# The pipeline gives what it is a compiler of.
assert_type(compiler.compile(8), Classifier)
steps: Sequence[Any] = compiler.steps
compiler.dependency_overrides[device] = lambda: "cuda"

# Compiling in place is of no consequence for the type.
assert_type(compiled(Classifier()), Classifier)
assert_type(compiled(Classifier(), mode="reduce-overhead"), Classifier)
assert_type(compiled(nn.Linear(1, 1)), nn.Linear)
