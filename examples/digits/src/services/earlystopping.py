"""A listener that asks the model to stop when it no longer gets better. It cannot stop anybody: it can only ask."""

from src.domain import Model
from src.services.training import Validated
from torchsystem.services import Consumer, Depends, Publisher, Subscriber, event

consumer = Consumer("early stopping")
publisher = Publisher()
subscriber = Subscriber("patience")
publisher.register(subscriber)


@event
class Measured:
    model: Model
    value: float


class Patience:
    """Count the epochs since the lowest value."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.lowest = float("inf")
        self.waited = 0

    def ends(self, value: float) -> bool:
        """Take in the value of one more epoch, and tell whether it was one too many."""
        self.waited = 0 if value < self.lowest else self.waited + 1
        self.lowest = min(self.lowest, value)
        return self.waited >= self.epochs


def patience() -> Patience:
    """Say how long to wait for something better."""


@consumer.handler
def publish(event: Validated) -> None:
    for metric, value in event.results.items():
        publisher.publish(Measured(event.model, value), metric)


@subscriber.subscribe("loss")
def stop_without_progress(loss: Measured, patience: Patience = Depends(patience)) -> None:
    if patience.ends(loss.value):
        loss.model.events.enqueue(StopIteration(f"no lower validation loss in {patience.epochs} epochs"))
