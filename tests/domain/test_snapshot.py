"""What `snapshot` and `restore` promise, one rule per test."""

from __future__ import annotations

import inspect
import io
import json
from collections import Counter, OrderedDict, defaultdict
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, optim
from torch.optim import lr_scheduler

from torchsystem.domain import Aggregate
from torchsystem.domain.plain import like, plain
from torchsystem.errors import SnapshotMismatch, UnkeepableValue, UnknownSnapshot, UnownedParameter
from torchsystem.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

X, Y = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 1, 2])


def adam(parameters: Iterator[nn.Parameter]) -> optim.Optimizer:
    """Make the optimizer of most tests."""
    return optim.Adam(parameters, lr=0.01)


class Classifier(Aggregate):
    """An aggregate as users write it."""

    def __init__(self, *, seed: int = 0, classes: int = 3, optimizer: Any = adam, scheduler: Any = None) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.heard: list[object] = []
        self.nn = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, classes))
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = optimizer(self.nn.parameters())
        if scheduler is not None:
            self.scheduler = scheduler(self.optimizer)

    def fit(self, x: torch.Tensor = X, y: torch.Tensor = Y) -> float:
        """Learn from a batch."""

        def closure() -> torch.Tensor:
            self.optimizer.zero_grad()
            loss = self.criterion(self.nn(x), y)
            loss.backward()
            return loss

        loss = self.optimizer.step(closure)
        if hasattr(self, "scheduler"):
            self.scheduler.step(*[loss] * isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau))
        return loss.item()

    def onepoch(self) -> None:
        """Remember that the epoch has changed."""
        self.heard.append(self.epoch)

    def onphase(self) -> None:
        """Remember that the phase has changed."""
        self.heard.append(self.phase)


def trained(model: Classifier, steps: int = 3) -> Classifier:
    """Fit a few times."""
    for _ in range(steps):
        model.fit()
    return model


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Walk over what a snapshot holds."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(part, f"{name}.{key}")
    else:
        yield name, value


def same(one: Any, other: Any) -> bool:
    """Compare two snapshots, bit by bit."""
    pairs = list(zip(leaves(one), leaves(other), strict=True))
    return all(
        left == right and (torch.equal(mine, theirs) if isinstance(mine, torch.Tensor) else mine == theirs)
        for (left, mine), (right, theirs) in pairs
    )


def made(base: type, **options: Any) -> Any:
    """Make a function that makes an object of a class."""
    return lambda first: base(first, **options)


OPTIMIZERS = [made(optim.SGD, lr=0.1, momentum=0.9), made(optim.LBFGS, lr=0.1, max_iter=3)] + [
    made(value)
    for name, value in vars(optim).items()
    if inspect.isclass(value) and name not in {"Optimizer", "SGD", "LBFGS", "SparseAdam", "Muon"}
]
SCHEDULERS = [
    made(lr_scheduler.StepLR, step_size=2),
    made(lr_scheduler.MultiStepLR, milestones=[2, 4, 4]),
    made(lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 0.9**epoch),
    made(lr_scheduler.ConstantLR),
    made(lr_scheduler.LinearLR),
    made(lr_scheduler.ExponentialLR, gamma=0.9),
    made(lr_scheduler.PolynomialLR),
    made(lr_scheduler.CosineAnnealingLR, T_max=5),
    made(lr_scheduler.CosineAnnealingWarmRestarts, T_0=2),
    made(lr_scheduler.CyclicLR, base_lr=0.01, max_lr=0.1, cycle_momentum=False),
    made(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=20),
    made(lr_scheduler.ReduceLROnPlateau, patience=0),
    lambda optimizer: lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.ConstantLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)], milestones=[2]
    ),
    lambda optimizer: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)]
    ),
]


def goes_on_as_before(make: Any) -> None:
    """Interrupt a training, go on in a new object, and compare with one that was not interrupted."""
    model = trained(make(seed=0))
    model.epoch = 2
    snapshot = model.snapshot()
    resumed = make(seed=1)
    assert resumed.restore(snapshot) is resumed
    assert same(resumed.snapshot(), snapshot)
    assert [resumed.fit() for _ in range(4)] == [model.fit() for _ in range(4)]
    assert same(resumed.snapshot(), model.snapshot())


