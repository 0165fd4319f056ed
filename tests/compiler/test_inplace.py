"""What `compile` promises of an aggregate, one rule per test.

Most of them compile with torch's backend "eager", which captures graphs and runs them as they are.
"""

from __future__ import annotations

import copy
import inspect
import io
import logging
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import _dynamo, nn
from torch._dynamo.utils import counters

from torchsystem.compiler import Compiler, compile  # noqa: A004 - named as torch names it
from torchsystem.domain import Aggregate
from torchsystem.errors import InvalidCompileOption, NothingCaptured, WrappedAggregate

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Start with nothing compiled, and leave nothing."""
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def graphs() -> int:
    """Count what dynamo has captured."""
    return counters["stats"]["unique_graphs"]


class Classifier(Aggregate):
    """An aggregate as users write it."""

    def __init__(self, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.nn = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = optimizer(self.nn.parameters(), lr=0.1)
        self.initialize("classifier")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predict."""
        return self.nn(x)

    def fit(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Learn from a batch."""
        self.optimizer.zero_grad()
        outputs = self.nn(x)
        loss = self.criterion(outputs, y)
        loss.backward()
        self.optimizer.step()
        return outputs.argmax(1), loss

    def evaluate(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Look at a batch."""
        outputs = self(x)
        return outputs.argmax(1), self.criterion(outputs, y)

    def onepoch(self) -> None:
        """Commit."""
        self.events.commit()


X, Y = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 1, 2])


def train(model: Any, steps: int = 5) -> list[float]:
    """Fit a few times on the same batch, and return the losses."""
    return [model.fit(X, Y)[1].item() for _ in range(steps)]


@pytest.mark.parametrize("step", [False, True])
def test_the_same_object_comes_back(*, step: bool) -> None:
    """Compiling keeps the object, its type, id, hash, events, parameters and the keys of its state."""
    model = Classifier()
    before = (type(model), model.id, hash(model), model.events, list(model.parameters()), list(model.state_dict()))
    assert compile(model, backend="eager", step=step) is model
    train(model)
    after = (type(model), model.id, hash(model), model.events, list(model.parameters()), list(model.state_dict()))
    assert all(x is y for x, y in zip(before[4], after[4], strict=True))
    assert before[:4] + before[5:] == after[:4] + after[5:]
    assert str(Classifier().load_state_dict(model.state_dict())) == "<All keys matched successfully>"


def test_a_step_after_compile_gets_the_aggregate() -> None:
    """In a pipeline, what follows the compilation works on the same aggregate, and its hooks and events still do."""
    compiler = Compiler[Classifier]()
    compiler.step(Classifier)
    compiler.step(lambda model: compile(model, backend="eager"))

    @compiler.step
    def resume(model: Classifier) -> Classifier:
        model.epoch += 1
        return model

    model = compiler.compile()
    assert type(model) is Classifier
    assert model.epoch == 1
    assert not any("_orig_mod" in key for key in model.state_dict())
    model.events.enqueue(StopIteration)
    with pytest.raises(StopIteration):
        model.epoch += 1


