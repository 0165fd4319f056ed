"""What `Aggregate` promises, one rule per test."""

from __future__ import annotations

import io
import pickle
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pytest
import torch
from torch import nn

from torchsystem.domain import Aggregate
from torchsystem.errors import (
    InvalidEpoch,
    InvalidPhase,
    RepeatedIdentity,
    ShadowedAttribute,
    TorchSystemError,
    UnknownIdentity,
)


class Model(Aggregate):
    """A small aggregate that remembers which hooks ran, and what they saw."""

    def __init__(self, epoch: int | None = None) -> None:
        super().__init__()
        self.seen: list[object] = []
        self.nn = nn.Sequential(nn.Linear(2, 3), nn.Dropout(), nn.BatchNorm1d(3))
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.nn.parameters(), lr=0.1)
        if epoch is not None:
            self.epoch = epoch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predict."""
        return self.nn(x)

    def onphase(self) -> None:
        """Remember the phase, and the mode of all modules."""
        self.seen.append((self.phase, {module.training for module in self.modules()}))

    def onepoch(self) -> None:
        """Remember the epoch."""
        self.seen.append(self.epoch)


def test_an_aggregate_starts_in_train_at_epoch_zero_without_events() -> None:
    """A new aggregate can be read at once."""
    model = Model()
    assert (model.phase, model.training, model.epoch, list(model.events.queue)) == ("train", True, 0, [])
    assert model.seen == []


def test_the_phase_puts_every_module_into_its_mode() -> None:
    """Assigning a phase trains or evaluates all modules, before `onphase` runs."""
    model = Model()
    model.phase = "evaluation"
    model.phase = "train"
    assert model.seen == [("evaluation", {False}), ("train", {True})]


def test_the_phase_follows_train_and_eval() -> None:
    """`phase` and `training` are one fact, however it is changed, and `onphase` runs after any change of it."""
    model = Model()
    assert model.eval() is model
    assert (model.phase, model.training) == ("evaluation", False)
    assert model.train() is model
    assert (model.phase, model.training) == ("train", True)
    assert [phase for phase, _ in model.seen] == ["evaluation", "train"]
    model.training = False
    assert model.phase == "evaluation"


def test_the_phase_of_an_inner_aggregate_follows_the_outer_one() -> None:
    """An aggregate inside another module changes with it, and its hook runs."""
    inner = Model()
    nn.Sequential(inner).eval()
    assert inner.phase == "evaluation"
    assert len(inner.seen) == 1


def test_the_same_phase_is_no_change() -> None:
    """`onphase` runs when the phase changes, and not when it is assigned or set again."""
    model = Model()
    model.phase = "train"
    model.train()
    model.phase = "evaluation"
    model.phase = "evaluation"
    model.eval()
    assert len(model.seen) == 1


@pytest.mark.parametrize("phase", ["trian", "eval", "Train", "", None, True, 0])
def test_another_phase_is_refused(phase: object) -> None:
    """Anything but "train" and "evaluation" is an error that says so, and changes nothing."""
    model = Model()
    with pytest.raises(InvalidPhase, match="'train' or 'evaluation'") as caught:
        model.phase = phase
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TorchSystemError)
    assert (model.phase, model.seen) == ("train", [])


def test_the_epoch_runs_its_hook_after_a_change() -> None:
    """`onepoch` runs when the epoch was changed, and sees the new one."""
    model = Model(epoch=0)
    model.epoch += 1
    model.epoch = 1
    model.epoch = 5
    model.epoch = 4
    assert model.seen == [1, 5, 4]


def test_the_first_epoch_in_init_is_no_change() -> None:
    """A constructor may begin with any epoch."""
    model = Model(epoch=7)
    assert (model.epoch, model.seen) == (7, [])
    model.epoch += 1
    assert model.seen == [8]


def test_the_second_epoch_in_init_is_a_change() -> None:
    """Only the first assignment in the constructor begins; another one changes."""

    class Twice(Model):
        def __init__(self) -> None:
            super().__init__(epoch=0)
            self.epoch = 3

    assert Twice().seen == [3]


def test_the_first_epoch_after_init_is_a_change() -> None:
    """An aggregate whose constructor says nothing of epochs hears of the first one all the same."""
    model = Model()
    model.epoch += 1
    assert model.seen == [1]


def test_the_first_epoch_set_in_the_constructor_of_something_else_is_a_change() -> None:
    """What counts is the aggregate's own constructor, wherever on the stack, and no other."""

    class Session:
        def __init__(self, model: Model) -> None:
            model.epoch = 2

    class Resumed(Model):
        def __init__(self) -> None:
            super().__init__()
            self.begin()

        def begin(self) -> None:
            self.epoch = 2

    model = Model()
    Session(model)
    assert model.seen == [2]
    assert Resumed().seen == []