@pytest.mark.parametrize(
    "optimizer", OPTIMIZERS, ids=lambda make: type(make([torch.zeros(1, requires_grad=True)])).__name__
)
def test_a_restored_training_goes_on_as_if_nothing_had_happened(optimizer: Any) -> None:
    """Bit for bit, with every optimizer of torch."""
    goes_on_as_before(lambda seed: Classifier(seed=seed, optimizer=optimizer))


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("scheduler", range(len(SCHEDULERS)))
def test_schedulers_go_on_as_well(scheduler: int) -> None:
    """Bit for bit, with every scheduler of torch."""
    sgd = made(optim.SGD, lr=0.1, momentum=0.9)
    goes_on_as_before(lambda seed: Classifier(seed=seed, optimizer=sgd, scheduler=SCHEDULERS[scheduler]))


def test_a_snapshot_is_a_copy() -> None:
    """Neither the aggregate it was taken of, nor one that it was restored into, changes it any more."""
    model = trained(Classifier())
    snapshot = model.snapshot()
    before = deepcopy(snapshot)
    trained(model)
    trained(Classifier(seed=1).restore(snapshot))
    assert same(snapshot, before)


def test_a_snapshot_holds_tensors_and_plain_values_alone() -> None:
    """Beside tensors it is JSON, and torch loads it without running anybody's code."""
    model = trained(Classifier(scheduler=made(lr_scheduler.MultiStepLR, milestones=[2])))
    snapshot = model.snapshot()
    text = json.dumps(
        snapshot, default=lambda value: f"tensor {tuple(value.shape)}" if type(value) is torch.Tensor else 1 / 0
    )
    assert "nn.0.weight" in text
    stream = io.BytesIO()
    torch.save(snapshot, stream)
    stream.seek(0)
    assert same(torch.load(stream, weights_only=True), snapshot)
    assert not any(value.requires_grad for _, value in leaves(snapshot) if isinstance(value, torch.Tensor))


def test_a_snapshot_survives_json() -> None:
    """Numbers as keys, tuples and the like come back from JSON as what they were."""
    model = trained(Classifier(scheduler=made(lr_scheduler.MultiStepLR, milestones=[2, 40, 40])))
    snapshot = model.snapshot()
    snapshot["parts"]["scheduler"] = json.loads(json.dumps(snapshot["parts"]["scheduler"]))
    resumed = Classifier(seed=1, scheduler=made(lr_scheduler.MultiStepLR, milestones=[1])).restore(snapshot)
    assert resumed.scheduler.milestones == Counter({2: 1, 40: 2})
    assert type(resumed.scheduler.milestones) is Counter
    assert resumed.optimizer.param_groups[0]["betas"] == (0.9, 0.999)


def test_restoring_fires_no_hook() -> None:
    """Epoch and phase are as they were, and nobody hears of a change, for there was none; later ones are heard."""
    model = Classifier()
    model.epoch = 7
    model.phase = "evaluation"
    resumed = Classifier().restore(model.snapshot())
    assert (resumed.epoch, resumed.phase, resumed.training, resumed.nn[1].training) == (7, "evaluation", False, False)
    assert resumed.heard == []
    resumed.epoch += 1
    resumed.phase = "train"
    assert resumed.heard == [8, "train"]


def test_restoring_the_same_phase_leaves_modes_alone() -> None:
    """A module that is kept in evaluation by hand stays there if the phase does not change."""
    model = Classifier()
    model.nn[1].eval()
    assert not model.restore(Classifier().snapshot()).nn[1].training


def test_restoring_is_in_place() -> None:
    """Parameters and parts stay the same objects, so that whoever holds them sees the restored state."""
    model, resumed = trained(Classifier()), Classifier(seed=1)
    before = [*resumed.parameters(), resumed.optimizer]
    resumed.restore(model.snapshot())
    assert all(one is other for one, other in zip([*resumed.parameters(), resumed.optimizer], before, strict=True))
    assert torch.equal(resumed.nn[0].weight, model.nn[0].weight)


