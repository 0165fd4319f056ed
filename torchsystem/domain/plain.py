"""Values as a snapshot holds them: tensors, and what JSON knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from copy import copy
from typing import Any, TypeAlias, cast

from torch import Tensor
from torch.nn.parameter import is_lazy

from torchsystem.errors import UnkeepableValue

# None, bool, int, float, str, Tensor, and lists and dictionaries of them whose keys are strings.
Plain: TypeAlias = Any

# What copies a tensor, given what it is called.
Copy: TypeAlias = Callable[[str, Tensor], Tensor]

PAIRS = "__pairs__"  # a dictionary whose keys are no strings is kept as a list of pairs under this one


def cloned(_name: str, tensor: Tensor) -> Tensor:
    """Copy a tensor into memory of its own."""
    return tensor.clone()


def plain(value: Any, name: str, copy: Copy = cloned) -> Plain:
    """Copy a value into tensors and what JSON knows.

    Args:
        value: What a ``state_dict`` may hold.
        name: Where it stands, for whoever reads the error.
        copy: What copies tensors; they are whole, and detached from any graph.

    Raises:
        UnkeepableValue: It is, or holds, something else: a function, a set, an object, a parameter without a shape.
    """
    if is_lazy(value):
        message = f"{name} has no shape yet. Call its module once, so that it is made, before taking a snapshot."
        raise UnkeepableValue(message)
    if isinstance(value, Tensor):
        return copy(name, gathered(value).detach())
    if value is None or type(value) in {bool, int, float, str}:
        return value
    if isinstance(value, Mapping):
        parts = [(key, plain(part, f"{name}.{key}", copy)) for key, part in value.items()]
        if all(type(key) is str for key, _ in parts):
            return dict(parts)
        return {PAIRS: [[plain(key, f"a key of {name}", copy), part] for key, part in parts]}
    if isinstance(value, list | tuple):
        return [plain(part, f"{name}.{index}", copy) for index, part in enumerate(value)]
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # one of NumPy's numbers
        return plain(value.item(), name, copy)
    message = (
        f"{name} is {value!r}: a snapshot holds tensors and plain values, and no {type(value).__qualname__}. "
        f"Leave it out of the state_dict that it comes from, or write it there in numbers, strings, lists and dicts."
    )
    raise UnkeepableValue(message)


def like(value: Plain, model: object) -> Any:
    """Copy a plain value, and give lists and dictionaries the types that they have in another one."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return _dictionary_like(value, model if isinstance(model, MutableMapping) else {})
    if isinstance(value, list):
        models = model if isinstance(model, list | tuple) else ()
        parts = [like(part, models[index] if index < len(models) else None) for index, part in enumerate(value)]
        return tuple(parts) if isinstance(models, tuple) and model is models else parts
    return value


def _dictionary_like(value: dict[str, Plain], model: MutableMapping[Any, Any]) -> MutableMapping[Any, Any]:
    twin = copy(model)  # of its kind, such as a Counter, and with its default, such as that of a defaultdict
    twin.clear()
    for key, part in value[PAIRS] if PAIRS in value else value.items():
        twin[key] = like(part, model.get(key))
    return twin


def gathered(tensor: Tensor) -> Tensor:
    """Return a tensor that is spread over ranks as a whole, for which all of them have to ask; others as they are."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def spread(tensor: Tensor, model: Tensor) -> Tensor:
    """Spread a whole tensor over ranks as another one is, in which all of them take part; or return it as it is."""
    mesh: Any = getattr(model, "device_mesh", None)
    if mesh is None:
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor  # noqa: PLC0415 - it takes half a second

    return distribute_tensor(tensor.to(model.device), mesh, cast("DTensor", model).placements)
