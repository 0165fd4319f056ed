"""A listener that draws every metric, by phase, over the epochs."""

from collections.abc import Iterator
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from src.services.training import Iterated
from torchsystem.services import Consumer, Depends

consumer = Consumer("tensorboard")


def folder() -> Path:
    """Say where the curves go."""


def writer(folder: Path = Depends(folder)) -> Iterator[SummaryWriter]:
    with SummaryWriter(folder) as writer:
        yield writer


@consumer.handler
def draw(event: Iterated, writer: SummaryWriter = Depends(writer, scope="provider")) -> None:
    for phase, results in event.results.items():
        for metric, value in results.items():
            writer.add_scalar(f"{metric}/{phase}", value, event.epoch)