def test_the_state_of_an_optimizer_goes_by_name() -> None:
    """An optimizer that was given the same parameters in another order takes the state of each by its name."""
    resumed = Classifier(seed=1, optimizer=lambda parameters: adam(reversed(list(parameters))))
    model = trained(Classifier())
    resumed.restore(model.snapshot())
    assert torch.equal(
        resumed.optimizer.state[resumed.nn[0].weight]["exp_avg"], model.optimizer.state[model.nn[0].weight]["exp_avg"]
    )
    assert set(model.snapshot()["parts"]["optimizer"]["state"]) == {
        f"nn.{name}" for name, _ in model.nn.named_parameters()
    }


def test_groups_keep_their_options() -> None:
    """Options of each group come back, tuples as tuples, rates as tensors where they are."""

    def grouped(parameters: Iterator[nn.Parameter]) -> optim.Optimizer:
        first, *others = parameters
        return optim.Adam([{"params": [first], "lr": 0.5}, {"params": others, "betas": (0.5, 0.6)}], lr=0.1)

    model = trained(Classifier(optimizer=grouped))
    model.optimizer.param_groups[0]["lr"] = torch.tensor(0.25)
    groups = Classifier(seed=1, optimizer=grouped).restore(model.snapshot()).optimizer.param_groups
    assert [group["betas"] for group in groups] == [(0.9, 0.999), (0.5, 0.6)]
    assert torch.equal(groups[0]["lr"], torch.tensor(0.25))
    assert groups[1]["lr"] == 0.1


def test_several_optimizers_over_shared_parameters() -> None:
    """Each optimizer keeps its own state of a parameter that both have; parameters tied to one another are one."""

    class Twofold(Classifier):
        def __init__(self, seed: int = 0) -> None:
            super().__init__(seed=seed)
            self.nn.append(nn.Linear(3, 3))
            self.nn.append(nn.Linear(3, 3))
            self.nn[4].weight = self.nn[3].weight
            self.optimizer = optim.Adam(self.nn.parameters(), lr=0.01)
            self.other = optim.SGD(self.nn[2:].parameters(), lr=0.1, momentum=0.9)

        def fit(self) -> float:
            loss = super().fit()
            self.other.step()
            return loss

    goes_on_as_before(Twofold)
    groups = Twofold().snapshot()["parts"]["optimizer"]["param_groups"]
    assert groups[0]["params"][-4:] == ["nn.2.bias", "nn.3.weight", "nn.3.bias", "nn.4.bias"]


def test_an_optimizer_may_have_a_state_beside_that_of_parameters() -> None:
    """What an optimizer of the user's own keeps under names of its own comes back, too."""

    class Counting(optim.SGD):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, lr=0.1)
            self.steps = 0

        def step(self, closure: Any = None) -> Any:
            self.steps += 1
            self.state["shared"]["largest"] = torch.tensor(float(self.steps))
            return super().step(closure)

        def state_dict(self) -> Any:
            return {**super().state_dict(), "steps": self.steps}

        def load_state_dict(self, state: Any) -> None:
            self.steps = state["steps"]
            super().load_state_dict(state)

    model = trained(Classifier(optimizer=Counting))
    resumed = Classifier(seed=1, optimizer=Counting).restore(model.snapshot())
    assert resumed.optimizer.steps == 3
    assert resumed.optimizer.state["shared"]["largest"] == 3


