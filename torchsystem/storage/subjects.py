"""What can be saved: aggregates, any other modules, and mappings of tensors; each as a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, TypeAlias, cast

from torch import Tensor
from torch.nn import Module

from torchsystem.domain import Aggregate
from torchsystem.domain.misfits import Misfits
from torchsystem.domain.names import Names
from torchsystem.domain.plain import Plain, like, plain
from torchsystem.domain.snapshot import State
from torchsystem.errors import Unnameable, Unstorable
from torchsystem.services.names import kebab
from torchsystem.storage.description import unwrapped

Copy: TypeAlias = Callable[[str, Tensor], Tensor]

VERSION = 1


def identify(subject: object, given: object) -> object:
    """Return the id of a subject: the one given, its own, or the name of its class.

    Raises:
        Unnameable: It is a mapping, and none was given.
        Unstorable: It is nothing that can be saved.
    """
    subject = _checked(subject)
    if given is not None:
        return given
    if isinstance(subject, Aggregate) and subject.is_initialized():
        return subject.id
    if isinstance(subject, Module):
        return kebab(type(subject).__name__)
    message = "a mapping of tensors has no name of its own. Give it one: save(tensors, id='teacher')."
    raise Unnameable(message)


def take(subject: object, copy: Copy) -> dict[str, Plain]:
    """Copy the whole state of a subject, tensors by `copy`."""
    subject = _checked(subject)
    if isinstance(subject, Aggregate):
        return subject.snapshot(copy=copy)
    if isinstance(subject, Module):
        return State(subject).snapshot(copy)
    tensors = {_name(name): plain(value, str(name), copy) for name, value in subject.items()}
    return {"version": VERSION, "counters": {}, "modules": tensors, "parts": {}}


def put_back(subject: object, snapshot: dict[str, Plain], accept: Iterable[str]) -> None:
    """Put a snapshot in place of the state of a subject, or nothing of it if it does not fit."""
    subject = _checked(subject)
    if isinstance(subject, Aggregate):
        subject.restore(snapshot, accept=accept)
    elif isinstance(subject, Module):
        State(subject).restore(snapshot, accept)
    elif isinstance(subject, MutableMapping):
        mapping = cast("MutableMapping[str, Any]", subject)
        misfits = Misfits(accept)
        if mapping:
            misfits.compare(mapping, snapshot["modules"])
        values: dict[str, Any] = {}
        for name, value in snapshot["modules"].items():
            values[name] = _fitted(name, like(value, mapping.get(name)), mapping.get(name), misfits)
        misfits.refuse(type(mapping).__qualname__)
        mapping.update(values)
    else:
        message = f"a {type(subject).__qualname__} cannot be changed. Restore into a dictionary, such as {{}}."
        raise Unstorable(message)


def parameters_of(subject: object) -> frozenset[str]:
    """Name what is trained in a subject, as its snapshot does; of a mapping, what was handed in as a parameter."""
    subject = _checked(subject)
    if isinstance(subject, Module):
        names = Names(subject)
        return frozenset(names.of(name) for name, _ in subject.named_parameters(remove_duplicate=False))
    return frozenset(str(name) for name, value in subject.items() if isinstance(value, Tensor) and value.requires_grad)


def epoch_of(subject: object) -> int:
    """Return the epoch of an aggregate; 0 of anything else."""
    subject = _checked(subject)
    return subject.epoch if isinstance(subject, Aggregate) else 0


def _checked(subject: object) -> Module | Mapping[Any, Any]:
    if isinstance(subject, Module):
        return unwrapped(subject)
    if isinstance(subject, Mapping):
        return subject
    message = (
        f"{subject!r} is neither a module nor a mapping of tensors. Save the aggregate, a module, or a dictionary "
        f"such as a state_dict."
    )
    raise Unstorable(message)


def _fitted(name: str, value: Any, model: Any, misfits: Misfits) -> Any:
    """Give tensors the type and the device of those whose place they take; one of another shape does not fit."""
    if isinstance(value, dict) and isinstance(model, Mapping):  # of the kind of the model, as `like` has made it
        entries: dict[Any, Any] = value
        for key, part in entries.items():
            entries[key] = _fitted(f"{name}.{key}", part, model.get(key), misfits)
        return entries
    if not isinstance(value, Tensor) or not isinstance(model, Tensor):
        return value
    if value.shape != model.shape:
        misfits.differ(name, f"{tuple(value.shape)} was saved, {tuple(model.shape)} is there")
        return model
    return value if model.is_meta else value.to(model.device, model.dtype)


def _name(name: object) -> str:
    if isinstance(name, str):
        return name
    message = f"a mapping of tensors has names for keys, and {name!r} is none. Write {str(name)!r}."
    raise Unstorable(message)
