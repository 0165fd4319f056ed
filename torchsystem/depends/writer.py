"""How the code of an injected handler is written: line by line, as by hand."""

from __future__ import annotations

from torchsystem.depends.graph import Argument, Node, Plan
from torchsystem.depends.kinds import Kind
from torchsystem.depends.sentinels import EMPTY
from torchsystem.depends.signature import KEYWORD_ONLY, POSITIONAL_ONLY, VAR_KEYWORD, VAR_POSITIONAL, Parameters

_OURS = (
    "BaseException", "NotImplementedError", "StopAsyncIteration", "bound", "call", "error", "handler", "inner",
    "lacks", "missing", "next", "outer", "result", "scope", "step", "thrown", "value",
)  # fmt: skip


def word_for(node: Node) -> str:
    """Name the value of ``node`` in the code."""
    return plain_word(node.declared) or "made"


def plain_word(factory: object) -> str:
    """Return the name of ``factory`` as far as it can stand in the code; other letters than ASCII may mean the same."""
    word = getattr(factory, "__name__", "")
    return word.strip("_") if isinstance(word, str) and word.isascii() and word.isidentifier() else ""


def prefix_of(parameters: Parameters) -> str:
    """Find a beginning for our own names that no parameter of the handler has."""
    prefix = "_"
    while any(parameter.name.startswith(prefix) for parameter in parameters):
        prefix += "_"
    return prefix


def required_behind_default(parameters: Parameters) -> list[str]:
    """Name the parameters that must be given though one before them need not be (``Annotated`` allows that)."""
    names: list[str] = []
    seen_default = False
    for parameter in parameters:
        if parameter.kind == KEYWORD_ONLY or parameter.is_variadic:
            continue
        if parameter.dependency is not None or parameter.default is not EMPTY:
            seen_default = True
        elif seen_default:
            names.append(parameter.name)
    return names


