"""Random graphs of dependencies, built for real, and a model that says what must happen to them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from torchsystem.depends import Depends, Provider, inject


class Abort(BaseException):
    """Something that is no Exception, and of a kind that nobody treats specially."""


@dataclass
class Spec:
    """One dependency: what it needs, of which sort it is, and how it fails."""

    needs: tuple[int, ...]
    kind: str  # plain, generator, coroutine, async generator
    fails: str = ""  # setup, cleanup, swallow, translate
    error: type[BaseException] = ValueError

    @property
    def cleans_up(self) -> bool:
        """Tell whether it is a generator of either sort."""
        return "generator" in self.kind


@dataclass
class Graph:
    """Dependencies, each needing earlier ones; the handler needs some, and may fail."""

    specs: list[Spec]
    wants: tuple[int, ...]
    handler_error: type[BaseException] | None = None
    is_async: bool = False
    errors: dict[object, BaseException] = field(default_factory=dict)

    def error(self, key: object, kind: type[BaseException]) -> BaseException:
        """Return the one exception that is raised at ``key``."""
        return self.errors.setdefault(key, kind(f"at {key}"))

    def order(self) -> list[int]:
        """List what is made, depth first, each once."""
        found: dict[int, None] = {}

        def visit(index: int) -> None:
            if index not in found:
                for need in self.specs[index].needs:
                    visit(need)
                found[index] = None

        for want in self.wants:
            visit(want)
        return list(found)

    def expected(self) -> tuple[list[Any], BaseException | None, list[BaseException]]:
        """Say what must be logged, which error ended the block, and which clean-ups failed."""
        log: list[Any] = []
        opened: list[int] = []
        error: BaseException | None = None
        for index in self.order():
            spec = self.specs[index]
            log.append(("make", index))
            if spec.fails == "setup":
                error = self.error(index, spec.error)
                break
            if spec.cleans_up:
                opened.append(index)
        else:
            log.append(("handler",))
            if self.handler_error is not None:
                error = self.error("handler", self.handler_error)
        failures: list[BaseException] = []
        for index in reversed(opened):
            spec = self.specs[index]
            seen = error if error is not None or not failures else failures[0]
            log.append(("close", index, seen))
            if spec.fails == "cleanup" or (spec.fails == "translate" and seen is not None):
                failures.append(self.error(index, spec.error))
        return log, error, failures


class World:
    """A graph built for real: functions with signatures, on a provider, that log what happens."""

    def __init__(self, graph: Graph, provider: Provider | None = None) -> None:
        self.graph = graph
        self.log: list[Any] = []
        self.provider = Provider() if provider is None else provider
        self.functions: list[Callable[..., Any]] = []
        for index, spec in enumerate(graph.specs):
            self.functions.append(self.with_needs(self._function(index, spec), spec.needs, f"dependency_{index}"))
        handler = self._async_handler() if graph.is_async else self._handler()
        self.plain_handler = self.with_needs(handler, graph.wants, "handler")
        self.handler = inject(self.provider)(self.plain_handler)

    def with_needs(self, function: Callable[..., Any], needs: tuple[int, ...], name: str) -> Callable[..., Any]:
        """Give ``function`` parameters for its needs."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter(f"n{n}", kind, default=Depends(self.functions[n])) for n in needs]
        function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        function.__name__ = function.__qualname__ = name
        return function

    def _handler(self) -> Callable[..., Any]:
        def handler(*values: object) -> object:
            self.log.append(("handler",))
            if self.graph.handler_error is not None:
                raise self.graph.error("handler", self.graph.handler_error)
            return values

        return handler

    def _async_handler(self) -> Callable[..., Any]:
        async def handler(*values: object) -> object:
            self.log.append(("handler",))
            await Pause()
            if self.graph.handler_error is not None:
                raise self.graph.error("handler", self.graph.handler_error)
            return values

        return handler

    def _start(self, index: int, spec: Spec, values: tuple[object, ...]) -> object:
        self.log.append(("make", index))
        if spec.fails == "setup":
            raise self.graph.error(index, spec.error)
        return (index, *values)

    def _end(self, index: int, spec: Spec, seen: BaseException | None) -> bool:
        """Log the end, fail if so ordered, and tell whether what was seen goes on."""
        self.log.append(("close", index, seen))
        if spec.fails == "cleanup" or (spec.fails == "translate" and seen is not None):
            raise self.graph.error(index, spec.error)
        return seen is not None and spec.fails != "swallow"

    def _function(self, index: int, spec: Spec) -> Callable[..., Any]:  # noqa: C901 - four sorts, side by side
        def plain(*values: object) -> object:
            return self._start(index, spec, values)

        async def coroutine(*values: object) -> object:
            await Pause()
            return self._start(index, spec, values)

        def generator(*values: object) -> Any:
            seen = None
            try:
                yield self._start(index, spec, values)
            except BaseException as error:
                if error is self.graph.errors.get(index):
                    raise
                seen = error
                if self._end(index, spec, seen):
                    raise
            else:
                self._end(index, spec, None)

        async def async_generator(*values: object) -> Any:
            seen = None
            value = self._start(index, spec, values)
            try:
                yield value
            except BaseException as error:
                seen = error
                await Pause()
                if self._end(index, spec, seen):
                    raise
            else:
                await Pause()
                self._end(index, spec, None)

        kinds = {"plain": plain, "coroutine": coroutine, "generator": generator, "async generator": async_generator}
        return kinds[spec.kind]

    def run(self) -> tuple[object, BaseException | None]:
        """Call the handler; return what it gave, and what it raised."""
        try:
            value = self.handler()
            return (drive(value) if self.graph.is_async else value), None
        except BaseException as error:  # noqa: BLE001 - that is the question
            return None, error


class Pause:
    """Something to await that really suspends, once."""

    def __await__(self) -> Any:
        yield


def drive(coroutine: Coroutine[Any, Any, Any]) -> object:
    """Run a coroutine without an event loop, so that no exception is treated specially on the way."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value


SYNC_KINDS = ("plain", "generator")
ALL_KINDS = ("plain", "generator", "coroutine", "async generator")
EXCEPTIONS: tuple[type[BaseException], ...] = (ValueError, KeyboardInterrupt, SystemExit, Abort)


@st.composite
def graphs(draw: st.DrawFn, *, is_async: bool = False, failing: bool = True) -> Graph:
    """Draw a graph of up to seven dependencies, some of them failing."""
    specs: list[Spec] = []
    for index in range(draw(st.integers(1, 7))):
        kind = draw(st.sampled_from(ALL_KINDS if is_async else SYNC_KINDS))
        needs = tuple(draw(st.lists(st.integers(0, index - 1), unique=True, max_size=3)) if index else ())
        fails = ""
        if failing:
            choices = ["", "", "", "setup"] + (["cleanup", "swallow", "translate"] if "generator" in kind else [])
            fails = draw(st.sampled_from(choices))
        specs.append(Spec(needs, kind, fails, draw(st.sampled_from(EXCEPTIONS))))
    wants = tuple(draw(st.lists(st.integers(0, len(specs) - 1), unique=True, min_size=1, max_size=4)))
    handler_errors = (*EXCEPTIONS, StopAsyncIteration, GeneratorExit) + (() if is_async else (StopIteration,))
    error = draw(st.none() | st.sampled_from(handler_errors)) if failing else None
    return Graph(specs, wants, error, is_async)