def test_an_epoch_before_super_init_is_kept() -> None:
    """The base constructor does not overwrite what was assigned before it ran."""

    class Early(Aggregate):
        def __init__(self) -> None:
            self.epoch = 3
            super().__init__()

    assert Early().epoch == 3


@pytest.mark.parametrize("epoch", [np.int64(3), torch.tensor(3), True])
def test_an_epoch_is_an_int(epoch: object) -> None:
    """What counts as a whole number becomes one, so that no tensor is changed in place behind the hook."""
    model = Model()
    model.epoch = epoch
    assert type(model.epoch) is int
    model.epoch += 1
    assert model.seen == [int(epoch), int(epoch) + 1]


@pytest.mark.parametrize("epoch", [1.0, "1", None, torch.zeros(2)])
def test_an_epoch_that_is_no_whole_number_is_refused(epoch: object) -> None:
    """Epochs are counted; anything else is an error that changes nothing."""
    model = Model()
    with pytest.raises(InvalidEpoch, match="whole number"):
        model.epoch = epoch
    assert (model.epoch, model.seen) == (0, [])


def test_a_failing_hook_is_heard() -> None:
    """What a hook raises reaches whoever changed the epoch, which stays changed."""

    class Stopping(Aggregate):
        def onepoch(self) -> None:
            self.events.enqueue(StopIteration("enough"))
            self.events.commit()

    model = Stopping()
    with pytest.raises(StopIteration, match="enough"):
        model.epoch += 1
    assert model.epoch == 1


@pytest.mark.parametrize("name", ["phase", "epoch", "training"])
def test_a_class_attribute_that_hides_a_watched_one_is_refused(name: str) -> None:
    """`epoch = 0` in the class would keep `onepoch` from ever running, also if a base that is no aggregate says it."""
    with pytest.raises(ShadowedAttribute, match=rf"self\.{name} = "):
        type("Hidden", (Aggregate,), {name: 0})
    with pytest.raises(ShadowedAttribute, match=rf"self\.{name} = "):
        type("Hidden", (type("Mixin", (), {name: 0}), Aggregate), {})


def test_protocols_may_be_bases() -> None:
    """An aggregate can say which protocols it implements: its class has no metaclass of its own."""

    @runtime_checkable
    class Trainable(Protocol):
        epoch: int
        phase: str

        def fit(self, x: torch.Tensor) -> torch.Tensor: ...

    class Trained(Model, Trainable):
        def fit(self, x: torch.Tensor) -> torch.Tensor:
            return self(x)

    model = Trained()
    model.epoch += 1
    assert isinstance(model, Trainable)
    assert model.seen == [1]


def test_a_dataclass_may_be_an_aggregate() -> None:
    """The constructor that a dataclass writes counts as the aggregate's own."""

    @dataclass(eq=False)
    class Begun(Aggregate):
        start: int

        def __post_init__(self) -> None:
            super().__init__()
            self.epoch = self.start

        def onepoch(self) -> None:
            raise AssertionError

    assert Begun(3).epoch == 3


def test_reading_the_id_before_it_is_given_is_an_error() -> None:
    """An aggregate without id says so, and how to give one."""
    model = Model()
    assert not model.is_initialized()
    with pytest.raises(UnknownIdentity, match="initialize"):
        _ = model.id


@pytest.mark.parametrize("identity", ["model", 7, 0, "", None, False, (1, 2)])
def test_an_id_is_given_once_and_any_value_counts(identity: object) -> None:
    """`initialize` gives the id, None and 0 included; a second time is refused and changes nothing."""
    model = Model()
    model.initialize(identity)
    assert model.is_initialized()
    assert model.id is identity
    with pytest.raises(RepeatedIdentity, match="already"):
        model.initialize("other")
    assert model.id is identity


