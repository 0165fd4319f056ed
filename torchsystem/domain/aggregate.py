"""The root of a domain: modules, optimizer and counters that change together, as one thing with an identity.

An aggregate is the pattern of "Domain-Driven Design" by Eric Evans: one object through which all that belongs to it
is changed, so that it is whole at any time. Here it is a `torch.nn.Module` too, and behaves as one.
"""

from __future__ import annotations

import inspect
import operator
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from torch.nn import Module

from torchsystem.domain.events import Events
from torchsystem.domain.plain import Copy, cloned
from torchsystem.domain.snapshot import Snapshot, State
from torchsystem.errors import InvalidEpoch, InvalidPhase, RepeatedIdentity, ShadowedAttribute, UnknownIdentity
from torchsystem.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable

Phase: TypeAlias = Literal["train", "evaluation"]
MODES: dict[Phase, bool] = {"train": True, "evaluation": False}


# A descriptor with `__set__` and no `__get__` leaves the value in the instance's own dictionary: reading costs what
# any attribute costs, and only writing this one name is ours. A property would tax its reads, and an overridden
# `__setattr__` the writes of every name.


class _Epoch:
    """Run `onepoch` after a change; the first epoch that a constructor assigns is where it begins."""

    def __set__(self, aggregate: Aggregate, epoch: int) -> None:
        if type(epoch) is not int:
            epoch = _whole(epoch)
        state = aggregate.__dict__
        if "_epoch_given" not in state:
            state["_epoch_given"] = True
            if _is_under_construction(aggregate):
                state["epoch"] = epoch
                return
        if state["epoch"] != epoch:
            state["epoch"] = epoch
            aggregate.onepoch()


class _Phase:
    """Put every module into the mode of the phase."""

    def __set__(self, aggregate: Aggregate, phase: Phase) -> None:
        if phase not in MODES:
            message = f"{type(aggregate).__qualname__}.phase = {phase!r}: write 'train' or 'evaluation'."
            raise InvalidPhase(message)
        if aggregate.__dict__["phase"] != phase:
            aggregate.train(MODES[phase])


class _Training:
    """Let `phase` say the same as the `training` of every module."""

    def __set__(self, aggregate: Aggregate, training: bool) -> None:  # noqa: FBT001 - torch assigns it
        aggregate.__dict__["training"] = training
        aggregate.__dict__["phase"] = "train" if training else "evaluation"


