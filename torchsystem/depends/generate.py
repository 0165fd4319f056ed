"""The code of an injected handler: one plain function, written as one would by hand.

This is the hot path of the package. A call through a generic solver costs several times what the dependencies
themselves do; a function of the handler's own shape costs a fraction more than a hand-written one. So that is what is
made, for the usual call in which no dependency is passed by hand; all else goes to the linker and from there to
`torchsystem.depends.solve`. ``provider.explain(handler)`` shows the result, and so does a traceback:

    def injected_train(model, device=_bound):
        if device is not _bound:
            return _bound[-1].other((model, device))
        _handler, _make_device, _call = device
        try:
            _device = _make_device()
        except _NotImplementedError as _error:
            _call.failed(_error)
            raise
        return _handler(model, _device)

The binding, one tuple of all that is called, is the default of each parameter that need not be given, and the content
of the one cell ``_bound``. So a single comparison tells that the caller gave nothing and that nothing was bound anew
since, and the call sees all of one binding or all of another, never a mixture: Python takes a function's code and
defaults in one step, and the cell is changed first and last (see `Linker._link`).
Functions of the same source share one code object.
"""

from __future__ import annotations

import builtins
import functools
import itertools
import types
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from torchsystem.depends.graph import Argument, Node, Plan
from torchsystem.depends.sentinels import EMPTY, MISSING, NEEDED
from torchsystem.depends.signature import KEYWORD_ONLY, Parameters
from torchsystem.depends.writer import Writer, cleans_up, is_awaited, is_leaf, prefix_of, word_for

_SHAPES_KEPT = 1024

_shapes: dict[tuple[object, ...], Generated] = {}
_numbers = itertools.count(1)


class Generated(NamedTuple):
    """The code for all plans of one shape."""

    source: str
    code: types.CodeType
    lines: dict[int, int]  # by line: the number of the node that is made there


def generate(plan: Plan, nodes: list[Node]) -> Generated:
    """Write and compile the code that carries out ``plan`` for the usual call.

    Args:
        plan: What the handler needs.
        nodes: ``plan.order()``.
    """
    shape = _shape(plan, nodes)
    known = _shapes.get(shape)
    if known is None:
        if len(_shapes) >= _SHAPES_KEPT:
            _forget_shapes()
        writer = Writer(plan, nodes)
        source = writer.write()
        known = _shapes[shape] = Generated(source, _compile(source, plan.handler), writer.lines)
    return known


def _shape(plan: Plan, nodes: list[Node]) -> tuple[object, ...]:
    """Return all on which the code depends: names, kinds, and what goes where."""
    numbers = {node: number for number, node in enumerate(nodes)}

    def origin(source: Node | Argument) -> object:
        if isinstance(source, Node):
            return numbers[source]
        return source.name if source.node is None else numbers[source.node]

    return (
        getattr(plan.handler, "__qualname__", ""),
        plan.kind,
        *((p.name, p.kind, p.dependency is None, p.default is EMPTY) for p in plan.parameters),
        *(numbers.get(node, name) for name, node in plan.needs.items()),
        *(
            (word_for(node), is_awaited(node), cleans_up(node) and node.kind)
            if is_leaf(node) or not node.inputs
            else (word_for(node), node.kind, *((i.by_keyword and i.name, origin(i.source)) for i in node.inputs))
            for node in nodes
        ),
    )


def _compile(source: str, handler: object) -> types.CodeType:
    filename = f"<injected {getattr(handler, '__name__', 'handler')} #{next(_numbers)}>"
    module = compile(source, filename, "exec", dont_inherit=True)
    outer = next(c for c in module.co_consts if isinstance(c, types.CodeType))
    # So that a traceback shows these lines; without a time of change, linecache keeps them.
    import linecache  # noqa: PLC0415 - it costs 3 ms at import

    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    return next(c for c in outer.co_consts if isinstance(c, types.CodeType))


def _forget_shapes() -> None:
    import linecache  # noqa: PLC0415

    for generated in list(_shapes.values()):
        linecache.cache.pop(generated.code.co_filename, None)
    _shapes.clear()


def namespace(parameters: Parameters) -> dict[str, object]:
    """Return the globals of the code for a handler with ``parameters``."""
    return _namespace(prefix_of(parameters))


@functools.cache
def _namespace(p: str) -> dict[str, object]:
    ours: dict[str, object] = {"missing": MISSING, "lacks": _lacks, "next": next}
    ours |= {error.__name__: error for error in (BaseException, NotImplementedError, StopAsyncIteration)}
    return {
        **{f"{p}{name}": value for name, value in ours.items()},
        "__builtins__": builtins.__dict__,
        "__name__": __name__,
    }


def _lacks(handler: str, name: str) -> NoReturn:
    """Refuse a call without a required argument, in Python's words."""
    message = f"{handler}() missing 1 required positional argument: {name!r}"
    raise TypeError(message)


def defaults(parameters: Parameters) -> tuple[tuple[object, ...], dict[str, object]]:
    """Return the defaults of the generated function: the handler's, and ``NEEDED`` for what is made."""
    positional: list[object] = []
    keywords: dict[str, object] = {}
    for parameter in parameters:
        default = NEEDED if parameter.dependency is not None else parameter.default
        if parameter.kind == KEYWORD_ONLY:
            if default is not EMPTY:
                keywords[parameter.name] = default
        elif not parameter.is_variadic and (positional or default is not EMPTY):
            positional.append(MISSING if default is EMPTY else default)
    return tuple(positional), keywords


def makers(nodes: list[Node], refuse: Callable[[Node], Callable[[], object]]) -> list[Callable[..., object]]:
    """List what the code calls for each node; ``refuse`` makes a callable that raises what is wrong with it."""
    return [_maker(node, refuse) for node in nodes]


def _maker(node: Node, refuse: Callable[[Node], Callable[[], object]]) -> Callable[..., object]:
    if node.problem is not None:
        return refuse(node)
    if node.kept is not None:
        return node.kept.get_async if node.waits else node.kept.get
    return node.target
