"""The whole state of an aggregate as one thing: taken as a copy, and put back in place.

A snapshot is a dictionary of tensors and plain values, so that it can be stored without anybody's code:

- ``version`` of this form: 1;
- ``counters``: ``epoch`` and ``phase``, of the aggregate and of those inside it;
- ``modules``: the ``state_dict``;
- ``parts``: the state of whatever else has one, by name: optimizers, schedulers, scalers, progress. An optimizer's
  tells parameters by name, where torch counts them.

Names are those that things have without the wrappers of ``torch.compile`` and of data parallelism.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor
from torch.nn.parameter import is_lazy

from torchsystem.domain.misfits import Misfits
from torchsystem.domain.names import Names, unwrapped
from torchsystem.domain.parts import StatefulPart, parts
from torchsystem.domain.plain import Copy, Plain, cloned, like, plain, spread
from torchsystem.errors import UnknownSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch.nn import Module

    from torchsystem.domain.parts import Part

Snapshot: TypeAlias = dict[str, Plain]

VERSION = 1
OF_AGGREGATES = {"phase", "epoch", "events"}


class State:
    """Everything in an aggregate that has a state, by name.

    Raises:
        UnownedParameter: An optimizer optimizes a parameter that is not in the aggregate.
    """

    def __init__(self, root: Module) -> None:
        self._root = root
        names = Names(root)
        self._parts = parts(root, names)
        self._entries = {names.of(name): (name, value) for name, value in root.state_dict().items()}
        unlisted = {str(names.of_parameter(parameter)): parameter for parameter in root.parameters()}
        self._unlisted = {name: parameter for name, parameter in unlisted.items() if name not in self._entries}
        self._counters = {
            f"{names.of(f'{path}.') if path else ''}{counter}": (module, counter)
            for path, module in root.named_modules()
            if vars(module).keys() >= OF_AGGREGATES
            for counter in ("epoch", "phase")
        }

    def snapshot(self, copy: Copy = cloned) -> Snapshot:
        """Copy it all, tensors by `copy`.

        Raises:
            UnkeepableValue: A part has something in its state that is neither a tensor nor a plain value.
        """
        return {
            "version": VERSION,
            "counters": {name: vars(module)[counter] for name, (module, counter) in self._counters.items()},
            "modules": {name: plain(value, name, copy) for name, (_, value) in self._entries.items()},
            "parts": {name: part.snapshot(copy) for name, part in self._parts.items()},
        }

    def restore(self, snapshot: Snapshot, accept: Iterable[str]) -> None:
        """Put a snapshot in place of it all; or nothing of it, if something does not fit and is not accepted.

        Raises:
            UnknownSnapshot: It is no snapshot, or one that a later version has taken.
            SnapshotMismatch: Something in it does not fit.
        """
        _check(snapshot)
        misfits = Misfits(accept)
        counters, kept = snapshot["counters"], snapshot["parts"]
        weights = {unwrapped(name): value for name, value in snapshot["modules"].items()}
        misfits.compare(self._counters, counters)
        misfits.compare(self._entries, weights)
        misfits.compare(self._parts, kept)
        counts = {name: value for name, value in counters.items() if _can_count(name, value, misfits)}
        weights = {name: value for name, value in weights.items() if self._fits(name, value, misfits)}
        shared = {name: part for name, part in self._parts.items() if name in kept}
        for name, part in shared.items():
            part.compare(kept[name], misfits)
        misfits.refuse(type(self._root).__qualname__)

        self._restore_parts(shared, kept, self._unlisted | weights)
        entries = {
            self._entries[name][0]: _in_place_of(self._entries[name][1], value) for name, value in weights.items()
        }
        self._root.load_state_dict(entries, strict=False)
        # The outer ones first, whose phase is that of all inside.
        for name, (module, counter) in self._counters.items():
            _count(module, counter, counts.get(name, vars(module)[counter]))

    def _restore_parts(self, shared: dict[str, Part], kept: Plain, weights: Mapping[str, Tensor]) -> None:
        """Restore those first that alone know what fits; if one of them refuses, all are what they were."""
        undo = []
        try:
            for name, part in sorted(shared.items(), key=lambda item: not isinstance(item[1], StatefulPart)):
                if isinstance(part, StatefulPart):
                    undo.append(part.remember())
                part.restore(kept[name], weights)
        except BaseException:
            for put_back in undo:
                with suppress(Exception):  # whoever has refused may refuse again
                    put_back()
            raise

    def _fits(self, name: str, value: Plain, misfits: Misfits) -> bool:
        if name not in self._entries:
            return False
        mine = self._entries[name][1]
        if not isinstance(mine, Tensor) or is_lazy(mine):
            return True
        if isinstance(value, Tensor) and value.is_meta != mine.is_meta:
            misfits.differ(name, "on the meta device in one of both: it has no values there")
            return False
        if isinstance(value, Tensor) and value.shape == mine.shape:
            return True
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__qualname__
        misfits.differ(name, f"{shape}, where {tuple(mine.shape)} is wanted")
        return False


def _in_place_of(mine: Any, value: Plain) -> Any:
    revived = like(value, mine)
    return spread(revived, mine) if isinstance(mine, Tensor) else revived


def _can_count(name: str, value: Plain, misfits: Misfits) -> bool:
    if name.rpartition(".")[2] == "epoch":
        fits, wanted = type(value) is int, "an int"
    else:
        fits, wanted = value in ("train", "evaluation"), "'train' or 'evaluation'"
    if not fits:
        misfits.differ(name, f"{value!r}, where {wanted} is wanted")
    return fits


def _count(module: Any, counter: str, value: Any) -> None:
    """Set a counter as it was, which is no change that a hook should hear of."""
    if counter == "phase" and value != module.phase:
        for inside in module.modules():
            inside.training = value == "train"
    vars(module)[counter] = value


def _check(snapshot: Snapshot) -> None:
    if not isinstance(snapshot, Mapping):
        message = f"this is no snapshot, but {snapshot!r}. Restore what aggregate.snapshot() gave."
        raise UnknownSnapshot(message)
    version = snapshot.get("version")
    if version != VERSION or not {"counters", "modules", "parts"} <= snapshot.keys():
        message = (
            f"this is no snapshot of version {VERSION}: it has {', '.join(map(str, list(snapshot)[:5]))}, ... "
            f"Restore what aggregate.snapshot() gave; a state_dict is loaded by load_state_dict."
        )
        raise UnknownSnapshot(message)
