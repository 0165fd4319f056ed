"""What the ready-made steps promise, one rule per test."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn, optim

from torchsystem.compiler import Compiler
from torchsystem.compiler.steps import freeze, load_weights, move_to
from torchsystem.domain import Aggregate
from torchsystem.errors import OrphanedOptimizer, UnmatchedPattern

if TYPE_CHECKING:
    from pathlib import Path


class Model(Aggregate):
    """A small aggregate."""

    def __init__(self, *, with_optimizer: bool = True) -> None:
        super().__init__()
        self.nn = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        if with_optimizer:
            self.optimizer = optim.Adam(self.nn.parameters())

    def fit(self) -> None:
        """Learn something."""
        self.nn(torch.ones(2, 2)).sum().backward()
        self.optimizer.step()


def pipeline(*steps: Any) -> Compiler[Any]:
    """Make a compiler that builds a model and does what is asked for."""
    compiler = Compiler[Any]()
    compiler.step(Model)
    for step in steps:
        compiler.step(step)
    return compiler


def interface() -> Any:  # noqa: D103 - an interface is an empty body
    ...


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Listen to what the compiler says."""
    caplog.set_level(logging.INFO, logger="torchsystem.compiler")
    return caplog


@pytest.mark.parametrize("device", ["meta", torch.device("meta")])
def test_move_to_moves_everything_and_says_so(device: Any, log: pytest.LogCaptureFixture) -> None:
    """Parameters and buffers are moved, to a device by name or by itself, and the log says what, and where to."""
    compiler = Compiler[Any]()
    compiler.step(lambda: Model(with_optimizer=False))
    compiler.step(move_to(device))
    model = compiler.compile()
    assert {tensor.device.type for tensor in [*model.parameters(), *model.buffers()]} == {"meta"}
    assert "moved Model (9 tensors, 0.0 MB) from cpu to meta" in log.text


def test_move_to_takes_the_optimizer_along() -> None:
    """What an optimizer has gathered is moved to where its parameters are, so that its next step works."""
    model = Model()
    model.fit()
    torch.__future__.set_swap_module_params_on_conversion(True)  # so that "meta" behaves as other devices do
    try:
        move_to("meta")(model)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    state = model.optimizer.state[model.nn[0].weight]
    assert state["exp_avg"].is_meta
    assert not state["step"].is_meta


def test_an_optimizer_that_a_move_leaves_behind_is_refused() -> None:
    """Where moving makes new parameters, an optimizer made before would go on with the old ones."""
    with pytest.raises(OrphanedOptimizer, match="optimizer has parameters that Model has not"):
        pipeline(move_to("meta")).compile()


def test_a_ready_made_step_takes_a_dependency() -> None:
    """Where to, or from where, may be an interface that somebody binds."""
    compiler = pipeline(move_to(interface))
    with compiler.override(interface, lambda: "meta"), pytest.raises(OrphanedOptimizer):
        compiler.compile()