class Whole(Classifier):
    """An aggregate with all sorts of parts."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.progress = Progress(batch=seed)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0 ** (seed + 1))
        self.schedulers = {"main": lr_scheduler.StepLR(self.optimizer, 2), "names": ["a"]}
        self.heads = [nn.Linear(3, 2)]  # in a list, of which torch knows nothing
        self.teacher = Classifier(seed=seed + 10)
        self.alias = self.optimizer
        self.circle: list[object] = []
        self.circle.append(self.circle)


def test_everything_with_a_state_is_in_it() -> None:
    """Optimizers, schedulers, scalers, progress, inner aggregates, in attributes, lists and dictionaries, once each."""
    model, resumed = Whole(0), Whole(5)
    model.progress = Progress(epoch=1, batch=20, elapsed=3.5)
    model.teacher.epoch = 4
    model.teacher.phase = "evaluation"
    trained(model.teacher)
    snapshot = model.snapshot()
    assert set(snapshot["parts"]) == {
        "optimizer", "scaler", "schedulers.main", "heads.0", "progress", "teacher.progress", "teacher.optimizer",
    }  # fmt: skip
    resumed.restore(snapshot)
    assert same(resumed.snapshot(), snapshot)
    assert resumed.progress == Progress(epoch=1, batch=20, elapsed=3.5)
    assert resumed.scaler.get_scale() == 2.0
    assert torch.equal(resumed.heads[0].weight, model.heads[0].weight)
    assert (resumed.teacher.epoch, resumed.teacher.phase, resumed.phase) == (4, "evaluation", "train")
    assert resumed.teacher.heard == []


def test_what_does_not_fit_is_listed_by_name_and_nothing_changes() -> None:
    """Missing, unexpected and mis-shaped parts are named, in the message and on the error; nothing was restored."""
    model = trained(Classifier(scheduler=made(lr_scheduler.StepLR, step_size=2)))
    model.old = nn.Linear(1, 1)
    other = trained(Classifier(seed=1, classes=5))
    other.new = nn.Linear(1, 1)
    other.optimizer.add_param_group({"params": other.new.parameters()})
    before = other.snapshot()
    with pytest.raises(SnapshotMismatch) as caught:
        other.restore(model.snapshot())
    error = caught.value
    assert isinstance(error, ValueError)
    assert error.missing == ["new.weight", "new.bias", "optimizer.new.weight", "optimizer.new.bias"]
    assert error.unexpected == ["old.weight", "old.bias", "scheduler", "optimizer.param_groups.0.initial_lr"]
    assert error.different == {
        "nn.2.weight": "(3, 8), where (5, 8) is wanted",
        "nn.2.bias": "(3,), where (5,) is wanted",
    }
    assert all(name in str(error) for name in (*error.missing, *error.unexpected, *error.different))
    assert "accept=['new.weight']" in str(error)
    assert same(other.snapshot(), before)


def test_what_may_differ_is_accepted_by_name() -> None:
    """Patterns say what may differ; that stays as it is, its state in the optimizer too, and all else is restored."""
    model, other = trained(Classifier()), trained(Classifier(seed=1, classes=5), 1)
    head = other.nn[2].weight.clone()
    moments = other.optimizer.state[other.nn[2].weight]["exp_avg"].clone()
    other.restore(model.snapshot(), accept=["nn.2.*"])
    assert torch.equal(other.nn[2].weight, head)
    assert torch.equal(other.optimizer.state[other.nn[2].weight]["exp_avg"], moments)
    assert torch.equal(other.nn[0].weight, model.nn[0].weight)
    assert other.optimizer.state[other.nn[0].weight]["step"] == 3
    other.fit()
    with pytest.raises(SnapshotMismatch):
        other.restore(model.snapshot(), accept="nn.2.weight")


def test_missing_and_unexpected_parts_may_be_accepted() -> None:
    """A part that only one of the two has is left out by its name."""
    scheduled = trained(Classifier(scheduler=made(lr_scheduler.StepLR, step_size=2)))
    plain_one = trained(Classifier(seed=1), 1)
    accept = ["scheduler", "optimizer.param_groups.*.initial_lr"]
    plain_one.restore(scheduled.snapshot(), accept=accept)
    assert "initial_lr" not in plain_one.optimizer.param_groups[0]
    scheduled.restore(trained(Classifier(seed=2), 1).snapshot(), accept=accept)
    assert scheduled.scheduler.last_epoch == 3
    assert scheduled.optimizer.param_groups[0]["initial_lr"] == 0.01
    assert scheduled.fit() > 0


def test_another_optimizer_is_refused() -> None:
    """The options of one kind of optimizer do not fit another kind."""
    model = trained(Classifier())
    with pytest.raises(SnapshotMismatch, match=r"optimizer\.param_groups\.0\.betas"):
        Classifier(optimizer=made(optim.SGD, lr=0.1)).restore(model.snapshot())


def test_a_parameter_in_another_group_is_refused() -> None:
    """Groups are compared by the names of their parameters."""

    def grouped(parameters: Iterator[nn.Parameter]) -> optim.Optimizer:
        first, *others = parameters
        return optim.Adam([{"params": [first]}, {"params": others}])

    def otherwise(parameters: Iterator[nn.Parameter]) -> optim.Optimizer:
        first, second, *others = parameters
        return optim.Adam([{"params": [first, second]}, {"params": others}])

    with pytest.raises(SnapshotMismatch) as caught:
        Classifier(optimizer=grouped).restore(Classifier(optimizer=otherwise).snapshot())
    assert caught.value.different == {"optimizer.nn.0.bias": "group 0, where 1 is wanted"}


def test_a_state_that_was_not_begun_replaces_one_that_was() -> None:
    """A snapshot from before the first step takes the moments of later steps away."""
    model = Classifier()
    snapshot = model.snapshot()
    assert not trained(model).restore(snapshot).optimizer.state


def test_old_names_of_compiled_modules_are_understood() -> None:
    """Keys with `_orig_mod.`, as torch.compile's wrappers have them, are those without, in modules and optimizers."""
    model = trained(Classifier())
    snapshot = model.snapshot()
    old = json.loads(json.dumps({"a": 1}))  # a copy with other names
    old = {
        **snapshot,
        "modules": {
            f"_orig_mod.{name}".replace("nn.", "nn._orig_mod."): value for name, value in snapshot["modules"].items()
        },
    }
    optimizer = snapshot["parts"]["optimizer"]
    renamed = {
        **optimizer,
        "state": {f"_orig_mod.{name}": value for name, value in optimizer["state"].items()},
        "param_groups": [
            {**group, "params": [f"_orig_mod.{name}" for name in group["params"]]}
            for group in optimizer["param_groups"]
        ],
    }
    old["parts"] = {"optimizer": renamed, "progress": old["parts"]["progress"]}
    assert same(Classifier(seed=1).restore(old).snapshot(), snapshot)


