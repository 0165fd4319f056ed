"""What a state belongs to: which criterion, which optimizer, which registered parts, and with which options.

A registered object is described by its metadata. Others are described by the name of their class, and by those
arguments of its constructor that can be read off the object: the `defaults` of an optimizer, the `label_smoothing` of a
criterion. What is part of the state anyway is no part of the description, but for the options of torch's schedulers,
which restoring would undo in silence.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias, cast

from torch import Tensor
from torch.nn import DataParallel, Module
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchsystem.domain.names import Names
from torchsystem.domain.parts import OF_TORCH
from torchsystem.errors import MetadataMismatch, NoCanonicalForm, NotRegistered
from torchsystem.registry import getmetadata
from torchsystem.registry.record import recall

Description: TypeAlias = dict[str, Any]

# How a step is computed, and not what it computes: the same run may go on elsewhere.
OF_DEVICES = {"foreach", "fused", "capturable", "differentiable"}


def describe(subject: object) -> dict[str, Description]:
    """Describe what a module is made of, by name.

    Returns:
        For the module itself (named ``""``), if it is registered, and each part of it: name, arguments, and hash if it
        is registered. Parts are what is registered, at any depth, every optimizer and scheduler, and the modules that
        are its attributes. Anything but a module is made of nothing.
    """
    found: dict[str, Description] = {}
    if not isinstance(subject, Module):
        return found
    subject = unwrapped(subject)
    names = Names(subject)
    for path, module in subject.named_modules():
        prefix = names.of(f"{path}.") if path else ""
        if _is_registered(module) or (path and "." not in path):
            found[prefix.removesuffix(".")] = describe_one(unwrapped(module))
        for name, value in vars(module).items():
            if name not in OF_TORCH:
                found |= {place: describe_one(part) for place, part in _parts(prefix + name, value, {id(subject)})}
    return found


def compare(kept: Mapping[str, Description], present: Mapping[str, Description], accept: Iterable[str]) -> None:
    """Refuse what is described in another way now than when it was saved.

    Raises:
        MetadataMismatch: Something differs, and is not accepted.
    """
    patterns = tuple(accept)
    different = {
        name: f"{_shown(kept.get(name))} was saved, {_shown(present.get(name))} is there"
        for name in {**kept, **present}
        if not _agree(kept.get(name), present.get(name))
        # "head.*" means all of the head, and so the head
        and not any(fnmatchcase(name, pattern) or fnmatchcase(f"{name}.", pattern) for pattern in patterns)
    }
    if different:
        lines = "".join(f"\n  {name or 'the aggregate'}: {difference}" for name, difference in different.items())
        message = (
            f"the checkpoint is of other parts, and nothing is changed:{lines}\nBuild them as they were, or say which "
            f"may differ: restore(..., accept=[{next(iter(different))!r}]), where * stands for any part of a name."
        )
        raise MetadataMismatch(message, different=different)


def _parts(name: str, value: object, seen: set[int]) -> Iterator[tuple[str, object]]:
    """Find what has a state, or is registered, in an attribute of a module, by the names that snapshots give."""
    if isinstance(value, Module | type) or id(value) in seen:
        return
    seen.add(id(value))
    inside = getattr(value, "parts", None)
    items: Iterable[tuple[object, object]]
    if callable(inside) and hasattr(value, "load_state_dict"):
        items = cast("Callable[[], Mapping[object, object]]", inside)().items()
    elif isinstance(value, dict):
        items = cast("dict[object, object]", value).items()
    elif isinstance(value, list | tuple):
        items = enumerate(cast("list[object]", value))
    else:
        if isinstance(value, Optimizer | LRScheduler) or _is_registered(value):
            yield name, value
        return
    for key, part in items:
        yield from _parts(f"{name}.{key}", part, seen)


def describe_one(thing: object) -> Description:
    """Describe one thing, such as a data set."""
    seen = {"name": _name(type(thing)), "arguments": _facts(thing)}
    if _is_registered(thing):
        try:
            return {**getmetadata(thing), "seen": seen}  # for who knows it from before it was registered
        except (NotRegistered, NoCanonicalForm):
            pass  # a name alone was set, or an argument cannot be written: what can be seen is described
    return seen


def _is_registered(thing: object) -> bool:
    identity = recall(thing)
    return identity is not None and identity.construction is not None


def _name(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "__main__" else f"{cls.__module__}.{cls.__qualname__}"


def _facts(thing: object) -> dict[str, Any]:
    """Return the arguments of the constructor that can be seen in an object and that no state holds."""
    if isinstance(thing, Optimizer):
        facts = {name: value for name, value in thing.defaults.items() if name not in OF_DEVICES}
    else:
        held = _held(thing)
        seen = vars(thing) if hasattr(thing, "__dict__") else {}  # a property could do anything
        facts = {name: seen[name] for name in _parameters(type(thing)) if name in seen and name not in held}
    plain = {name: _plain(value) for name, value in facts.items()}
    return {name: value for name, value in plain.items() if value is not None}


def _plain(value: object) -> Any:
    """Return what JSON can hold of an option; None of anything else."""
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 and not value.is_meta else None
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in cast("list[object]", value)]
        return None if None in items else items
    return value if type(value) in {bool, int, float, str} else None


def _held(thing: object) -> Iterable[str]:
    """Name what may differ because the state says it."""
    if isinstance(thing, LRScheduler) and type(thing).__module__.startswith("torch."):
        return ("last_epoch",)  # of torch's own nothing else changes, and the state would bring back what was changed
    state = None if isinstance(thing, Module) else getattr(thing, "state_dict", None)
    return cast("Mapping[str, object]", state()) if callable(state) else ()


def _parameters(cls: Callable[..., object]) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(cls).parameters)
    except (TypeError, ValueError):
        return ()


def unwrapped(module: Module) -> Module:
    """Look through the wrappers that torch puts around modules."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, DistributedDataParallel | DataParallel):
            inner = module.module
        if not isinstance(inner, Module):
            return module
        module = inner


def _agree(kept: Description | None, present: Description | None) -> bool:
    if kept is None or present is None:
        return False
    if "hash" in kept and "hash" in present:
        return bool(kept["name"] == present["name"] and kept["hash"] == present["hash"])
    then, now = _seen(kept), _seen(present)
    ours, theirs = now["arguments"], then["arguments"]  # another version of a class may have more
    return _same(then["name"], now["name"]) and all(ours[name] == theirs[name] for name in ours.keys() & theirs.keys())


def _seen(description: Description) -> Description:
    """Return what was seen of a thing, whether it was registered or not."""
    seen: Description = description.get("seen", description)
    return seen


def _same(kept: str, present: str) -> bool:
    """Compare the names of two classes; the same file is another module when it is run than when it is imported."""
    return kept == present or kept.endswith(f".{present}") or present.endswith(f".{kept}")


def _shown(description: Description | None) -> str:
    if description is None:
        return "nothing"
    arguments = ", ".join(f"{name}={value!r}" for name, value in description["arguments"].items())
    return f"{description['name']}({arguments})"
