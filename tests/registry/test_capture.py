"""Capturing: what a constructor is given counts as it was at that moment, and the constructor gets it untouched."""

# ruff: noqa: ARG002 - the constructors here take arguments only to be asked for them

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import GaussianNLLLoss, Linear, Module, Parameter
from torch.optim import RMSprop

from torchsystem.errors import NoCanonicalForm, NotRegistered
from torchsystem.registry import getarguments, gethash, register


def test_a_constructor_may_change_what_it_is_given() -> None:
    """A list counts as it was when the constructor was called, however it changes there or later."""

    @register
    class Pop:
        def __init__(self, layers: list[Any], options: dict[str, Any]) -> None:
            layers.pop()
            options["seen"] = True

    layers, options = [[1], 2], {"a": 1}
    pop = Pop(layers, options)
    layers[0].append(3)
    assert getarguments(pop) == {"layers": [[1], 2], "options": {"a": 1}}


def test_a_constructor_may_change_its_default() -> None:
    """A mutable default counts as it was when the class was registered."""

    @register
    class Grows:
        def __init__(self, layers: list[int] = []) -> None:  # noqa: B006 - the mistake is the point
            layers.append(1)

    assert getarguments(Grows([])) == getarguments(Grows()) == {}
    assert getarguments(Grows([1])) == {"layers": [1]}


def test_the_constructor_gets_the_very_objects() -> None:
    """Nothing that passes is copied, converted or consumed."""

    @register
    class Keeps:
        def __init__(self, *args: object, **kwargs: object) -> None:
            self.got = (*args, *kwargs.values())

    values = [[1], (2, [3]), {"a": [4]}, iter([5]), torch.ones(2), Linear(1, 1), object()]
    assert all(got is value for got, value in zip(Keeps(*values).got, values, strict=True))
    assert list(Keeps(iter([5, 6])).got[0]) == [5, 6]


def test_optimizers_and_criterions_register_although_their_annotations_are_unions() -> None:
    """`register(GaussianNLLLoss)` and `register(RMSprop, excluded_args=[0])` simply work."""
    register(GaussianNLLLoss)
    register(RMSprop, excluded_args=[0])
    assert getarguments(GaussianNLLLoss(full=True)) == {"full": True}
    assert getarguments(GaussianNLLLoss(reduction="mean")) == {}
    optimizer = RMSprop(Linear(2, 2).parameters(), lr=0.1, momentum=0.9)
    assert getarguments(optimizer) == {"lr": 0.1, "momentum": 0.9}
    assert len(optimizer.param_groups[0]["params"]) == 2


@pytest.mark.parametrize(
    "excluded",
    [{"excluded_args": [0]}, {"excluded_kwargs": {"params"}}, {"excluded_args": (0,), "excluded_kwargs": ["params"]}],
    ids=["position", "name", "both"],
)
def test_an_excluded_parameter_is_excluded_however_it_is_passed(excluded: dict[str, Any]) -> None:
    """Position or name exclude the parameter, not one way of passing it; and nothing of it is kept."""

    class Optimizer:
        def __init__(self, params: Iterable[Tensor], lr: float = 0.1) -> None:
            self.params = list(params)

    register(Optimizer, **excluded)
    parameter = Parameter(torch.ones(1))
    for optimizer in (Optimizer(iter([parameter]), 0.5), Optimizer(lr=0.5, params=iter([parameter]))):
        assert getarguments(optimizer) == {"lr": 0.5}
        assert optimizer.params == [parameter]


def test_exclusion_reaches_variadic_parameters_and_extra_keywords() -> None:
    """`*rest` and `**extra` can be excluded as a whole, and an extra keyword by its own name."""

    class Base:
        def __init__(self, x: object, *rest: object, **extra: object) -> None: ...

    whole = register(type("Whole", (Base,), {}), excluded_kwargs={"rest", "extra"})
    one = register(type("One", (Base,), {}), excluded_args=[1], excluded_kwargs={"path"})
    assert getarguments(whole(1, 2, iter([]), a=3, b=iter([]))) == {"x": 1}
    assert getarguments(one(1, iter([]), path=iter([]), a=3)) == {"x": 1, "a": 3}


def test_a_record_keeps_nothing_alive() -> None:
    """Neither an argument nor a registered part lives longer because it was an argument."""

    @register
    class Part(Module):
        def __init__(self, features: int) -> None:
            super().__init__()
            self.layer = Linear(features, features)

    @register
    class Forgets:
        def __init__(self, *parts: object) -> None: ...

    part, plain = Part(3), Linear(2, 2)
    alive = [weakref.ref(part), weakref.ref(part.layer.weight), weakref.ref(plain.weight)]
    forgets = Forgets(part, [part], {"a": part}, plain, part.layer.weight)
    del part, plain
    gc.collect()
    assert [ref() for ref in alive] == [None, None, None]
    described = {"name": "Part", "arguments": {"features": 3}}
    assert getarguments(forgets)["parts"][:3] == [described, [described], {"a": described}]