def test_load_weights_takes_a_state_dict_or_a_file(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    """Weights come from a dictionary, a file or a dependency, into the model or a part of it, and the log says so."""
    model = Model()
    torch.save(model.nn.state_dict(), tmp_path / "nn.pt")
    for source, into in [(model.state_dict(), ""), (tmp_path / "nn.pt", "nn"), (str(tmp_path / "nn.pt"), "nn")]:
        loaded = pipeline(load_weights(source, into=into)).compile()
        assert torch.equal(loaded.nn[0].weight, model.nn[0].weight)
    assert "loaded 9 tensors from a state_dict into Model" in log.text
    assert f"loaded 9 tensors from {tmp_path / 'nn.pt'} into nn" in log.text
    compiler = pipeline(load_weights(interface))
    compiler.dependency_overrides[interface] = model.state_dict
    assert torch.equal(compiler.compile().nn[0].weight, model.nn[0].weight)


def test_load_weights_understands_names_of_compiled_modules() -> None:
    """The names that torch.compile's wrappers give are those of the modules."""
    model = Model()
    weights = {
        f"_orig_mod.{name}".replace("nn.", "nn._orig_mod."): tensor for name, tensor in model.state_dict().items()
    }
    assert torch.equal(pipeline(load_weights(weights)).compile().nn[0].weight, model.nn[0].weight)


def test_weights_that_do_not_fit_are_refused_by_name() -> None:
    """Missing and unexpected names, and other shapes, are an error that lists them and the step."""
    weights = Model().state_dict()
    weights["nn.0.weight"] = torch.zeros(1, 1)
    weights["other"] = weights.pop("nn.2.bias")
    with pytest.raises(RuntimeError) as caught:
        pipeline(load_weights(weights)).compile()
    assert all(name in str(caught.value) for name in ("nn.0.weight", "other", "nn.2.bias"))
    assert "2 of 2 of the compiler: load_weights" in caught.value.__notes__[0]


class Executed:
    """What nobody should have made by loading weights."""


def test_load_weights_runs_no_code(tmp_path: Path) -> None:
    """A file that holds more than weights is refused."""
    torch.save({"weight": Executed()}, tmp_path / "bad.pt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        pipeline(load_weights(tmp_path / "bad.pt")).compile()


def test_freeze_says_what_it_froze(log: pytest.LogCaptureFixture) -> None:
    """Parameters of the names are frozen, the others are not, and the log names them and their count."""
    model = pipeline(freeze("nn.0.*", "nn.2.bias")).compile()
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == [
        "nn.1.weight",
        "nn.1.bias",
        "nn.2.weight",
    ]
    assert "froze 9 parameters of Model: nn.0.weight, nn.0.bias" in log.text
    assert "froze 1 parameters of Model: nn.2.bias" in log.text


def test_a_pattern_that_fits_nothing_is_refused() -> None:
    """Freezing nothing would train what was to be kept."""
    with pytest.raises(UnmatchedPattern, match=r"nn\.encoder\.\*.*nn\.0\.weight"):
        pipeline(freeze("nn.encoder.*")).compile()


def test_what_stands_beside_the_model_is_handed_on() -> None:
    """A pipeline whose steps hand on more than the model may use them as well, by their names."""
    compiler = Compiler[Any]()
    compiler.step(lambda: (Model(), "loader", 3))
    for step in (move_to("cpu"), freeze("nn.0.*"), load_weights(Model().state_dict())):
        compiler.step(step)
    model, *others = compiler.compile()
    assert isinstance(model, Model)
    assert others == ["loader", 3]
    compiler.remove("freeze")
    compiler.step(before="load_weights")(move_to("cpu"))
    assert [step.__name__ for step in compiler.steps] == ["<lambda>", "move_to", "move_to", "load_weights"]


def test_freeze_refuses_to_freeze_nothing() -> None:
    """Without a pattern nothing would be frozen, which is refused where it is written."""
    with pytest.raises(UnmatchedPattern, match=r"freeze\('\*'\)"):
        freeze()


def test_a_shared_parameter_is_frozen_by_any_of_its_names() -> None:
    """A parameter that stands in two places has two names, and each of them fits."""
    model = nn.ModuleDict({"embedding": nn.Embedding(3, 2), "head": nn.Linear(2, 3, bias=False)})
    model["head"].weight = model["embedding"].weight
    freeze("head.weight")(model)
    assert not model["embedding"].weight.requires_grad


def test_steps_know_parameters_without_the_wrapper_of_torch_compile() -> None:
    """A network that `torch.compile` wraps inside an aggregate is loaded and frozen by the names it has without."""
    source, model = Model().state_dict(), Model()
    model.nn = torch.compile(model.nn, backend="eager")  # type: ignore[assignment]
    source = {name: torch.ones_like(tensor) for name, tensor in source.items()}
    load_weights(source)(model)
    freeze("nn.0.*")(model)
    assert all((parameter == 1).all() for parameter in model.parameters())
    assert [parameter.requires_grad for parameter in model.parameters()] == [False] * 2 + [True] * 4
