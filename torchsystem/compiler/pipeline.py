"""A pipeline that builds an aggregate: steps in order, each given what the one before it returned."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Generic, TypeAlias, TypeVar, cast, overload

from torchsystem.compiler.recognition import wrapped_aggregate
from torchsystem.depends import Provider, ProviderHost, inject
from torchsystem.depends.kinds import Kind, kind
from torchsystem.depends.mistakes import name_of, place_of
from torchsystem.errors import EmptyPipeline, InvalidStep, UnknownStep, WrappedAggregate

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
Wanted: TypeAlias = Callable[..., Any] | str

logger = logging.getLogger("torchsystem.compiler")


@dataclass(frozen=True, eq=False, slots=True)
class Step:
    """One function of a pipeline, as it was written and as it is called by hand."""

    function: Callable[..., Any]
    injected: Callable[..., Any]

    @property
    def name(self) -> str:
        """Name the step as it is asked for."""
        return getattr(self.function, "__name__", None) or name_of(self.function)

    def is_meant(self, wanted: Wanted) -> bool:
        """Tell whether the step is the wanted one, by its name or by itself."""
        return wanted == self.name if isinstance(wanted, str) else wanted in (self.function, self.injected)


class Compiler(ProviderHost, Generic[T]):
    """Build something, an aggregate as a rule, in steps whose needs are declared and injected.

    The first step gets the arguments of `compile`, and each of the others what the one before it returned: spread
    over its parameters if that is exactly a ``tuple``, and as it is otherwise, be it None, 0 or empty.

    Dependencies are made once in a run, and generators among them stay open until all the steps are done. How long
    each step took is logged, as ``torchsystem.compiler``.

    Args:
        provider: What binds the dependencies; one of its own if none is given.
        clock: What tells the time, in seconds.

    Examples:
        >>> from torch import nn
        >>> from torchsystem import Aggregate, Compiler, Depends
        >>> class Classifier(Aggregate):
        ...     def __init__(self, nn: nn.Module) -> None:
        ...         super().__init__()
        ...         self.nn = nn
        >>> def device() -> str: ...
        >>> compiler = Compiler[Classifier]()
        >>> @compiler.step
        ... def build(size: int) -> Classifier:
        ...     return Classifier(nn.Linear(size, 2))
        >>> @compiler.step
        ... def move(classifier: Classifier, device: str = Depends(device)) -> Classifier:
        ...     return classifier.to(device)
        >>> compiler.dependency_overrides[device] = lambda: "cpu"
        >>> compiler.compile(64).nn
        Linear(in_features=64, out_features=2, bias=True)
    """

    def __init__(self, *, provider: Provider | None = None, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(provider=provider)
        self._clock = clock
        self._steps: list[Step] = []

    @property
    def steps(self) -> tuple[Callable[..., Any], ...]:
        """List the steps, in order."""
        return tuple(step.injected for step in self._steps)

    @overload
    def step(self, function: F, /) -> F: ...
    @overload
    def step(self, /, *, before: Wanted | None = None, replace: Wanted | None = None) -> Callable[[F], F]: ...
    def step(
        self, function: F | None = None, /, *, before: Wanted | None = None, replace: Wanted | None = None
    ) -> F | Callable[[F], F]:
        """Add a step, at the end or where it is told.

        Args:
            function: The step. Without it, a decorator is returned.
            before: The step, or its name, to come before.
            replace: The step, or its name, to take the place of.

        Raises:
            InvalidStep: The function is async or a generator, or is to stand in two places.
            UnknownStep: There is no such step, or more than one.

        Examples:
            >>> from torchsystem.compiler import Compiler
            >>> compiler = Compiler[int]()
            >>> @compiler.step
            ... def double(number: int) -> int:
            ...     return 2 * number
            >>> @compiler.step(before="double")
            ... def increment(number: int) -> int:
            ...     return number + 1
            >>> compiler.compile(1)
            4
        """
        if before is not None and replace is not None:
            message = f"step(before={before!r}, replace={replace!r}): a step stands in one place. Give one of the two."
            raise InvalidStep(message)

        def add(function: F) -> F:
            step = self._made(function)
            if replace is not None:
                self._steps[self._index(replace)] = step
            else:
                self._steps.insert(len(self._steps) if before is None else self._index(before), step)
            return cast("F", step.injected)

        return add if function is None else add(function)

    def replace(self, step: Wanted, function: F) -> F:
        """Put a function in the place of a step, given by itself or by its name.

        Raises:
            InvalidStep: The function is async or a generator.
            UnknownStep: There is no such step, or more than one.
        """
        return self.step(replace=step)(function)

    def remove(self, step: Wanted) -> None:
        """Take a step, given by itself or by its name, out of the pipeline.

        Raises:
            UnknownStep: There is no such step, or more than one.
        """
        del self._steps[self._index(step)]

    def compile(self, *args: Any, **kwargs: Any) -> T:
        """Run the steps, and return what the last one returned.

        An exception has a note that tells in which step it was raised.

        Raises:
            EmptyPipeline: There are no steps.
            WrappedAggregate: A step returned what ``torch.compile`` made of an aggregate.
        """
        if not self._steps:
            message = "a compiler without steps builds nothing. Add one: `@compiler.step`."
            raise EmptyPipeline(message)
        steps = tuple(self._steps)
        result: Any = None
        with self.provider.session() as call:
            for number, step in enumerate(steps, start=1):
                begin = self._clock()
                try:
                    result = call(step.function, *args, **kwargs)
                    _check(result)
                except BaseException as error:
                    place = place_of(step.function)
                    error.add_note(f"in step {number} of {len(steps)} of the compiler: {step.name} ({place})")
                    raise
                seconds = self._clock() - begin
                logger.info("step %d of %d, %s, took %.3f s", number, len(steps), step.name, seconds)
                args, kwargs = (result if type(result) is tuple else (result,)), {}
        return cast("T", result)

    def _made(self, function: Callable[..., Any]) -> Step:
        if not callable(function) or kind(function) is not Kind.PLAIN:
            what = "calling it would run nothing of it" if callable(function) else "it cannot be called"
            message = f"{name_of(function)} ({place_of(function)}) is no step: {what}. Write a plain function."
            raise InvalidStep(message)
        return Step(function, inject(self.provider)(function))

    def _index(self, wanted: Wanted) -> int:
        found = [index for index, step in enumerate(self._steps) if step.is_meant(wanted)]
        if len(found) == 1:
            return found[0]
        names = [step.name for step in self._steps]
        name = wanted if isinstance(wanted, str) else name_of(wanted)
        near = "".join(f" Did you mean {match!r}?" for match in get_close_matches(name, names, n=1))
        message = (
            f"{len(found)} steps are {name!r}. Give the function itself, or steps names of their own."
            if found
            else f"no step is {name!r}.{near} The steps are {', '.join(names) or 'none yet'}."
        )
        raise UnknownStep(message)


def _check(result: object) -> None:
    for part in result if isinstance(result, tuple) else (result,):
        aggregate = wrapped_aggregate(part)
        if aggregate is not None:
            name = type(aggregate).__qualname__
            message = (
                f"torch.compile({name}) gives a wrapper, which is no {name} and renames its state. "
                f"Write `from torchsystem.compiler import compile`, which compiles the {name} itself."
            )
            raise WrappedAggregate(message)
