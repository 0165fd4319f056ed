"""What the options of `compile` do to an aggregate, one rule per test."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn, optim
from torch._dynamo.utils import counters

from torchsystem.compiler import compile  # noqa: A004 - named as torch names it
from torchsystem.compiler.optimizers import optimizers
from torchsystem.domain import Aggregate
from torchsystem.errors import InvalidCompileOption
from torchsystem.training import Optimization, Supervised

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# torch hides this warning itself, but not where warnings are errors, as they are in our tests.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")

X = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))


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


class Block(nn.Module):
    """What a deep network repeats."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index
        self.norm, self.linear = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add a little."""
        return x + self.linear(self.norm(x)) * (self.index + 1)


class Deep(Aggregate):
    """An aggregate over a deep network."""

    def __init__(self, depth: int = 6, optimizer: Any = optim.Adam) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.nn = nn.Sequential(nn.Linear(8, 8), *(Block(index) for index in range(depth)), nn.Linear(8, 2))
        self.optimizer = optimizer(self.nn.parameters(), lr=0.01)

    def fit(self, x: torch.Tensor) -> float:
        """Learn from a batch."""
        self.optimizer.zero_grad()
        loss = self.nn(x).square().mean()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def train(model: Deep, steps: int = 4) -> list[float]:
    """Fit a few times."""
    return [model.fit(X) for _ in range(steps)]


def test_regional_compiles_repeated_blocks_once() -> None:
    """With `regional=True`, all blocks of a class share what is compiled, however many they are."""
    model = compile(Deep(), backend="eager", regional=True)
    assert train(model) == pytest.approx(train(Deep()), rel=1e-5)
    few = graphs()
    torch.compiler.reset()
    counters.clear()
    train(compile(Deep(depth=12), backend="eager", regional=True))
    assert graphs() == few <= 3


def test_regional_leaves_containers_alone() -> None:
    """A container is no block, be there several of them: what it contains may differ."""
    model = Deep()
    model.nn = nn.Sequential(nn.Sequential(*model.nn[:4]), nn.Sequential(*model.nn[4:]))
    compile(model, backend="eager", regional=True)
    train(model)
    whole = graphs()
    torch.compiler.reset()
    counters.clear()
    train(compile(Deep(), backend="eager", regional=True))
    assert graphs() == whole


def test_regional_needs_something_repeated() -> None:
    """Where no kind of block is repeated, `regional=True` would compile nothing, and is refused."""
    for depth in (0, 1):
        with pytest.raises(InvalidCompileOption, match=r"compile\(Deep, regional=True\)"):
            compile(Deep(depth=depth), backend="eager", regional=True)


def test_regional_goes_with_an_aggregate_that_is_only_called() -> None:
    """An aggregate without `fit` and `evaluate` is called, and its blocks are compiled."""

    class Called(Aggregate):
        def __init__(self) -> None:
            super().__init__()
            self.nn = Deep().nn

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.nn(x)

    model, plain = compile(Called(), backend="eager", regional=True), Called()
    torch.testing.assert_close(model(X), plain(X))
    torch.testing.assert_close(model(X), plain(X))
    assert graphs() > 0


def test_a_regional_copy_is_eager() -> None:
    """What is put into the blocks belongs to them alone."""
    model = compile(Deep(), backend="eager", regional=True)
    train(model)
    before = graphs()
    train(compile(model, disable=True))
    assert graphs() == before


@pytest.mark.parametrize("optimizer", [optim.SGD, optim.RMSprop, optim.Adadelta, optim.Adam, optim.AdamW])
def test_a_schedule_does_not_compile_for_each_rate(optimizer: Any) -> None:
    """With `step=True`, a learning rate that changes at every step is no new graph each time."""
    eager, compiled = Deep(1, optimizer), compile(Deep(1, optimizer), backend="aot_eager", step=True)
    schedules = [optim.lr_scheduler.ExponentialLR(model.optimizer, 0.9) for model in (eager, compiled)]
    losses: list[list[float]] = [[], []]
    for _ in range(4):
        for model, schedule, seen in zip((eager, compiled), schedules, losses, strict=True):
            seen.append(model.fit(X))
            schedule.step()
    before = graphs()
    for _ in range(8):
        for model, schedule, seen in zip((eager, compiled), schedules, losses, strict=True):
            seen.append(model.fit(X))
            schedule.step()
    assert graphs() == before
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert compiled.optimizer.param_groups[0]["lr"] == eager.optimizer.param_groups[0]["lr"]
    assert type(compiled.optimizer.param_groups[0]["lr"]) is float


def test_each_aggregate_keeps_what_compiling_it_makes(tmp_path: Path) -> None:
    """Torch has one place for a process; it is told before each compilation, so that runs keep theirs apart."""
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    try:
        first = compile(Deep(1), backend="eager", cache=tmp_path / "first")
        compile(Deep(1), backend="eager", cache=tmp_path / "second")
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "second")
        first.fit(X)
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "first")
    finally:
        os.environ.pop("TORCHINDUCTOR_CACHE_DIR")
        if before is not None:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = before


PROGRAM = """
import logging, sys, time, warnings
warnings.simplefilter("ignore")
import torch
from torch import nn
from torchsystem import Aggregate
from torchsystem.compiler import compile
from torchsystem.errors import MissingCompiler

