"""Checkpoints: what is saved when, and that the same lines, run again, go on where they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.resuming import Net, data_loaders, equal
from torchsystem.adapters.checkpoints import Checkpoints
from torchsystem.errors import InvalidOption, InvalidRetention, NonFiniteLoss, NonFiniteState
from torchsystem.services import Consumer, background, deferred
from torchsystem.storage import BegunAnew, Repository, Retention
from torchsystem.training import EarlyStopping, Training, accuracy, device, metrics, seed
from torchsystem.training.events import BatchEnded, EpochEnded
from torchsystem.triggers import every


class Stopped(Exception):
    """A process that ended here."""


def start(folder: Path, *, die_after: int | None = None, model: Net | None = None, **options: Any) -> tuple[Net, Any]:
    """Run the lines of a program: build, restore, fit; die after some batches, if so wanted."""
    budget = {"epochs": options.pop("epochs", 3)}
    seed(1)
    training = Training()
    training.override(device, lambda: "cpu")
    training.override(metrics, lambda: {"accuracy": accuracy})
    with Repository(folder) as repository:
        training.producer.register(
            Checkpoints(repository, **options), EarlyStopping("validation/loss", "min", patience=2)
        )
        if die_after is not None:
            training.producer.register(dying(die_after))
        model = Net() if model is None else model
        model = repository.restore(model)
        return model, training.handle("fit", model, data_loaders(noisy=True)(), **budget)


def dying(after: int) -> Consumer:
    """Make a listener that ends the process in the middle of things."""
    consumer = Consumer()

    @consumer.handler
    def die(event: BatchEnded) -> None:
        if event.progress.batch == after:
            raise KeyboardInterrupt

    return consumer


@pytest.mark.parametrize("die_after", [1, 6, 7, 11])
def test_the_same_lines_again_go_on_where_they_were(tmp_path: Path, die_after: int) -> None:
    """Killed after some batch, and again after some more: state and history are those of a run left alone."""
    whole, history = start(tmp_path / "whole", every=every(2, "batches"))
    for more in (0, 3):
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "cut", every=every(2, "batches"), die_after=die_after + more)
    again, continued = start(tmp_path / "cut", every=every(2, "batches"))
    assert equal(again.snapshot(), whole.snapshot())
    assert continued == history


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    """Run again, the lines change nothing: not the model, not the history, and no checkpoint is added."""
    first, history = start(tmp_path)
    with Repository(tmp_path) as repository:
        before = repository.checkpoints(first)
    again, same = start(tmp_path)
    with Repository(tmp_path) as repository:
        assert repository.checkpoints(first) == before
    assert equal(first.snapshot(), again.snapshot())
    assert same == history


def test_who_forgets_to_restore_is_told(tmp_path: Path) -> None:
    """The training begins anew, and its checkpoints would replace the others in silence."""
    start(tmp_path)
    with Repository(tmp_path) as repository:
        training = Training()
        training.override(device, lambda: "cpu")
        training.producer.register(Checkpoints(repository))
        with pytest.warns(BegunAnew, match=r"checkpoint \d of .* is from an earlier training.*repository\.restore"):
            training.handle("fit", Net(), data_loaders()(), epochs=1)


def test_epochs_are_saved_with_their_own_metrics(tmp_path: Path) -> None:
    """By default one per epoch, the last three; each has the metrics of the epoch it came out of."""
    model, history = start(tmp_path, epochs=5)
    with Repository(tmp_path) as repository:
        kept = repository.checkpoints(model)
    assert [checkpoint.progress.epoch for checkpoint in kept] == [len(history) - 2, len(history) - 1, len(history)]
    assert [dict(checkpoint.metrics) for checkpoint in kept] == history[-3:]


def test_the_best_is_kept_besides(tmp_path: Path) -> None:
    """With the metric of its own epoch, also where a trigger saves in between."""
    options = {"keep_last": 1, "keep_best": ("train/loss", "max"), "every": every(4, "batches")}
    model, history = start(tmp_path, epochs=4, **options)
    with Repository(tmp_path) as repository:
        kept = repository.checkpoints(model)
    worst = max(range(len(history)), key=lambda number: history[number]["train/loss"])
    assert kept[0].metrics == history[worst]
    assert kept[0].progress.epoch == worst + 1
    assert len(kept) == 2


class Breaking(Net):
    """A network that breaks in some batch."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def fit(self, inputs: torch.Tensor, targets: torch.Tensor) -> Any:
        predictions, loss = super().fit(inputs, targets)
        if self.progress.batch + 1 and self.optimization.steps == 2:
            if self.kind == "loss":
                loss = loss * float("nan")
            else:
                with torch.no_grad():
                    self.nn[0].weight[0, 0] = float("inf")
        return predictions, loss.detach()

    def evaluate(self, inputs: torch.Tensor, targets: torch.Tensor) -> Any:  # noqa: ARG002 - all are right
        return torch.zeros(len(inputs)).long(), torch.tensor(0.0)


