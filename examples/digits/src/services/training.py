"""The training service: it knows no device, no writer and no file. What it needs, it says; what happened, it tells."""

from collections.abc import Mapping

import torch

from src.domain import Loader, Metrics, Results
from torchsystem import Aggregate
from torchsystem.services import Depends, Producer, Service
from torchsystem.training import batches, epochs, interrupts

service = Service("training")
producer = Producer()


def device() -> str:
    """Say where to train."""


@service.handler
def fit(model: Aggregate, loaders: Mapping[str, Loader], metrics: Metrics, total: int) -> None:
    with interrupts():  # Ctrl-C is acted on between two batches
        for epoch in epochs(model, producer, epochs=total):
            epoch.keep("metrics", metrics)  # whoever goes on in the middle of an epoch has what was gathered in it
            for split in epoch.left(loaders):
                run = train if split == "train" else validate
                epoch.report(split, run(model, batches(epoch, loaders[split], split=split), metrics))


@service.handler
def train(model: Aggregate, loader: Loader, metrics: Metrics, device: str = Depends(device)) -> Results:
    model.phase = "train"
    for inputs, targets in loader:
        inputs, targets = inputs.to(device), targets.to(device)
        predictions, loss = model.fit(inputs, targets)
        metrics.update(predictions, targets, loss)
    return metrics.compute()


@service.handler
def validate(model: Aggregate, loader: Loader, metrics: Metrics, device: str = Depends(device)) -> Results:
    model.phase = "evaluation"
    with torch.no_grad():
        for inputs, targets in loader:
            inputs, targets = inputs.to(device), targets.to(device)
            predictions, loss = model.evaluate(inputs, targets)
            metrics.update(predictions, targets, loss)
    return metrics.compute()