logging.basicConfig(format="%(levelname)s %(name)s %(message)s", stream=sys.stdout)

class Classifier(Aggregate):
    def __init__(self):
        super().__init__()
        self.nn = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))

    def fit(self, x):
        loss = self.nn(x).square().mean()
        loss.backward()
        return loss

"""


def run(program: str, **environment: str) -> str:
    """Run a program in a process of its own, and return what it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(  # noqa: S603 - our own
        [sys.executable, "-c", PROGRAM + program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_cpp_compiler_that_is_said_once_and_everything_runs_eagerly() -> None:
    """A missing compiler is a warning, once in a process; with `required=True` it is an error."""
    output = run(
        """
for _ in range(2):
    classifier = compile(Classifier(), mode="default")
    classifier.fit(torch.zeros(1, 16))
try:
    compile(Classifier(), required=True)
except MissingCompiler as error:
    print("refused:", error)
compile(Classifier(), backend="eager", required=True).fit(torch.zeros(1, 16))
print("graphs", torch._dynamo.utils.counters["stats"]["unique_graphs"])
""",
        CXX="no-such-compiler",
    )
    assert output.count("WARNING torchsystem.compiler there is no C++ compiler") == 1
    assert "refused: there is no C++ compiler" in output
    assert "graphs 1" in output


def test_the_next_process_finds_what_was_compiled(tmp_path: Path) -> None:
    """With `cache`, what compiling makes is kept in the folder, and the next process makes nothing of it again."""
    program = f"""
classifier = compile(Classifier(), cache={str(tmp_path / "cache")!r})
classifier.fit(torch.zeros(3, 16))
inductor = torch._dynamo.utils.counters["inductor"]
print(inductor["fxgraph_cache_miss"], inductor["fxgraph_cache_hit"])
"""
    first, second = (run(program, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "other")).split() for _ in range(2))
    assert (tmp_path / "cache").is_dir()
    assert not (tmp_path / "other").exists()
    assert first == ["2", "0"]  # forward and backward
    assert second == ["0", "2"]


def test_optimizers_inside_of_an_optimization_are_found() -> None:
    """What says of what parts it is made is looked into, under the names of its parts."""
    network = nn.Linear(2, 2)
    inside, beside = optim.SGD(network.parameters(), lr=0.1), optim.SGD(network.parameters(), lr=0.1)
    model = Supervised(network, nn.MSELoss(), Optimization(inside))
    model.others = {"beside": [beside]}
    assert dict(optimizers(model)) == {"optimization.optimizers.optimizer": inside, "others.beside.0": beside}
