"""A listener that keeps what was learned, so that the next run goes on from there."""

from pathlib import Path

import torch

from src.classifier import Classifier
from src.services.training import Iterated
from torchsystem.services import Consumer, Depends

consumer = Consumer("checkpoints")


def folder() -> Path:
    """Say where the checkpoints are."""


@consumer.handler
def save(event: Iterated, folder: Path = Depends(folder)) -> None:
    classifier = event.model
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "epoch": event.epoch,
        "nn": classifier.nn.state_dict(),
        "optimizer": classifier.optimizer.state_dict(),
    }
    unfinished = folder / f"{classifier.id}.part"
    torch.save(state, unfinished)
    unfinished.replace(folder / f"{classifier.id}.pt")  # whole, or as it was: also when we are killed


def restore(classifier: Classifier, folder: Path) -> Classifier:
    """Bring `classifier` to where the last run left it, if there was one of the same identity."""
    path = folder / f"{classifier.id}.pt"
    if path.exists():
        state = torch.load(path, weights_only=True)
        classifier.nn.load_state_dict(state["nn"])
        classifier.optimizer.load_state_dict(state["optimizer"])
        classifier.epoch = state["epoch"]
    return classifier
