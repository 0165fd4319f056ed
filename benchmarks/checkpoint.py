"""What a checkpoint of 200 MB costs, beside the bare work, `torch.save` and `torch.distributed.checkpoint`.

    python benchmarks/checkpoint.py [folder]

The state is weights and the two moments of Adam. All ways of saving it take turns in one process, and the best round
of each is compared, so that what else the machine does counts little. The folder should be on a disk, since what is
measured is its sync.

- "stall" is how long the training thread is held up by a save in the background; its floor is the copy of the state
  into kept buffers. The first save also allocates them, and is left out.
- "durable" is how long it takes until the checkpoint is sure to survive; its floor is the bare work done by hand: copy
  into kept buffers, write, sha-256, sync of the file, the manifest and the folder.
- "restored" is how long it takes to read it, verify its digests, and put it in place; its floor is read, sha-256, copy.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor, nn, optim
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType, async_save
from typing_extensions import Buffer

from torchsystem import Aggregate
from torchsystem.storage import Repository, Retention

ROUNDS = 9
MEGABYTES = 200
TARGETS = {"stall": 1.2, "durable": 1.2}


class Model(Aggregate):
    """Weights, and an optimizer that keeps two moments of each."""

    def __init__(self, layers: int = 8, width: int = 1445) -> None:
        super().__init__()
        self.nn = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))
        self.optimizer = optim.Adam(self.nn.parameters(), lr=1e-3)


def make_model() -> Model:
    """Make a model that has taken a step, so that its optimizer has a state."""
    torch.manual_seed(0)
    model = Model()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    model.optimizer.step()
    model.optimizer.zero_grad()
    return model


def tensors_of(model: Model) -> dict[str, Tensor]:
    """Return the tensors of the state, not copied, by name."""
    state = model.optimizer.state
    moments = {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in state[parameter].items()
    }
    return {**{name: parameter.detach() for name, parameter in model.named_parameters()}, **moments}


class ByHand:
    """The bare work: what must be done, and nothing else."""

    def __init__(self, model: Model, folder: Path) -> None:
        self.tensors = tensors_of(model)
        self.buffers = {name: torch.empty_like(tensor) for name, tensor in self.tensors.items()}
        self.folder = folder
        self.number = 0

    def copy(self) -> None:
        """Copy the state into kept buffers."""
        for name, tensor in self.tensors.items():
            self.buffers[name].copy_(tensor)

    def save(self) -> None:
        """Copy, write, hash, sync; one after the other, as one writes it down."""
        self.copy()
        self.number += 1
        target = self.folder / str(self.number)
        target.mkdir()
        safetensors.torch.save_file(self.buffers, target / "state.safetensors")
        digest = sha256()
        for tensor in self.buffers.values():
            digest.update(cast("Buffer", tensor.reshape(-1).view(torch.uint8).numpy()))
        synced(target / "state.safetensors")
        draft = target / "draft"
        draft.write_text(json.dumps({"sha256": digest.hexdigest()}))
        synced(draft)
        draft.rename(target / "manifest.json")
        synced(target)
        synced(self.folder)

    def restore(self) -> None:
        """Read, hash, copy into place."""
        data = (self.folder / str(self.number) / "state.safetensors").read_bytes()
        sha256(data).hexdigest()
        for name, tensor in safetensors.torch.load(data).items():
            self.tensors[name].copy_(tensor)


def synced(path: Path) -> None:
    """Sync a file or a folder."""
    number = os.open(path, os.O_RDONLY)
    os.fsync(number)
    os.close(number)


def seconds(call: Callable[[], Any]) -> float:
    """Time a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def save_in_background(repository: Repository, model: Model) -> None:
    """Save in the background, and wait for it."""
    repository.save(model, wait=False)
    repository.flush()


def torch_save(model: Model, folder: Path) -> None:
    """Save as most do, and sync."""
    path = folder / "torch.pt"
    torch.save({"model": model.state_dict(), "optimizer": model.optimizer.state_dict()}, path)
    synced(path)


def torch_load(model: Model, folder: Path) -> None:
    """Load as most should."""
    state = torch.load(folder / "torch.pt", weights_only=True)
    model.load_state_dict(state["model"])
    model.optimizer.load_state_dict(state["optimizer"])