class Writer:
    """The work of writing the code of one plan.

    Attributes:
        lines: By line: the number of the node that is made there.
    """

    def __init__(self, plan: Plan, nodes: list[Node]) -> None:
        self.plan = plan
        self.nodes = nodes
        self.p = prefix_of(plan.parameters)
        self.lines: dict[int, int] = {}
        self._text: list[str] = []
        self._names: dict[Node, str] = {}
        taken = set(_OURS)
        for node in self.nodes:
            word = word_for(node)
            name, number = word, 1
            while not taken.isdisjoint({name, f"make_{name}", f"opened_{name}"}):
                name, number = f"{word}_{number + 1}", number + 1
            taken |= {name, f"make_{name}", f"opened_{name}"}
            self._names[node] = name

    def write(self) -> str:
        """Return the source, in a function around it for the cell; ``lines`` then tells what is made where."""
        word = plain_word(self.plan.handler)
        name = f"injected_{word}" if word else "injected"
        self._add(0, f"def {self.p}outer({self.p}bound):")
        self._add(1, f"{'async ' if self.plan.kind.is_async else ''}def {name}({self._parameters()}):")
        if self.plan.kind.cleans_up:
            self._generator_body()
        else:
            self._guards()
            self._body()
        return "\n".join(self._text) + "\n"

    def _add(self, indent: int, line: str) -> None:
        self._text.append("    " * indent + line)

    def _parameters(self) -> str:
        written: list[str] = []
        seen_default = False
        kinds = [parameter.kind for parameter in self.plan.parameters]
        for index, parameter in enumerate(self.plan.parameters):
            name, kind = parameter.name, parameter.kind
            if kind == KEYWORD_ONLY and VAR_POSITIONAL not in kinds and kinds.index(KEYWORD_ONLY) == index:
                written.append("*")
            optional = parameter.dependency is not None or parameter.default is not EMPTY
            if kind == VAR_POSITIONAL:
                written.append(f"*{name}")
            elif kind == VAR_KEYWORD:
                written.append(f"**{name}")
            elif kind == KEYWORD_ONLY:
                written.append(f"{name}={self.p}bound" if optional else name)
            else:
                seen_default = seen_default or optional
                written.append(f"{name}={self.p}bound" if seen_default else name)
            if kind == POSITIONAL_ONLY and (index + 1 == len(kinds) or kinds[index + 1] != POSITIONAL_ONLY):
                written.append("/")
        return ", ".join(written)

    def _arguments(self) -> str:
        names = [parameter.name for parameter in self.plan.parameters]
        return f"({', '.join(names)}{',' if len(names) == 1 else ''})"

    def _guards(self) -> None:
        """Leave for the linker whenever the call is not the usual one."""
        p, wait = self.p, "await " if self.plan.kind.is_async else ""
        for name in required_behind_default(self.plan.parameters):
            self._add(2, f"if {name} is {p}missing:")
            self._add(3, f"{p}lacks({getattr(self.plan.handler, '__qualname__', 'handler')!r}, {name!r})")
        given = " or ".join(f"{name} is not {p}bound" for name in self.plan.needs)
        self._add(2, f"if {given}:")
        self._add(3, f"return {wait}{p}bound[-1].other({self._arguments()})")

    def _body(self) -> None:
        p = self.p
        names = [f"{p}make_{self._names[node]}" for node in self.nodes]
        # From the parameter and not from the cell, which may hold another binding by now.
        binding = next(iter(self.plan.needs))
        self._add(2, f"{', '.join([f'{p}handler', *names, f'{p}call'])} = {binding}")
        opened = [self._names[node] for node in self.nodes if cleans_up(node)]
        if opened:
            self._body_with_clean_up(opened[::-1])
            return
        self._add(2, "try:")
        for node in self.nodes:
            self._make(node)
        self._add(2, f"except {p}NotImplementedError as {p}error:")
        self._add(3, f"{p}call.failed({p}error)")
        self._add(3, "raise")
        self._add(2, f"return {self._handler_call()}")

    def _body_with_clean_up(self, closing: list[str]) -> None:
        p, is_async = self.p, self.plan.kind.is_async
        wait, suffix = ("await ", "_async") if is_async else ("", "")
        opened = [f"{p}opened_{name}" for name in closing]
        self._add(2, f"{' = '.join(opened[::-1])} = None")
        self._add(2, "try:")
        for node in self.nodes:
            self._make(node)
        self._add(3, f"{p}result = {self._handler_call()}")
        self._add(2, f"except {p}BaseException as {p}error:")
        self._add(3, f"{wait}{p}call.ended{suffix}({p}error, ({', '.join(opened)},))")
        self._add(3, "raise")
        if len(opened) == 1 and not is_async:
            self._add(2, f"if {p}next({opened[0]}, {p}missing) is not {p}missing:")
            self._add(3, f"{p}call.twice({opened[0]})")
        else:
            self._add(2, f"{wait}{p}call.close{suffix}(({', '.join(opened)},))")
        self._add(2, f"return {p}result")

    def _make(self, node: Node) -> None:
        """Write the line that makes one value."""
        p, name = self.p, self._names[node]
        made = f"{p}make_{name}({self._inputs(node)})"
        self.lines[len(self._text) + 1] = self.nodes.index(node)
        if cleans_up(node):
            step = f"await {p}opened_{name}.__anext__()" if node.kind.is_async else f"{p}next({p}opened_{name})"
            self._add(3, f"{p}opened_{name} = {made}; {p}{name} = {step}")
        elif is_awaited(node):
            self._add(3, f"{p}{name} = await {made}")
        else:
            self._add(3, f"{p}{name} = {made}")

    def _inputs(self, node: Node) -> str:
        if is_leaf(node):
            return ""
        return ", ".join(
            f"{i.name}={self._value(i.source)}" if i.by_keyword else self._value(i.source) for i in node.inputs
        )

    def _value(self, source: Node | Argument) -> str:
        if isinstance(source, Argument):
            if source.node is None:
                return source.name
            source = source.node
        return f"{self.p}{self._names[source]}"

    def _handler_call(self) -> str:
        forms: dict[int, str] = {VAR_POSITIONAL: "*{0}", VAR_KEYWORD: "**{0}", KEYWORD_ONLY: "{1}={0}"}
        needs = self.plan.needs
        values = [(self._value(needs[q.name]) if q.name in needs else q.name, q) for q in self.plan.parameters]
        passed = ", ".join(forms.get(q.kind, "{0}").format(value, q.name) for value, q in values)
        return f"{'await ' if self.plan.kind.is_async else ''}{self.p}handler({passed})"

    def _generator_body(self) -> None:
        """Write a handler that is itself a generator: opened at its first ``next``, closed when it ends."""
        p, is_async = self.p, self.plan.kind.is_async
        wait, suffix = ("await ", "_async") if is_async else ("", "")
        for name in required_behind_default(self.plan.parameters):
            self._add(2, f"if {name} is {p}missing:")
            self._add(3, f"{p}lacks({getattr(self.plan.handler, '__qualname__', 'handler')!r}, {name!r})")
        self._add(2, f"{p}scope, {p}inner = {wait}{p}bound[-1].enter{suffix}({self._arguments()})")
        self._add(2, "try:")
        for line in _DELEGATE_ASYNC if is_async else _DELEGATE:
            self._add(3, line.replace("_", p))
        self._add(2, f"except {p}BaseException as {p}error:")
        self._add(3, f"{wait}{p}scope.exit{suffix}({p}error)")
        self._add(3, "raise")
        self._add(2, f"{wait}{p}scope.exit{suffix}(None)")
        if not is_async:
            self._add(2, f"return {p}result")


_DELEGATE = ("_result = yield from _inner",)
# `yield from` for async generators, which the language does not have (PEP 380 shows what it does).
_DELEGATE_ASYNC = (
    "_step, _value = _inner.asend, None",
    "while True:",
    "    try:",
    "        _value = await _step(_value)",
    "    except _StopAsyncIteration:",
    "        break",
    "    try:",
    "        _value = yield _value",
    "    except _BaseException as _thrown:",
    "        _step, _value = _inner.athrow, _thrown",
    "    else:",
    "        _step = _inner.asend",
)


def is_leaf(node: Node) -> bool:
    """Tell what is asked for its value instead of being made here."""
    return node.problem is not None or node.kept is not None


def cleans_up(node: Node) -> bool:
    """Tell what is opened here, and closed."""
    return node.kind.cleans_up and not is_leaf(node)


def is_awaited(node: Node) -> bool:
    """Tell what is called here and awaited."""
    if node.problem is not None:
        return False
    return node.waits if node.kept is not None else node.kind is Kind.COROUTINE