def test_wrapped_modules_have_the_names_of_bare_ones() -> None:
    """A module inside that torch.compile has wrapped is kept, and restored, by its own names."""
    model = trained(Classifier())
    wrapped = Classifier(seed=1)
    wrapped.nn = torch.compile(wrapped.nn, backend="eager")
    wrapped.restore(model.snapshot())
    assert same(wrapped.snapshot(), model.snapshot())
    assert any("_orig_mod" in name for name in wrapped.state_dict())


def test_a_part_named_like_a_wrapper_is_nobodys_wrapper() -> None:
    """Only a whole name is a wrapper's: other names that end alike stay, and so does a module called `module`."""

    class Named(Aggregate):
        def __init__(self) -> None:
            super().__init__()
            self.my_orig_mod = nn.Linear(1, 1)
            self.module = nn.Linear(1, 1)

    assert list(Named().snapshot()["modules"]) == [
        "my_orig_mod.weight",
        "my_orig_mod.bias",
        "module.weight",
        "module.bias",
    ]


def test_wrappers_inside_wrappers_are_left_out_of_names() -> None:
    """The wrappers of data parallelism, which are called `module`, may stand inside one another."""
    model = Classifier()
    inner = nn.Sequential(nn.DataParallel(model.nn))
    model.nn = nn.DataParallel(inner)
    names = list(model.snapshot()["modules"])
    assert names[0] == "nn.0.0.weight"
    assert not any("module" in name for name in names)


def test_what_is_no_part_is_left_out() -> None:
    """Classes, and hooks that torch keeps in modules, are no parts, though they have a `state_dict`."""
    model = Classifier()
    model.kind = Remembering
    model.nn.register_forward_hook(Remembering("hook"))
    assert set(model.snapshot()["parts"]) == {"optimizer", "progress"}