def test_a_record_goes_with_its_object() -> None:
    """An object that is gone leaves nothing behind, and its successor at the same address inherits nothing."""

    @register
    class Brief:
        def __init__(self, x: int = 0) -> None: ...

    for x in range(1, 100):
        assert getarguments(Brief(x)) == {"x": x}
    with pytest.raises(NotRegistered):
        getarguments(Brief.__new__(Brief))


def test_a_failed_construction_is_as_it_was() -> None:
    """A wrong call, or a constructor that raises, raises what it would have raised."""

    @register
    class Picky:
        def __init__(self, x: int) -> None:
            if x < 0:
                raise ValueError(x)

    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        Picky()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'y'"):
        Picky(1, y=[2])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="takes 2 positional arguments but 3 were given"):
        Picky(1, [2])  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="-1"):
        Picky(-1)


def test_a_constructor_already_knows_who_it_makes() -> None:
    """The identity is there before the constructor runs, so that it can be used in it."""

    @register
    class Named:
        def __init__(self, x: int) -> None:
            self.path = gethash(self)

    assert Named(1).path == gethash(Named(1)) != Named(2).path


def test_a_part_counts_as_it_was_constructed() -> None:
    """What happens to a part after its construction is not part of any construction."""

    @register
    class Net(Module):
        def __init__(self, *parts: object) -> None:
            super().__init__()

    part = Net(1)
    before = Net(part)
    part.register_buffer("seen", torch.ones(1))
    part.to(torch.float64)
    assert gethash(before) == gethash(Net(part)) == gethash(Net(Net(1)))


def test_sentinels_can_be_defaults() -> None:
    """A default without canonical form is still a default, given or not."""
    missing = object()

    @register
    class Lazy:
        def __init__(self, x: object = missing, activation: object = torch.jit.annotate) -> None: ...

    assert gethash(Lazy(missing)) == gethash(Lazy(missing, torch.jit.annotate)) == gethash(Lazy())
    assert getarguments(Lazy(object())) != {}


def test_an_object_that_contains_itself_is_no_obstacle() -> None:
    """A list that contains itself can be an argument; only a hash it cannot have."""

    @register
    class Loop:
        def __init__(self, items: list[Any]) -> None: ...

    items: list[Any] = []
    items.append(items)
    with pytest.raises(TypeError, match="contains itself"):
        gethash(Loop(items))


class Treacherous(int):
    """A number that cannot be read as one."""

    def __int__(self) -> int:
        """Fail."""
        raise ZeroDivisionError


class Closed(list[int]):
    """A list that cannot be read."""

    def __iter__(self) -> Iterator[int]:
        """Fail."""
        raise ZeroDivisionError


class Pretender:
    """An object that says that it is of another class, as the fakes of many a test do."""

    def __init__(self, cls: type) -> None:
        """Be of that class."""
        self.cls = cls

    @property
    def __class__(self) -> type:
        """Lie."""
        return self.cls

    @__class__.setter
    def __class__(self, cls: type) -> None: ...


@pytest.mark.parametrize(
    "value",
    [Closed([1]), *map(Pretender, (int, float, str, list, dict, set, Tensor, Module))],
    ids=lambda value: getattr(vars(value).get("cls"), "__name__", "closed"),
)
def test_no_argument_is_an_obstacle_to_a_construction(value: object) -> None:
    """Whatever looking at it does, the constructor gets it, and only a hash there is not."""

    @register
    class Net:
        def __init__(self, part: object) -> None:
            self.part = part

    net = Net(value)
    assert net.part is value
    with pytest.raises(NoCanonicalForm, match="the argument 'part' of Net"):
        gethash(net)


def test_a_number_of_any_class_is_the_number() -> None:
    """It is read as JSON reads it, past the methods of its class."""

    @register
    class Net:
        def __init__(self, width: int) -> None: ...

    assert gethash(Net(Treacherous(3))) == gethash(Net(3))


def test_compiled_code_may_construct() -> None:
    """A registered class breaks no graph; what is made in one is not remembered, and says so."""

    @register
    class Pair:
        def __init__(self, first: Tensor, second: Tensor) -> None:
            self.first, self.second = first, second

    @torch.compile(backend="eager", fullgraph=True)
    def pair(x: Tensor) -> Pair:
        return Pair(x, x + 1)

    made = pair(torch.zeros(1))
    assert made.second.item() == 1
    with pytest.raises(NotRegistered, match="none in compiled code"):
        gethash(made)
