"""Runs to look at, event files to read, and the real TensorBoard to show them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn, optim

from torchsystem.domain.snapshot import Snapshot
from torchsystem.progress import Progress
from torchsystem.services import Consumer
from torchsystem.training import Optimization, Supervised, Training, device

Curve = list[tuple[int, float]]


def network() -> nn.Module:
    """Make a perceptron, always with the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))


def learner() -> Supervised:
    """Make a classifier whose learning rate is halved after each epoch."""
    layers = network()
    optimizer = optim.SGD(layers.parameters(), lr=0.5)
    halving = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    return Supervised(layers, nn.CrossEntropyLoss(), Optimization(optimizer, halving))


def resumed(snapshot: Snapshot) -> Supervised:
    """Make the classifier anew, as another process would, and put it where it was."""
    model = learner()
    vars(model)["progress"] = Progress()
    return model.restore(snapshot)


def loaders(batches: int = 3) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Make batches that are the same in every run."""
    generator = torch.Generator().manual_seed(1)
    made = [(torch.randn(8, 2, generator=generator), torch.arange(8) % 2) for _ in range(batches + 1)]
    return {"train": made[:-1], "validation": made[-1:]}


def training(*listeners: Consumer) -> Training:
    """Make a training on the CPU that some hear of."""
    made = Training()
    made.override(device, lambda: "cpu")
    made.producer.register(*listeners)
    return made


def take_turns(alone: Consumer, first: Consumer, second: Consumer, *, kept: int, lost: int) -> Snapshot:
    """Let one listener hear a whole run of six epochs, and two others the same run, cut and gone on with.

    Args:
        alone: Who hears the whole run.
        first: Who hears it until it is cut.
        second: Who has the first one's memory, and hears the rest.
        kept: After how many epochs the run was kept.
        lost: How many more the first one hears of, which the second one hears of again.

    Returns:
        What was kept of the aggregate.
    """
    training(alone).fit(learner(), loaders(3), epochs=6)
    model = learner()
    training(first).fit(model, loaders(3), epochs=kept)
    snapshot, state = model.snapshot(), json.loads(json.dumps(first.state_dict()))
    training(first).fit(model, loaders(3), epochs=kept + lost)
    second.load_state_dict(state)
    training(second).fit(resumed(snapshot), loaders(3), epochs=6)
    return snapshot


def read(folder: Path) -> EventAccumulator:
    """Read the event files of a series, as TensorBoard does without its fast loader."""
    accumulator = EventAccumulator(str(folder), {"scalars": 0, "tensors": 0, "histograms": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def curve(folder: Path, tag: str = "loss") -> Curve:
    """Return the steps and values of a curve."""
    return [(each.step, each.value) for each in read(folder).Scalars(tag)]


def text(folder: Path, tag: str) -> list[tuple[int, str]]:
    """Return the steps and texts of a tag."""
    found = read(folder).Tensors(f"{tag}/text_summary")
    return [(each.step, each.tensor_proto.string_val[0].decode()) for each in found]


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Start the real TensorBoard on a free port of loopback, and yield its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(  # noqa: S603 - all of it is ours
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"http://\S+:\d+/", line):
                yield found.group().rstrip("/")
                return
        raise AssertionError(f"TensorBoard did not start: {said}")
    finally:
        process.terminate()
        process.communicate()


def ask(address: str, path: str, *, body: Any = None, until: Any = bool, seconds: float = 200.0) -> Any:
    """Ask the server until it has read what there is to read."""
    data = None if body is None else json.dumps(body).encode()
    limit = time.monotonic() + seconds
    while True:
        request = Request(f"{address}/data/plugin/{path}", data, {"Content-Type": "application/json"})  # noqa: S310 - of loopback
        try:
            with urlopen(request) as response:  # noqa: S310 - as above
                answer = json.loads(response.read())
            if until(answer):
                return answer
        except HTTPError as error:  # it does not know yet what is asked for
            answer = error.reason
            error.close()
        assert time.monotonic() < limit, f"{path}: {answer}"
        time.sleep(0.1)