class Distributed:
    """torch.distributed.checkpoint, with its pinned or shared staging left at the default."""

    def __init__(self, model: Model, folder: Path) -> None:
        self.model, self.folder, self.number = model, folder, 0

    def state(self) -> dict[str, Any]:
        """Return what it is to save."""
        return {"state": tensors_of(self.model)}

    def begin(self) -> Any:
        """Begin a save in the background."""
        self.number += 1
        return async_save(
            self.state(),
            checkpoint_id=self.folder / f"dcp-{self.number}",
            async_checkpointer_type=AsyncCheckpointerType.THREAD,
        )

    def restore(self) -> None:
        """Read it into place."""
        dcp_load(self.state(), checkpoint_id=self.folder / f"dcp-{self.number}")


def measure(folder: Path) -> dict[str, dict[str, list[float]]]:
    """Let all take turns, and return the seconds of each."""
    model = make_model()
    for name in ("hand", "ours", "others"):
        (folder / name).mkdir()
    hand = ByHand(model, folder / "hand")
    distributed = Distributed(model, folder / "others")
    repository = Repository(folder / "ours")
    tidy = Repository(folder / "ours", run="tidy", retention=Retention(keep_last=2))
    times: dict[str, dict[str, list[float]]] = {"stall": {}, "durable": {}, "restored": {}}

    def note(kind: str, name: str, spent: float) -> None:
        times[kind].setdefault(name, []).append(spent)

    for _ in range(ROUNDS + 1):
        note("stall", "the bare work", seconds(hand.copy))
        note("stall", "torchsystem", seconds(lambda: repository.save(model, wait=False)))
        repository.flush()
        note("durable", "the bare work", seconds(hand.save))
        note("durable", "torchsystem", seconds(lambda: repository.save(model)))
        note("durable", "torchsystem, in the background", seconds(lambda: save_in_background(repository, model)))
        note("durable", "torchsystem, keep_last=2", seconds(lambda: tidy.save(model)))
        note("restored", "the bare work", seconds(hand.restore))
        note("restored", "torchsystem", seconds(lambda: repository.restore(model)))

        note("stall", "torch.save", seconds(lambda: torch_save(model, folder / "others")))
        note("durable", "torch.save", times["stall"]["torch.save"][-1])
        note("restored", "torch.load (nothing verified)", seconds(lambda: torch_load(model, folder / "others")))
        start = time.perf_counter()
        future = distributed.begin()
        note("stall", "dcp.async_save", time.perf_counter() - start)
        future.result()
        note("durable", "dcp.async_save (not synced)", time.perf_counter() - start)
        note("restored", "dcp.load (nothing verified)", seconds(distributed.restore))
        for old in [
            *(folder / "hand").iterdir(),
            *(folder / "others").glob("dcp-*"),
            *(folder / "ours/default/model").iterdir(),
        ]:
            shutil.rmtree(old)
        hand.number = 0
        os.sync()
    repository.close()
    tidy.close()
    return {kind: {name: spent[1:] for name, spent in each.items()} for kind, each in times.items()}


def main() -> int:
    """Print the table, and return the exit status."""
    warnings.simplefilter("ignore")
    parent = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        times = measure(folder)
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)
    kept = True
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(make_model()).values()) / 1e6
    print(f"\nA checkpoint of {size:.0f} MB, {torch.get_num_threads()} threads, best of {ROUNDS} rounds\n")
    for kind, each in times.items():
        floor = min(each["the bare work"])
        print(f"  {kind}, beside {1000 * floor:.0f} ms of bare work")
        for name, spent in each.items():
            ratio = min(spent) / floor
            middle = statistics.median(spent) / statistics.median(each["the bare work"])
            target = TARGETS.get(kind) if name == "torchsystem" else None
            verdict = "" if target is None else f"  (≤ {target:.2f} {'✓' if ratio <= target else '✗'})"
            kept = kept and (target is None or ratio <= target)
            print(f"    {name:32} {ratio:6.2f}x   median {middle:6.2f}x{verdict}")
        print()
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