class Aggregate(Module):
    """A module that is the root of what changes in a training: it has an identity, a phase, an epoch and events.

    Attributes:
        phase: ``"train"`` or ``"evaluation"``, the same fact as ``training``. Assigning it calls `train`.
        epoch: The number of epochs done, 0 at first. Services assign it: ``model.epoch += 1``.
        progress: How far its run has come, as whoever trains it has written down last.
        events: What happened inside and waits to be committed. It is no part of the ``state_dict``.

    Examples:
        >>> from torch import nn
        >>> from torchsystem import Aggregate
        >>> class Classifier(Aggregate):
        ...     def __init__(self, nn: nn.Module, patience: int) -> None:
        ...         super().__init__()
        ...         self.nn = nn
        ...         self.patience = patience
        ...
        ...     def onepoch(self) -> None:
        ...         if self.epoch >= self.patience:
        ...             self.events.enqueue(StopIteration)
        ...         self.events.commit()
        >>> classifier = Classifier(nn.Linear(2, 2), patience=2)
        >>> classifier.initialize("linear")
        >>> classifier.id, classifier.phase, classifier.epoch
        ('linear', 'train', 0)
        >>> classifier.epoch += 1
        >>> classifier.epoch += 1
        Traceback (most recent call last):
        ...
        StopIteration
    """

    events: Events
    progress: Progress
    if TYPE_CHECKING:
        phase: Phase
        epoch: int
    else:
        phase = _Phase()
        epoch = _Epoch()
        training = _Training()

    def __init__(self) -> None:
        super().__init__()
        self.__dict__.setdefault("epoch", 0)
        self.progress = Progress()
        self.events = Events()

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Refuse a class whose own ``epoch = 0`` would keep `onepoch` from ever running.

        Raises:
            ShadowedAttribute: ``phase``, ``epoch`` or ``training`` is a plain value in the class.
        """
        super().__init_subclass__(**kwargs)
        for name in ("phase", "epoch", "training"):
            value = inspect.getattr_static(cls, name)
            if not hasattr(value, "__set__"):
                message = (
                    f"{cls.__module__}.{cls.__qualname__}: `{name} = {value!r}` in the class hides the attribute whose "
                    f"changes an aggregate watches. Write `self.{name} = ...` in __init__, after super().__init__()."
                )
                raise ShadowedAttribute(message)

    @property
    def id(self) -> Any:
        """Say which aggregate this is, over all runs and machines.

        Override it (``return gethash(self.nn)``), or give it once by `initialize`.

        Raises:
            UnknownIdentity: It was not given yet.
        """
        if "_id" not in self.__dict__:
            name = type(self).__qualname__
            message = f"{name} has no id. Call initialize(id) once, or write a property: `def id(self): ...` in {name}."
            raise UnknownIdentity(message)
        return self.__dict__["_id"]

    def initialize(self, id: object) -> None:  # noqa: A002 - it is the id
        """Give the aggregate its id, once; any value counts, None included.

        Raises:
            RepeatedIdentity: It has one, given before or by a property of its class.
        """
        if self.is_initialized():
            how = f"{self.__dict__['_id']!r}" if "_id" in self.__dict__ else "a property of its class"
            message = f"{type(self).__qualname__}.initialize({id!r}): it has an id already, {how}. Make a new one."
            raise RepeatedIdentity(message)
        self.__dict__["_id"] = id

    def is_initialized(self) -> bool:
        """Tell whether `id` was given, or is a property of the class."""
        return "_id" in self.__dict__ or inspect.getattr_static(type(self), "id") is not Aggregate.__dict__["id"]

    def onphase(self) -> None:
        """Run after the phase has changed; override it."""

    def onepoch(self) -> None:
        """Run after the epoch has changed; override it."""

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - as torch.nn.Module has it
        """Put every module into training or evaluation mode, and run `onphase` if that is a change."""
        before = self.phase
        super().train(mode)
        if self.phase != before:
            self.onphase()
        return self

    def snapshot(self, *, copy: Copy = cloned) -> Snapshot:
        """Copy the whole state: modules, epoch and phase, and whatever inside has a ``state_dict``.

        It holds tensors and plain values alone, under the names that they have in the aggregate; parameters of
        optimizers, too, are told by name. Where tensors are spread over ranks, all of them have to ask for it.

        Args:
            copy: What copies a tensor, given its name in the aggregate and the tensor; into memory that is kept for
                that, say. Each gets memory of its own by default.

        Returns:
            A copy that nothing changes any more. See `torchsystem.domain.snapshot` for its form.

        Raises:
            UnkeepableValue: A part has something in its state that is neither a tensor nor a plain value.
            UnownedParameter: An optimizer optimizes a parameter that is not in the aggregate.

        Examples:
            >>> from torch import nn, optim
            >>> from torchsystem import Aggregate
            >>> class Classifier(Aggregate):
            ...     def __init__(self) -> None:
            ...         super().__init__()
            ...         self.nn = nn.Linear(2, 2)
            ...         self.optimizer = optim.Adam(self.nn.parameters())
            >>> classifier = Classifier()
            >>> classifier.epoch = 3
            >>> snapshot = classifier.snapshot()
            >>> list(snapshot["modules"]), list(snapshot["parts"]), snapshot["counters"]
            (['nn.weight', 'nn.bias'], ['progress', 'optimizer'], {'epoch': 3, 'phase': 'train'})
            >>> Classifier().restore(snapshot).epoch
            3
        """
        return State(self).snapshot(copy)

    def restore(self, snapshot: Snapshot, *, accept: str | Iterable[str] = ()) -> Self:
        """Put a snapshot in place of the whole state; no hook runs.

        Args:
            snapshot: What `snapshot` gave, of this aggregate or of one that is built like it.
            accept: Names, or patterns with ``*`` in them, of what may be missing, unexpected or different. It stays
                as it is.

        Returns:
            The aggregate.

        Raises:
            UnknownSnapshot: It is no snapshot, or one that a later version has taken.
            SnapshotMismatch: Something in it does not fit, and is not accepted; nothing was changed.
        """
        State(self).restore(snapshot, (accept,) if isinstance(accept, str) else accept)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave out of copies and pickles what is this object's own: the methods that are compiled in it, say.

        Events come last, so that in a deep copy their handlers find the copies of what they are methods of.
        """
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        wiring = state.pop("_wiring", ())
        kept = {name: value for name, value in state.items() if name not in wiring and name != "events"}
        return kept | {name: state[name] for name in ("events",) if name in state}


def _whole(epoch: Any) -> int:
    """Turn what counts as a whole number (NumPy's integers, tensors of one) into an int."""
    try:
        return operator.index(epoch)
    except TypeError:
        message = f"epoch = {epoch!r}: epochs are counted in whole numbers. Assign an int."
        raise InvalidEpoch(message) from None


def _is_under_construction(aggregate: Aggregate) -> bool:
    """Look whether an ``__init__`` of the aggregate is running, which only the frames tell; once in its life."""
    frame = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__init__" and code.co_argcount and frame.f_locals[code.co_varnames[0]] is aggregate:
            return True
        frame = frame.f_back
    return False