def test_it_works_after_to() -> None:
    """An aggregate that was cast takes a snapshot from before, in its own type, and its optimizer still steps."""
    model = trained(Classifier())
    cast = Classifier(seed=1).to(torch.float64)
    cast.restore(model.snapshot())
    torch.testing.assert_close(cast.nn[0].weight, model.nn[0].weight.double())
    assert cast.optimizer.state[cast.nn[0].weight]["exp_avg"].dtype == torch.float64
    cast.fit(X.double())


def test_moments_that_are_more_precise_than_parameters_stay_so() -> None:
    """What an optimizer keeps in another type than that of its parameter comes back in that type, bit for bit."""
    model = trained(Classifier().to(torch.bfloat16), 0)
    precise = torch.randn(8, 4, dtype=torch.float32)
    model.optimizer.state[model.nn[0].weight] = {"step": torch.tensor(1.0), "exp_avg": precise}
    resumed = Classifier(seed=1).to(torch.bfloat16).restore(model.snapshot())
    assert torch.equal(resumed.optimizer.state[resumed.nn[0].weight]["exp_avg"], precise)


def test_extra_state_of_modules_is_kept() -> None:
    """What a module gives as its extra state is part of its state."""

    class Counting(nn.Module):
        count = 0

        def get_extra_state(self) -> Any:
            return {"count": self.count, "seen": (1, 2)}

        def set_extra_state(self, state: Any) -> None:
            self.count, self.seen = state["count"], state["seen"]

    model, resumed = Classifier(), Classifier()
    model.counting, resumed.counting = Counting(), Counting()
    model.counting.count = 3
    resumed.restore(model.snapshot())
    assert (resumed.counting.count, resumed.counting.seen) == (3, (1, 2))


class Remembering:
    """A part of the user's own."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *_: object) -> None:
        """Be a hook."""

    def state_dict(self) -> Any:
        """Give the state."""
        return {"memory": self.state}

    def load_state_dict(self, state: Any) -> None:
        """Take a state, or refuse it."""
        if state["memory"] == "poison":
            raise ValueError("refused")
        self.state = state["memory"]


@pytest.mark.parametrize("value", [{1, 2}, print, object(), b"bytes", np.zeros(2), 1j])
def test_what_is_no_plain_value_is_refused_by_name(value: object) -> None:
    """A snapshot that could not be stored without anybody's code is refused when it is taken."""
    model = Classifier()
    model.memory = Remembering([1, {"inner": value}])
    with pytest.raises(UnkeepableValue, match=r"memory\.memory\.1\.inner"):
        model.snapshot()


def test_a_part_that_refuses_its_state_is_named() -> None:
    """When a part of the user's own raises, a note says which, and the modules are not restored yet."""
    model, other = Classifier(), Classifier(seed=1)
    model.memory, other.memory = Remembering("poison"), Remembering("fine")
    weight = other.nn[0].weight.clone()
    with pytest.raises(ValueError, match="refused") as caught:
        other.restore(model.snapshot())
    assert "memory" in caught.value.__notes__[0]
    assert torch.equal(other.nn[0].weight, weight)


def test_a_parameter_from_elsewhere_is_refused_by_name() -> None:
    """An optimizer over a parameter that is not in the aggregate would be kept in halves."""
    model = Classifier()
    model.stray = optim.SGD([nn.Parameter(torch.zeros(3, 2))], lr=0.1)
    with pytest.raises(UnownedParameter, match=r"stray .* \(3, 2\)"):
        model.snapshot()


@pytest.mark.parametrize("wrong", [{}, {"nn.0.weight": X}, {"version": 2, "counters": {}, "modules": {}, "parts": {}}])
def test_what_is_no_snapshot_is_refused(wrong: dict[str, Any]) -> None:
    """A state_dict, or a snapshot of a later version, is refused as what it is."""
    with pytest.raises(UnknownSnapshot, match="no snapshot of version 1"):
        Classifier().restore(wrong)


def test_a_missing_counter_is_refused() -> None:
    """Epoch and phase belong to the state like all else."""
    snapshot = Classifier().snapshot()
    del snapshot["counters"]["epoch"]
    model = Classifier()
    model.epoch = 3
    with pytest.raises(SnapshotMismatch, match="missing: epoch"):
        model.restore(snapshot)
    assert model.restore(snapshot, accept="epoch").epoch == 3


