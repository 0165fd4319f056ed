"""What type checkers know of registering: a class stays the class that it is, and the accessors say what they give."""

from __future__ import annotations

from typing import Any, assert_type

from torch import nn
from torch.optim import SGD

from torchsystem.registry import Registry, getarguments, gethash, getmetadata, getname, register, sethash, setname


@register
class MLP(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width = width


@register("cnn")
class CNN(nn.Module): ...


@register(excluded_args=[0], excluded_kwargs={"seed"})
class Sampler:
    def __init__(self, source: object, seed: int = 0) -> None: ...


# A registered class is made, subclassed and used as before, however it was registered.
assert_type(MLP(width=4).width, int)
assert_type(MLP(), MLP)
assert_type(CNN(), CNN)
assert_type(Sampler([], seed=1), Sampler)
assert_type(register(nn.CrossEntropyLoss)(), nn.CrossEntropyLoss)
assert_type(register(SGD, excluded_args=[0]), type[SGD])
MLP(width="4")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

assert_type(getname(MLP()), str)
assert_type(gethash(MLP()), str)
assert_type(getarguments(MLP()), dict[str, Any])
assert_type(getmetadata(MLP())["hash"], str)
setname(MLP(), "mlp")
setname(MLP())
sethash(MLP(), "abc")
sethash(MLP())

# A registry knows of what kind its classes are.
models = Registry[nn.Module]()


@models.register
class Head(nn.Module): ...


models.register(MLP)
assert_type(Head(), Head)
assert_type(models.get("MLP"), type[nn.Module] | None)
assert_type(models.signature("MLP"), dict[str, str])
