"""What is compiled of one aggregate: its modules, and on demand its ``fit`` and the steps of its optimizers."""

from __future__ import annotations

import functools
import logging
from collections import defaultdict
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any

from torchsystem.compiler.hooks import Hooks
from torchsystem.compiler.optimizers import optimizers, separate_step, traceable_zero_grad
from torchsystem.compiler.regions import Function, Region, Settings, graphs, stance
from torchsystem.depends.kinds import Kind, kind
from torchsystem.errors import NothingCaptured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.nn import Module

USES = ("fit", "evaluate")
CALL = "_compiled_call_impl"  # where a module looks first when it is called, and where `Module.compile` puts its own
CONTAINERS = "torch.nn.modules.container"
MISSING = object()

logger = logging.getLogger("torchsystem.compiler")


@dataclass(frozen=True, slots=True)
class Replacement:
    """One entry of an instance's dictionary that stands in for what its class has."""

    owner: Any
    name: str
    value: object
    before: object

    def undo(self) -> None:
        """Put back what was there, unless somebody has put something else there since."""
        state = vars(self.owner)
        if state.get(self.name) is not self.value:
            return
        if self.before is MISSING:
            del state[self.name]
        else:
            state[self.name] = self.before


class Compilation:
    """Put regions in the way of whatever an aggregate calls, and see to it that something is captured.

    It is kept in the aggregate's dictionary as ``_compilation``. What else it puts there is listed in ``_wiring``,
    which an aggregate leaves out of its copies.

    Args:
        aggregate: What to compile.
        settings: How to compile it.
    """

    def __init__(self, aggregate: Module, settings: Settings) -> None:
        self._aggregate = aggregate
        self._name = type(aggregate).__qualname__
        self._settings = settings
        self._hooks = Hooks(aggregate)
        self.regions: list[Region] = []
        self._replacements: list[Replacement] = []
        for compilation in self._inside():  # what is compiled around it has its modules now, and is verified itself
            compilation.settle()
        vars(aggregate).update(_compilation=self, _wiring=set())
        if settings.regional:
            self._compile_blocks()
        else:
            self._compile_modules()
        if settings.step:
            self._compile_step()
        uses = [use for use in USES if _runs_when_called(getattr(aggregate, use, None))] or [CALL]
        self._verifications = [self._replace(aggregate, use, self._verified(use)) for use in uses]

    @staticmethod
    def undo(aggregate: Module) -> None:
        """Make an aggregate eager again, if it was compiled."""
        compilation = vars(aggregate).pop("_compilation", None)
        if compilation is not None and compilation.is_of(aggregate):
            compilation.restore()

    def is_of(self, aggregate: Module) -> bool:
        """Tell whether this is the very object that was compiled, and no shallow copy of it."""
        return self._aggregate is aggregate

    def restore(self) -> None:
        """Take out what was put in, the last first."""
        for replacement in reversed(self._replacements):
            replacement.undo()
        vars(self._aggregate).pop("_wiring", None)

    def settle(self) -> None:
        """Look no more whether something is captured."""
        for verification in self._verifications:
            verification.undo()

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        """Be nothing in a copy: compiled code belongs to the object that it was compiled for."""
        return _left_behind, (self._name,)

    def _compile_modules(self) -> None:
        for name, module in self._aggregate.named_modules():
            if next(module.parameters(), None) is not None:
                self._replace(module, CALL, self._region(name or self._name, MethodType(_call, module)))

    def _compile_blocks(self) -> None:
        for cls, blocks in repeated_blocks(self._aggregate).items():
            region = self._region(cls.__qualname__, _call)
            for block in blocks:
                self._replace(block, CALL, functools.partial(region, block))

    def _compile_step(self) -> None:
        aggregate: Any = self._aggregate
        if hasattr(aggregate, "fit"):
            region = self._region(f"{self._name}.fit", aggregate.fit, isolated=True)
            self._replace(aggregate, "fit", _passing_for(aggregate.fit, region))
        for name, optimizer in optimizers(aggregate):
            region = self._region(f"{name}.step", optimizer.step, isolated=True)
            self._replace(optimizer, "step", separate_step(optimizer, region))
            self._replace(optimizer, "zero_grad", traceable_zero_grad(optimizer))

    def _inside(self) -> Iterator[Compilation]:
        """Find what is compiled of the aggregate and of those inside it."""
        for module in self._aggregate.modules():
            compilation = vars(module).get("_compilation")
            if isinstance(compilation, Compilation):
                yield compilation

    def _has_captured(self) -> bool:
        return any(region.captured for compilation in self._inside() for region in compilation.regions)

    def _region(self, name: str, function: Function, *, isolated: bool = False) -> Region:
        region = Region(name, function, self._hooks, self._settings, isolated=isolated)
        self.regions.append(region)
        return region

    def _replace(self, owner: Any, name: str, value: object) -> Replacement:
        replacement = Replacement(owner, name, value, vars(owner).get(name, MISSING))
        vars(owner)[name] = value
        self._replacements.append(replacement)
        if owner is self._aggregate:
            vars(owner)["_wiring"].add(name)
        return replacement

    def _verified(self, use: str) -> Function:
        """Watch the first use: a graph is captured in it, or everything runs as if nothing had been compiled."""
        from torch.compiler import is_dynamo_compiling, is_exporting  # noqa: PLC0415 - so that importing the compiler stays quick

        function: Function = getattr(self._aggregate, use) or MethodType(_call, self._aggregate)

        @functools.wraps(function)
        def first(*args: Any, **kwargs: Any) -> Any:
            if is_dynamo_compiling() or is_exporting():
                return function(*args, **kwargs)
            before = graphs()
            result = function(*args, **kwargs)
            if self._has_captured():
                self.settle()
            elif graphs() == before and stance() == "default":
                raise NothingCaptured(self._escape(use))
            return result

        return first

    def _escape(self, use: str) -> str:
        name = f"{self._name}.{use}" if use in USES else self._name
        entered = [region.name for region in self.regions if region.captured is False]
        if entered:
            return (
                f"{name} ran, and torch.compile captured nothing of {', '.join(entered)}. "
                f"Run it with TORCH_LOGS=graph_breaks to see why, or do without compile({self._name})."
            )
        modules = [region.name for region in self.regions]
        return (
            f"{name} ran, and called none of what is compiled ({', '.join(modules)}). "
            f"Call modules, `self.nn(x)`, and not their `forward`, or do without compile({self._name})."
        )


def repeated_blocks(root: Module) -> dict[type, list[Module]]:
    """Find the modules inside that are made of others, containers of torch's own apart, and stand there repeatedly."""
    blocks: dict[type, list[Module]] = defaultdict(list)
    for module in root.modules():
        if _is_block(module):
            blocks[type(module)].append(module)
    return {cls: modules for cls, modules in blocks.items() if len(modules) > 1}


def _is_block(module: Module) -> bool:
    made_of_others = next(module.children(), None) is not None
    return made_of_others and type(module).__module__ != CONTAINERS and next(module.parameters(), None) is not None


def _runs_when_called(use: Any) -> bool:
    """Tell whether a call is a use: that of a generator, or of an async function, runs nothing of it yet."""
    return use is not None and kind(use) is Kind.PLAIN


def _call(module: Module, *args: Any, **kwargs: Any) -> Any:
    return module._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call] # noqa: SLF001 - as `Module.compile`


def _passing_for(method: Function, region: Region) -> Function:
    @functools.wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        return region(*args, **kwargs)

    return run


def _left_behind(name: str) -> None:
    logger.info("a copy of a compiled %s is eager until it is compiled itself", name)
