"""The training service: it knows no device, no writer and no file. What it needs, it says; what happened, it tells."""

from collections.abc import Mapping

import torch

from src.domain import Loader, Metrics, Model, Results
from torchsystem.services import Depends, Producer, Service, event

service = Service("training")
producer = Producer()


def device() -> str:
    """Say where to train."""


@event
class Trained:
    model: Model
    results: Results


@event
class Validated:
    model: Model
    results: Results


@event
class Iterated:
    model: Model
    epoch: int
    results: Mapping[str, Results]


@service.handler
def iterate(model: Model, loaders: Mapping[str, Loader], metrics: Metrics) -> None:
    epoch = model.epoch + 1
    results = {
        "train": train(model, loaders["train"], metrics),
        "validation": validate(model, loaders["validation"], metrics),
    }
    producer.dispatch(Iterated(model, epoch, results))
    model.epoch = epoch  # the model commits its events: whoever asked for a stop gets it here, after the facts are out


@service.handler
def train(model: Model, loader: Loader, metrics: Metrics, device: str = Depends(device)) -> Results:
    model.phase = "train"
    for inputs, targets in loader:
        inputs, targets = inputs.to(device), targets.to(device)
        predictions, loss = model.fit(inputs, targets)
        metrics.update(predictions, targets, loss)
    results = metrics.compute()
    producer.dispatch(Trained(model, results))
    return results


@service.handler
def validate(model: Model, loader: Loader, metrics: Metrics, device: str = Depends(device)) -> Results:
    model.phase = "evaluation"
    with torch.no_grad():
        for inputs, targets in loader:
            inputs, targets = inputs.to(device), targets.to(device)
            predictions, loss = model.evaluate(inputs, targets)
            metrics.update(predictions, targets, loss)
    results = metrics.compute()
    producer.dispatch(Validated(model, results))
    return results