@pytest.mark.parametrize(("kind", "error"), [("loss", NonFiniteLoss), ("weights", NonFiniteState)])
def test_what_is_not_finite_is_never_saved(tmp_path: Path, kind: str, error: type[Exception]) -> None:
    """The run ends with a named error, and the newest checkpoint is one from before."""
    with pytest.raises((error, NonFiniteLoss)):
        start(tmp_path, model=Breaking(kind), every=every(1, "batches"))
    with Repository(tmp_path) as repository:
        restored = repository.restore(Breaking(kind))
        assert repository.checkpoints(restored)
    assert 0 < restored.progress.batch < 6
    assert all(parameter.isfinite().all() for parameter in restored.parameters())


def test_a_trigger_of_epochs_does_not_ask_for_batches(tmp_path: Path) -> None:
    """What nobody hears is not built: with epochs alone, batches cost nothing."""
    with Repository(tmp_path) as repository:
        training = Training()
        training.producer.register(Checkpoints(repository, every=every(2, "epochs")))
        assert not training.producer.wants(BatchEnded)
        assert training.producer.wants(EpochEnded)
        training.producer.register(Checkpoints(repository, every=every(2, "epochs") | every(9, "steps"), name="more"))
        assert training.producer.wants(BatchEnded)


def test_a_run_that_failed_does_not_keep_the_next_one_from_being_saved(tmp_path: Path) -> None:
    """A batch was to be saved, and another listener failed at it: what was wanted is nobody's any more."""
    model, failing = Net(), Consumer()
    left = [OSError("no network")]

    @failing.handler
    def fail(event: BatchEnded) -> None:
        if left:
            raise left.pop()

    training = Training()
    training.override(device, lambda: "cpu")
    with Repository(tmp_path) as repository:
        training.producer.register(Checkpoints(repository, every=every(1, "batches"), keep_last=None), failing)
        with pytest.raises(ExceptionGroup):
            training.handle("fit", model, data_loaders()(), epochs=1)
        training.handle("fit", model, data_loaders()(), epochs=1)
        assert len(repository.checkpoints(model)) >= 6


def test_one_split_alone_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    """`validate`, `train` and `predict` save nothing: there is no run to continue."""
    model, loaders = Net(), data_loaders()()
    with Repository(tmp_path) as repository:
        training = Training()
        training.override(device, lambda: "cpu")
        training.producer.register(Checkpoints(repository, every=every(1, "batches")))
        training.handle("train", model, loaders["train"])
        training.handle("validate", model, loaders["validation"])
        training.handle("predict", model, loaders["validation"])
        assert repository.checkpoints(model) == []


def test_the_end_of_a_training_is_durable(tmp_path: Path) -> None:
    """When `fit` returns, the last checkpoint is there: nobody has to close anything."""
    repository = Repository(tmp_path)
    training = Training()
    training.override(device, lambda: "cpu")
    training.producer.register(Checkpoints(repository, every=every(100, "epochs")))
    model = Net()
    training.handle("fit", model, data_loaders()(), epochs=1)
    assert [each.progress.epoch for each in Repository(tmp_path).checkpoints(model)] == [1]
    repository.close()


@pytest.mark.parametrize("delivery", [deferred, background])
def test_it_is_delivered_to_inline_alone(tmp_path: Path, delivery: Any) -> None:
    """Later, or by another thread, the run would be elsewhere: nothing would be saved, and nobody would notice."""
    training = Training()
    with Repository(tmp_path) as repository, pytest.raises(InvalidOption, match="without `delivery=`"):
        training.producer.register(Checkpoints(repository), delivery=delivery)


def test_what_has_no_meaning_is_refused(tmp_path: Path) -> None:
    """When it is constructed, not when it would save."""
    with Repository(tmp_path) as repository:
        with pytest.raises(InvalidOption, match="write a trigger"):
            Checkpoints(repository, every=50)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="write a repository"):
            Checkpoints("runs")  # type: ignore[arg-type]
        with pytest.raises(InvalidRetention):
            Checkpoints(repository, keep_last=0)


def test_a_rule_of_the_repository_is_not_passed_over(tmp_path: Path) -> None:
    """What one would keep and the other remove is said before anything is gone; the same rule twice is fine."""
    repository = Repository(tmp_path, retention=Retention(keep_last=10))
    with pytest.raises(InvalidOption, match="Say it in one place"):
        Checkpoints(repository)
    assert Checkpoints(repository, keep_last=10).retention == repository.retention
    assert Checkpoints(Repository(tmp_path)).retention == Retention(keep_last=3)