def test_an_id_may_be_a_property() -> None:
    """A class may compute the id; giving it another one would be in vain, and is refused."""

    class Named(Model):
        @property
        def id(self) -> str:
            return f"{type(self.nn).__name__}-{self.epoch}"

    model = Named()
    assert model.is_initialized()
    assert model.id == "Sequential-0"
    with pytest.raises(RepeatedIdentity, match="property"):
        model.initialize("other")


def test_the_state_dict_holds_the_tensors_of_the_modules_alone() -> None:
    """Nothing of ours adds a key, nor keeps a state dict from being loaded."""
    model = Model()
    model.initialize("model")
    model.events.enqueue(StopIteration)
    model.epoch += 1
    assert list(model.state_dict()) == [f"nn.{key}" for key in model.nn.state_dict()]
    assert str(Model().load_state_dict(model.state_dict())) == "<All keys matched successfully>"


def test_to_moves_the_modules_and_returns_the_aggregate() -> None:
    """`to` is what it is for any module."""
    model = Model()
    assert model.to(torch.float64) is model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert model.to("meta").nn[0].weight.is_meta


def test_deepcopy_is_a_whole_independent_aggregate() -> None:
    """A deep copy has everything, shares no tensor and no event, and its optimizer has the copy's parameters."""
    model = Model()
    model.initialize("model")
    model.epoch = 3
    model.phase = "evaluation"
    model.events.enqueue(StopIteration)
    model.events.handlers[StopIteration] = model.onepoch
    twin = deepcopy(model)
    assert type(twin) is Model
    assert (twin.id, twin.epoch, twin.phase, twin.training) == ("model", 3, "evaluation", False)
    assert twin.optimizer.param_groups[0]["params"][0] is twin.nn[0].weight
    assert twin.nn[0].weight is not model.nn[0].weight
    twin.events.commit()
    twin.epoch = 4
    twin.phase = "train"
    assert twin.seen[-3:] == [3, 4, ("train", {True})]
    assert len(model.seen) == 2
    assert list(model.events.queue) == [StopIteration]


def test_handlers_that_are_methods_of_parts_follow_a_deepcopy() -> None:
    """A handler that is a method of what an aggregate holds is one of the copy's, whenever that was assigned."""

    class Recorder:
        def __init__(self) -> None:
            self.heard: list[str] = []

        def hear(self, event: str) -> None:
            self.heard.append(event)

    class Recorded(Aggregate):
        def __init__(self) -> None:
            super().__init__()
            self.recorder = Recorder()
            self.events.handlers[str] = self.recorder.hear

    recorded = Recorded()
    twin = deepcopy(recorded)
    twin.events.handle("only here")
    assert twin.recorder.heard == ["only here"]
    assert recorded.recorder.heard == []


def test_pickle_keeps_all_but_the_handlers() -> None:
    """A pickled aggregate comes back whole, without the wiring, which may be unpicklable."""
    model = Model()
    model.initialize("model")
    model.epoch = 3
    model.events.enqueue(StopIteration)
    model.events.handlers[StopIteration] = lambda: None
    twin = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own
    assert (twin.id, twin.epoch, twin.phase) == ("model", 3, "train")
    with pytest.raises(StopIteration):
        twin.events.commit()
    twin.epoch += 1
    assert twin.seen == [3, 4]


def test_torch_save_takes_an_aggregate() -> None:
    """`torch.save` of the whole object works, as for any module."""
    stream = io.BytesIO()
    torch.save(Model(epoch=2), stream)
    stream.seek(0)
    assert torch.load(stream, weights_only=False).epoch == 2


def test_a_shallow_copy_is_what_it_is_for_any_module() -> None:
    """`copy` gives a second aggregate over the same modules, with counters of its own."""
    model = Model(epoch=2)
    twin = copy(model)
    twin.epoch += 1
    assert (model.epoch, twin.epoch) == (2, 3)
    assert twin.nn is model.nn


def test_the_base_class_can_be_used_as_it_is() -> None:
    """The hooks of the base do nothing."""
    model = Aggregate()
    model.epoch += 1
    model.phase = "evaluation"
    assert (model.epoch, model.phase) == (1, "evaluation")