def test_a_long_list_of_misfits_is_cut_in_the_message_and_whole_on_the_error() -> None:
    """A message stays readable; the error has all the names."""
    model = Classifier()
    snapshot = model.snapshot()
    snapshot["modules"] |= {f"extra.{number}": X for number in range(100)}
    with pytest.raises(SnapshotMismatch, match="and 80 more") as caught:
        model.restore(snapshot)
    assert len(caught.value.unexpected) == 100


def test_a_lazy_module_is_restored() -> None:
    """Parameters that have no shape yet take that of the snapshot."""

    class Lazy(Aggregate):
        def __init__(self) -> None:
            super().__init__()
            self.nn = nn.LazyLinear(2)

    model = Lazy()
    model.nn(X)
    assert Lazy().restore(model.snapshot()).nn.weight.shape == (2, 4)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(st.integers() | st.text(), inner)
        | st.dictionaries(st.text(), inner).map(OrderedDict)
        | st.dictionaries(st.integers(), inner).map(lambda items: defaultdict(list, items))
    ),
)


@given(PLAIN)
def test_any_plain_value_comes_back_as_it_was(value: object) -> None:
    """Through JSON, into the types of what is there: lists, tuples, keys that are numbers, kinds of dictionaries."""
    back = like(json.loads(json.dumps(plain(value, "value"))), value)
    assert back == value
    assert repr(back) == repr(value)


@pytest.mark.parametrize("number", [np.float64(0.5), np.int64(3), np.bool_(1)])
def test_numbers_of_numpy_are_numbers(number: Any) -> None:
    """NumPy's scalars are kept as Python's."""
    kept = plain(number, "number")
    assert kept == number
    assert type(kept) in {bool, int, float}


def test_what_is_made_of_parts_is_known_by_theirs() -> None:
    """An object that tells its `parts()` stands for them, so that an optimizer inside it keeps parameters by name."""

    class Holder:
        def __init__(self, optimizer: optim.Optimizer) -> None:
            self.optimizer = optimizer

        def parts(self) -> dict[str, object]:
            return {"optimizer": self.optimizer}

        def state_dict(self) -> dict[str, object]:
            raise AssertionError("its parts are asked")

        def load_state_dict(self, _state: dict[str, object]) -> None:
            raise AssertionError("its parts are asked")

    class Held(Aggregate):
        def __init__(self) -> None:
            super().__init__()
            self.nn = nn.Linear(2, 1)
            self.holder = Holder(optim.SGD(self.nn.parameters(), lr=0.1, momentum=0.9))

    held = Held()
    held.nn(torch.ones(1, 2)).sum().backward()
    held.holder.optimizer.step()
    kept = held.snapshot()["parts"]
    assert list(kept) == ["progress", "holder.optimizer"]  # type: ignore[arg-type, call-overload]
    assert "nn.weight" in str(kept)
    fresh = Held().restore(held.snapshot())
    assert torch.equal(
        fresh.holder.optimizer.state[fresh.nn.weight]["momentum_buffer"],
        held.holder.optimizer.state[held.nn.weight]["momentum_buffer"],
    )


def test_parameters_outside_the_state_dict_keep_their_moments() -> None:
    """What a module leaves out of its `state_dict` is there all the same, and so is what its optimizer knows of it."""

    class Adapted(Aggregate):
        def __init__(self) -> None:
            super().__init__()
            self.nn = nn.Linear(2, 2)
            self.optimizer = optim.Adam(self.nn.parameters())
            self.register_state_dict_post_hook(lambda _module, state, _prefix, _local: self.shorten(state))

        def shorten(self, state: dict[str, Any]) -> None:
            del state["nn.bias"]

    adapted, fresh = Adapted(), Adapted()
    adapted.nn(torch.ones(1, 2)).sum().backward()
    adapted.optimizer.step()
    fresh.restore(adapted.snapshot())
    moments = fresh.optimizer.state[fresh.nn.bias]
    assert torch.equal(moments["exp_avg"], adapted.optimizer.state[adapted.nn.bias]["exp_avg"])