@pytest.mark.parametrize("step", [False, True])
def test_compiled_code_computes_the_same(*, step: bool) -> None:
    """With torch's default backend, a compiled aggregate learns what an eager one learns."""
    eager, compiled = Classifier(), compile(Classifier(), step=step)
    assert train(compiled) == pytest.approx(train(eager), rel=1e-5)
    for ours, theirs in zip(compiled.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert graphs() > 0


class Through(Classifier):
    """An aggregate that calls its modules in other ways."""

    way = "self"

    def fit(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Call in the way that is asked for."""
        if self.way == "self":
            outputs = self(x)
        elif self.way == "one by one":
            outputs = self.nn[2](self.nn[1](self.nn[0](x)))
        else:
            outputs = x
            for layer in self.nn:
                outputs = layer(outputs)
        return outputs, self.criterion(outputs, y)


@pytest.mark.parametrize(("way", "expected"), [("self", 1), ("one by one", 2), ("loop", 2)])
def test_what_fit_calls_is_compiled(way: str, expected: int) -> None:
    """Whatever modules `fit` calls are compiled, as large as they are called; those inside them not once more."""
    model = Through()
    model.way = way
    compile(model, backend="eager")
    train(model)
    assert graphs() == expected


def test_the_graphs_are_those_of_hand_compiled_code() -> None:
    """Calling a container of torch's own captures what compiling it by hand captures: one graph per mode."""
    model = compile(Classifier(), backend="eager")
    train(model)
    assert graphs() == 1
    model.phase = "evaluation"
    with torch.inference_mode():
        model.evaluate(X, Y)
    assert graphs() == 2


def test_modules_without_parameters_are_left_alone() -> None:
    """A loss that is called by itself is no graph of its own, and no metric either."""
    model = compile(Classifier(), backend="eager")
    model.criterion(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long))
    assert graphs() == 0


def test_the_phase_is_seen() -> None:
    """Compiled code does in evaluation what evaluation means, and in training again what training means."""
    model = Classifier()
    model.nn.append(nn.Dropout(1.0))
    compile(model, backend="eager")
    assert model(X).eq(0).all()
    model.phase = "evaluation"
    assert model(X).ne(0).any()
    model.phase = "train"
    assert model(X).eq(0).all()


def test_reading_the_epoch_does_not_compile_for_each_epoch() -> None:
    """A forward that reads the epoch is compiled anew once, when the epoch first changes, and right ever after."""

    class Annealed(Classifier):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.nn(x) * (self.epoch + 1)

        fit = Classifier.evaluate

    model = compile(Annealed(), backend="eager", fullgraph=True)
    first = model(X)
    for epoch in range(12):
        model.epoch = epoch
        torch.testing.assert_close(model(X), first * (epoch + 1))
    assert graphs() == 2


def test_a_graph_break_costs_no_change_of_settings() -> None:
    """Where a forward breaks its graph, torch's settings are changed while it is traced, and not while it runs."""
    seen = []

    @torch.compiler.disable
    def look() -> None:
        seen.append(_dynamo.config.allow_unspec_int_on_nn_module)

    class Looking(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = super().forward(x)
            look()
            return x + 1

    model = Classifier()
    model.nn = Looking(4, 3)
    compile(model, backend="eager")
    model.nn(X)
    seen.clear()
    model.nn(X)
    assert seen == [False]


@pytest.mark.parametrize("use", ["fit", "evaluate"])
def test_the_first_use_makes_sure_that_something_was_captured(use: str) -> None:
    """Where everything escapes compilation, the first use says so, and what would be compiled; the next one again."""

    class Escaping(Classifier):
        def fit(self, x: torch.Tensor, y: torch.Tensor) -> Any:
            return nn.functional.linear(x, self.nn[0].weight), y

        evaluate = fit

    model = compile(Escaping(), backend="eager")
    for _ in range(2):
        with pytest.raises(NothingCaptured, match=rf"Escaping\.{use} .*nn, nn\.0, nn\.2.*self\.nn\(x\)"):
            getattr(model, use)(X, Y)


def test_a_module_of_which_nothing_is_captured_is_named() -> None:
    """Where a module is called and dynamo captures nothing of it, it is that module that is named."""

    class Opaque(nn.Linear):
        @torch.compiler.disable
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    model = Classifier()
    model.nn = Opaque(4, 3)
    compile(model, backend="eager")
    with pytest.raises(NothingCaptured, match="captured nothing of nn"):
        model.fit(X, Y)


def test_an_aggregate_without_fit_and_evaluate_is_verified_when_it_is_called() -> None:
    """An aggregate that is only called makes sure that its call was captured."""

    class Silent(Aggregate):
        def __init__(self) -> None:
            super().__init__()
            self.nn = nn.Linear(4, 3)

        @torch.compiler.disable
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.nn.forward(x)

    with pytest.raises(NothingCaptured, match="Silent"):
        compile(Silent(), backend="eager")(X)


def test_an_aggregate_without_parameters_is_refused() -> None:
    """Where nothing has parameters there is nothing to compile, or not yet."""
    with pytest.raises(NothingCaptured, match="nothing in Aggregate has parameters"):
        compile(Aggregate(), backend="eager")


def test_a_user_who_disables_dynamo_is_not_told() -> None:
    """Whoever has told torch not to compile knows that nothing is captured; later the promise holds again."""
    model = compile(Classifier(), backend="eager")
    with torch.compiler.set_stance("force_eager"):
        model.fit(X, Y)
    with _dynamo.config.patch(disable=True):
        model.fit(X, Y)
    assert graphs() == 0
    model.fit(X, Y)
    assert graphs() == 1


def test_a_user_who_postpones_compiling_is_not_told() -> None:
    """A stance of torch that compiles later is no escape."""
    model = compile(Classifier(), backend="eager")
    with torch.compiler.set_stance("eager_then_compile"):
        train(model)
    assert graphs() > 0


def test_using_it_by_hand_first_is_a_use() -> None:
    """What an earlier call of the aggregate captured counts, so that `fit` does not miss a graph of its own."""
    model = compile(Classifier(), backend="eager")
    model.nn(X)
    train(model)
    assert graphs() == 1


def test_after_the_first_use_nothing_is_in_the_way() -> None:
    """`fit` and `evaluate` are the class's own again once they are known to be compiled."""
    model = compile(Classifier(), backend="eager")
    assert inspect.signature(model.fit) == inspect.signature(Classifier().fit)
    model.fit(X, Y)
    assert model.fit == Classifier.fit.__get__(model)
    assert model.evaluate == Classifier.evaluate.__get__(model)


def test_a_failing_fit_raises_its_own_error() -> None:
    """An exception of a first use goes through as it is, and the use after it is the first."""
    model = compile(Classifier(), backend="eager")
    with pytest.raises(RuntimeError, match=r"shape|dim"):
        model.fit(X[:, :2], Y)
    train(model)
    assert graphs() >= 1


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_a_whole_step_computes_the_same(optimizer: type[torch.optim.Optimizer]) -> None:
    """With `step=True`, `fit` and the optimizer's step are compiled, and learn the same."""
    eager, compiled = Classifier(optimizer), compile(Classifier(optimizer), backend="eager", step=True)
    assert train(compiled) == pytest.approx(train(eager), rel=1e-5)
    for ours, theirs in zip(compiled.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert graphs() >= 2
    assert inspect.signature(compiled.fit) == inspect.signature(eager.fit)
    assert compiled.fit.__name__ == "fit"


def test_an_optimizer_stepped_outside_of_fit_is_compiled() -> None:
    """With `step=True`, the step of an optimizer is compiled wherever it is called, also from a list."""

    class Accumulating(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.optimizers = [self.__dict__.pop("optimizer")]

        def fit(self, x: torch.Tensor, y: torch.Tensor) -> Any:
            loss = self.criterion(self.nn(x), y)
            loss.backward()
            return None, loss

    model = compile(Accumulating(), backend="eager", step=True)
    model.fit(X, Y)
    before, weight = graphs(), model.nn[0].weight.clone()
    model.optimizers[0].step()
    assert graphs() > before
    assert not torch.equal(model.nn[0].weight, weight)


@pytest.mark.parametrize("first", ["compile", "scheduler"])
def test_schedulers_work_with_a_compiled_step(first: str) -> None:
    """A scheduler made before or after compiling sets the rate, and has nothing to warn of."""
    model = Classifier()
    if first == "compile":
        compile(model, backend="eager", step=True)
    scheduler = torch.optim.lr_scheduler.StepLR(model.optimizer, 1, gamma=0.5)
    if first == "scheduler":
        compile(model, backend="eager", step=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            model.fit(X, Y)
            scheduler.step()
    assert model.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 8)


def test_zeroing_gradients_breaks_no_graph() -> None:
    """With `step=True`, `zero_grad` is traced, which torch's own is not."""
    train(compile(Classifier(), backend="eager", step=True))
    assert not any("zero_grad" in reason for reason in counters["graph_break"])


def test_gradients_can_still_be_zeroed() -> None:
    """With `step=True`, `zero_grad` does what it did, both ways, and that of a class stays the class's."""

    class Own(torch.optim.SGD):
        def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - as torch has it
            self.zeroed = True
            super().zero_grad(set_to_none)

    model = compile(Classifier(), backend="eager", step=True)
    model.fit(X, Y)
    model.optimizer.zero_grad(set_to_none=False)
    assert all(parameter.grad.eq(0).all() for parameter in model.parameters())
    model.optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())
    own = compile(Classifier(Own), backend="eager", step=True)
    own.optimizer.zero_grad()
    assert own.optimizer.zeroed


HOOKS = {
    "forward": lambda module, hook: module.register_forward_hook(lambda *_: hook()),
    "forward_pre": lambda module, hook: module.register_forward_pre_hook(lambda *_: hook()),
    "full_backward": lambda module, hook: module.register_full_backward_hook(lambda *_: hook()),
    "full_backward_pre": lambda module, hook: module.register_full_backward_pre_hook(lambda *_: hook()),
    "parameter": lambda module, hook: next(module.parameters()).register_hook(lambda _: hook()),
    "global": lambda _, hook: nn.modules.module.register_module_forward_hook(lambda *_: hook()),
}


def fit(model: Through) -> None:
    """Go forward and backward."""
    model.fit(X, Y)[1].backward()


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize(("where", "step"), [("", False), ("nn.0", False), ("nn.0", True)])
@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_registered_before_compiling_run(kind: str, where: str, *, step: bool) -> None:
    """A hook that is there when an aggregate is compiled runs, and no more once it is removed."""
    model, seen = Through(), []
    handle = HOOKS[kind](model.get_submodule(where), lambda: seen.append(1))
    compile(model, backend="eager", step=step)
    fit(model)
    assert seen
    handle.remove()
    seen.clear()
    fit(model)
    assert not seen


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize(("where", "step"), [("", False), ("nn.0", False), ("nn.0", True)])
@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_registered_after_compiling_run(kind: str, where: str, *, step: bool) -> None:
    """A hook registered on a compiled aggregate runs from the next call on, until it is removed."""
    model, seen = compile(Through(), backend="eager", step=step), []
    fit(model)
    handle = HOOKS[kind](model.get_submodule(where), lambda: seen.append(1))
    fit(model)
    assert seen
    handle.remove()
    seen.clear()
    fit(model)
    assert not seen


def test_a_hook_that_nothing_else_tells_of_is_noticed() -> None:
    """Dynamo guards on what a hook changes, and on a pure one not at all; it comes and goes all the same."""
    model = Classifier()
    handle = model.nn.register_forward_hook(lambda *call: 0 * call[2])
    compile(model, backend="eager")
    assert model(X).eq(0).all()
    handle.remove()
    assert model(X).ne(0).any()
    model.nn.register_forward_hook(lambda *call: 0 * call[2])
    assert model(X).eq(0).all()
    before = graphs()
    model(X)
    assert graphs() == before


def test_a_hook_elsewhere_compiles_nothing_anew() -> None:
    """Hooks of other modules do not concern an aggregate."""
    model = compile(Through(), backend="eager")
    fit(model)
    nn.Linear(1, 1).register_forward_hook(print)
    fit(model)
    assert graphs() == 1


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_hooks_are_run_by_code_that_follows_a_graph_break() -> None:
    """A hook on a module that is called after a break in its parent's forward runs as well."""

    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            _dynamo.graph_break()
            return self.second(x)

    model, seen = Classifier(), []
    model.nn = Broken()
    compile(model, backend="eager")
    train(model)
    model.nn.second.register_forward_hook(lambda *_: seen.append(1))
    train(model)
    assert len(seen) == 5


def test_hooks_of_optimizers_run_whenever_they_are_registered() -> None:
    """With `step=True`, hooks of an optimizer run as well, early and late, until they are removed."""
    model, seen = Classifier(), []
    early = model.optimizer.register_step_pre_hook(lambda *_: seen.append("early"))
    compile(model, backend="eager", step=True)
    model.fit(X, Y)
    early.remove()
    model.fit(X, Y)
    assert seen == ["early"]
    late = model.optimizer.register_step_post_hook(lambda *_: seen.append("late"))
    model.fit(X, Y)
    late.remove()
    model.fit(X, Y)
    assert seen == ["early", "late"]


def pickled(model: Any) -> Any:
    """Send an aggregate through pickle."""
    return pickle.loads(pickle.dumps(model))  # noqa: S301 - our own


def saved(model: Any) -> Any:
    """Send an aggregate through torch.save."""
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("step", [False, True])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled, saved])
def test_a_copy_is_eager_and_says_so(
    duplicate: Any, caplog: pytest.LogCaptureFixture, *, step: bool, used: bool
) -> None:
    """A copy of a compiled aggregate is a whole one, trains itself, is not compiled, and can be."""
    model = compile(Classifier(), backend="eager", step=step)
    if used:
        train(model)
    with caplog.at_level(logging.INFO, logger="torchsystem.compiler"):
        twin = duplicate(model)
    assert "a copy of a compiled Classifier is eager" in caplog.text
    weight, before = model.nn[0].weight.clone(), graphs()
    train(twin)
    assert graphs() == before
    assert torch.equal(model.nn[0].weight, weight)
    assert not torch.equal(twin.nn[0].weight, weight)
    train(compile(twin, backend="eager", step=step))
    assert graphs() > before
    assert model.fit(X, Y)[1].item() > 0


def test_a_shallow_copy_fits_itself() -> None:
    """`copy` shares the modules, and never the compiled methods, which are bound to the original."""
    model = compile(Classifier(), backend="eager", step=True)
    train(model)
    twin = copy.copy(model)
    twin.epoch += 1
    assert twin.fit.__self__ is twin
    assert twin.evaluate.__self__ is twin
    compile(twin, disable=True)
    assert "fit" in vars(model)


@pytest.mark.parametrize("step", [False, True])
def test_a_compiled_aggregate_is_kept_and_restored(*, step: bool) -> None:
    """A snapshot of a compiled aggregate fits an eager one and the other way round, and both go on alike."""
    compiled, eager = compile(Classifier(torch.optim.Adam), backend="eager", step=step), Classifier(torch.optim.Adam)
    train(compiled)
    eager.restore(compiled.snapshot())
    assert train(eager) == pytest.approx(train(compiled), rel=1e-4)
    compiled.restore(eager.snapshot())
    assert train(compiled) == pytest.approx(train(eager), rel=1e-4)


def test_an_aggregate_may_be_compiled_again() -> None:
    """Compiling anew takes the place of the former compilation; `disable=True` takes it away."""
    model = compile(Classifier(), backend="eager", step=True)
    train(model)
    step = compile(model, backend="aot_eager").optimizer.step
    assert step == torch.optim.SGD.step.__get__(model.optimizer)
    before = graphs()
    train(model)
    assert graphs() == before + 1
    compile(model, disable=True)
    plain = Classifier()
    plain.fit(X, Y)
    assert vars(model).keys() == vars(plain).keys()
    train(model)
    assert graphs() == before + 1


def test_a_module_that_was_compiled_by_hand_may_be_inside() -> None:
    """A wrapper of torch.compile around a module inside is no hindrance."""
    model, plain = Classifier(), Classifier()
    model.nn = torch.compile(model.nn, backend="eager")
    compile(model, backend="eager")
    assert train(model) == pytest.approx(train(plain), rel=1e-5)
    assert graphs() == 1


@pytest.mark.parametrize("step", [False, True])
def test_many_aggregates_of_a_class_can_be_compiled(*, step: bool) -> None:
    """Aggregates do not use up one another's recompilations: dynamo allows eight per function."""
    captured = []
    for _ in range(12):
        before = graphs()
        train(compile(Classifier(), backend="eager", step=step), 2)
        captured.append(graphs() - before)
    assert set(captured) == {captured[0]}
    assert captured[0] > 0


def test_a_wrapped_aggregate_is_refused() -> None:
    """What torch.compile makes of an aggregate is recognized, and the remedy named."""
    wrapper = torch.compile(Classifier(), backend="eager")
    with pytest.raises(WrappedAggregate, match="Classifier"):
        compile(wrapper)


def test_anything_else_is_given_to_torch() -> None:
    """Of a function, or of a module that is no aggregate, it is torch.compile."""

    @compile(backend="eager", fullgraph=True)
    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    assert torch.equal(double(X), 2 * X)
    assert graphs() == 1
    module = compile(nn.Linear(4, 2), backend="eager")
    assert list(module.state_dict()) == ["_orig_mod.weight", "_orig_mod.bias"]
    assert compile(backend="eager")(model := Classifier()) is model


@pytest.mark.parametrize("option", [{"step": True}, {"regional": True}, {"required": True}, {"cache": "folder"}])
def test_options_for_aggregates_are_for_aggregates(option: dict[str, Any]) -> None:
    """They are refused for anything else, which goes to torch.compile."""
    with pytest.raises(InvalidCompileOption, match=f"{next(iter(option))}=.*no aggregate"):
        compile(nn.Linear(2, 2), **option)


@pytest.mark.parametrize("options", [{"mod": "default"}, {"mode": "fastest"}, {"backend": "nonesuch"}])
def test_an_option_that_torch_does_not_know_is_refused_at_once(options: dict[str, str]) -> None:
    """An option is refused by torch itself, in `compile` and not at the first use."""
    model = Classifier()
    with pytest.raises(Exception, match=next(iter(options.values())) if "mod" not in options else "mod"):
        compile(model, **options)
    assert train(model)
    assert graphs() == 0


def test_what_yields_or_waits_is_no_mistake() -> None:
    """A call of a generator or of an async function runs nothing yet, so the first use is looked for elsewhere."""

    class Yielding(Classifier):
        def evaluate(self, batches: list[torch.Tensor]) -> Iterator[torch.Tensor]:  # type: ignore[override]
            for batch in batches:
                yield self.nn(batch)

    class Idle(Yielding):
        def fit(self, x: torch.Tensor, y: torch.Tensor) -> Any:
            return x, y

    model = compile(Yielding(), backend="eager")
    assert len(list(model.evaluate([X, X]))) == 2
    assert graphs() > 0
    with pytest.raises(NothingCaptured):
        compile(Idle(), backend="eager").fit(X, Y)


def test_step_without_steps_is_refused() -> None:
    """`step=True` is an error where there is neither a `fit` nor an optimizer, since it would do nothing."""
    model = Aggregate()
    model.nn = nn.Linear(2, 2)
    with pytest.raises(InvalidCompileOption, match="no optimizer inside"):
        compile(model, backend="eager", step=True)


@pytest.mark.parametrize("outer_first", [True, False])
@pytest.mark.parametrize("used_before", [True, False])
def test_an_aggregate_in_an_aggregate_may_be_compiled_too(outer_first: bool, used_before: bool) -> None:  # noqa: FBT001
    """Both may be compiled, in either order: whichever captures, it is no false alarm of the other."""

    class Outer(Aggregate):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Classifier()

        def fit(self, x: torch.Tensor, y: torch.Tensor) -> Any:
            return self.inner.fit(x, y)

    outer = Outer()
    for model in (outer, outer.inner) if outer_first else (outer.inner, outer):
        compile(model, backend="eager")
    if used_before:
        outer.inner.evaluate(X, Y)
    outer.fit(X, Y)
    assert graphs() > 0


def test_what_is_compiled_runs_compiled_while_another_thread_compiles() -> None:
    """That torch is compiling somewhere in the process makes nothing eager elsewhere."""
    ran, compiling, done = [], threading.Event(), threading.Event()

    def counting(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Any:
        return lambda *inputs: ran.append(1) or graph(*inputs)

    def waiting(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Any:
        compiling.set()
        assert done.wait(200)
        return graph.forward

    here, there = compile(Classifier(), backend=counting), compile(Classifier(), backend=waiting)
    here(X)
    ran.clear()
    with ThreadPoolExecutor(1) as pool:
        elsewhere = pool.submit(there, X)
        assert compiling.wait(200)
        try:
            here(X)
        finally:
            done.set()
        elsewhere.result()
    assert ran == [1]


def test_threads_may_share_the_first_use() -> None:
    """The first use may come from several threads at once: each captures, or waits for who does."""
    model = compile(Classifier(), backend="eager").eval()
    expected = Classifier().eval()(X).argmax(1)
    with ThreadPoolExecutor(4) as pool:
        for predictions, _ in pool.map(lambda _: model.evaluate(X, Y), range(8)):
            assert torch.equal(predictions, expected)
    assert graphs() > 0