def test_parts_of_one_name_are_refused() -> None:
    """Two parts that would have one name are refused, where one would be lost."""
    model = Classifier()
    model.schedules = {  # type: ignore[assignment]
        1: lr_scheduler.StepLR(model.optimizer, 1),
        "1": lr_scheduler.StepLR(model.optimizer, 2),
    }
    with pytest.raises(UnkeepableValue, match=r"two parts are called schedules\.1"):
        model.snapshot()


@pytest.mark.parametrize("kept_there", [True, False])
def test_tensors_without_values_do_not_fit(kept_there: bool) -> None:  # noqa: FBT001 - both ways
    """A module on the meta device has no values to keep or to restore, which torch would pass over in silence."""
    real = Classifier(optimizer=lambda parameters: optim.SGD(parameters, lr=0.1))
    with torch.device("meta"):
        empty = Classifier(optimizer=lambda parameters: optim.SGD(parameters, lr=0.1))
    kept, model = (empty, real) if kept_there else (real, empty)
    with pytest.raises(SnapshotMismatch, match="meta device") as raised:
        model.restore(kept.snapshot())
    assert "nn.0.weight" in raised.value.different


def test_a_part_that_refuses_leaves_all_as_it_was() -> None:
    """If `load_state_dict` of a part fails, the parts before it, the optimizers and the modules are what they were."""

    class Stubborn:
        def state_dict(self) -> dict[str, int]:
            return {"a": 1}

        def load_state_dict(self, _state: dict[str, int]) -> None:
            raise RuntimeError("no")

    def make() -> Classifier:
        model = Classifier(scheduler=lambda optimizer: lr_scheduler.StepLR(optimizer, 1))
        model.stubborn = Stubborn()  # type: ignore[assignment]
        return model

    trained, model = make(), make()
    trained.fit()
    trained.epoch = 1
    before = model.snapshot()
    with pytest.raises(RuntimeError, match="no") as raised:
        model.restore(trained.snapshot())
    assert raised.value.__notes__ == ["in restoring stubborn"]
    after = model.snapshot()
    assert str(after) == str(before)
    assert str(after["parts"]) != str(trained.snapshot()["parts"])


def test_a_parameter_given_twice_is_kept_once() -> None:
    """An optimizer may have a parameter twice in a group, of which torch only warns."""

    def twice(parameters: Iterator[nn.Parameter]) -> optim.Optimizer:
        first = next(parameters)
        with pytest.warns(UserWarning, match="duplicate"):
            return optim.SGD([first, first], lr=0.1, momentum=0.9)

    trained, model = Classifier(optimizer=twice), Classifier(optimizer=twice)
    trained.fit()
    model.restore(trained.snapshot())
    assert str(model.optimizer.state_dict()) == str(trained.optimizer.state_dict())


def test_a_lazy_parameter_is_named() -> None:
    """A parameter that has no shape yet cannot be kept; the error says which, and what to do."""
    aggregate = Aggregate()
    aggregate.nn = nn.LazyLinear(2)
    with pytest.raises(UnkeepableValue, match=r"nn\.weight has no shape yet\. Call its module once"):
        aggregate.snapshot()


@pytest.mark.parametrize("nothing", [None, [], "a path"])
def test_what_is_no_dictionary_is_no_snapshot(nothing: Any) -> None:
    """What somebody gives who has found no snapshot is refused as what it is."""
    with pytest.raises(UnknownSnapshot, match="this is no snapshot, but"):
        Classifier().restore(nothing)


@pytest.mark.parametrize(("counter", "value"), [("phase", "trian"), ("phase", None), ("epoch", "7"), ("epoch", 1.0)])
def test_counters_that_could_not_be_assigned_do_not_fit(counter: str, value: object) -> None:
    """A snapshot puts no phase and no epoch in place that nobody could assign."""
    model, snapshot = Classifier(), Classifier().snapshot()
    snapshot["counters"][counter] = value
    with pytest.raises(SnapshotMismatch, match="is wanted") as raised:
        model.restore(snapshot)
    assert list(raised.value.different) == [counter]
    model.restore(snapshot, accept=counter)
    assert (model.phase, model.epoch) == ("train", 0)
