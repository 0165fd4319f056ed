"""Learning rates, recorded as a run goes: what each batch was learned with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torchsystem.adapters.immediacy import Immediate
from torchsystem.adapters.parts import learning_rates
from torchsystem.errors import InvalidState, MissingOptimizer
from torchsystem.services import handler
from torchsystem.training.events import BatchStarted, EpochStarted, Lifecycle, ProcessStarted, TrainingStarted
from torchsystem.triggers import Trigger


class Rate(NamedTuple):
    """The learning rate of a group of parameters, from some moment on.

    Attributes:
        epoch: How many epochs were finished then.
        batch: How many batches were trained on then: this is what the next one is learned with.
        step: How many optimizer steps were made then.
        optimizer: The name of the optimizer.
        group: The position of the group among those of the optimizer.
        value: The rate, warm-up included.
    """

    epoch: int
    batch: int
    step: int
    optimizer: str
    group: int
    value: float


class LearningRate(Immediate):
    """Record learning rates, at the beginning of each epoch or as often as a trigger says.

    What is recorded is its state, so that the records of a run that goes on have neither gaps nor doubles.

    Args:
        when: When to record within epochs, such as `every(1, "batches")`; without it, when epochs begin.
        name: What to call it, and its state.

    Attributes:
        records: What was recorded, in order.

    Examples:
        >>> from torch import nn, optim, tensor
        >>> from torchsystem.adapters.learning_rate import LearningRate
        >>> from torchsystem.training import Optimization, Supervised, Training, device
        >>> network = nn.Linear(2, 2)
        >>> optimizer = optim.SGD(network.parameters(), lr=0.5)
        >>> halving = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        >>> model = Supervised(network, nn.CrossEntropyLoss(), Optimization(optimizer, halving))
        >>> training, rates = Training(), LearningRate()
        >>> training.override(device, lambda: "cpu") and None
        >>> training.producer.register(rates)
        >>> loader = [(tensor([[0.0, 1.0]]), tensor([1]))]
        >>> history = training.fit(model, {"train": loader}, epochs=3)
        >>> [(record.batch, record.value) for record in rates.records]
        [(0, 0.5), (1, 0.25), (2, 0.125)]
    """

    def __init__(self, when: Trigger | None = None, *, name: str = "learning rate") -> None:
        super().__init__(name)
        self.records: list[Rate] = []
        if when is None:
            self.handler(order=-1)(self._on_epoch)
        else:
            self.handler(when=when, order=-1)(self._on_batch)

    def of(self, optimizer: str = "optimizer", group: int = 0) -> list[float]:
        """Return the rates of one group of parameters, in order.

        Args:
            optimizer: The name of the optimizer.
            group: The position of the group.
        """
        return [each.value for each in self.records if each.optimizer == optimizer and each.group == group]

    @handler
    def begin(self, event: ProcessStarted) -> None:
        """Forget what lies beyond where the run begins, or goes on.

        Raises:
            MissingOptimizer: The aggregate has none.
        """
        if not learning_rates(event.aggregate):
            message = (
                f"{self.name}: {type(event.aggregate).__qualname__} has no optimizer among its attributes, so it has "
                f"no learning rates. Make the optimizer, or the Optimization, an attribute of it."
            )
            raise MissingOptimizer(message)
        self.records = [each for each in self.records if each.batch <= event.progress.batch]

    @handler
    def begin_anew(self, _event: TrainingStarted) -> None:
        """Forget everything: what was recorded was another run's."""
        self.records = []

    def state_dict(self) -> dict[str, Any]:
        """Return what it remembers, beside what every consumer does."""
        return {**super().state_dict(), "records": [list(each) for each in self.records]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what was remembered.

        Raises:
            InvalidState: It was remembered by another kind of listener. Nothing is changed then.
        """
        try:
            records = [Rate(*each) for each in state["records"]]
        except (KeyError, TypeError) as error:
            message = f"This is not the state of {self!r}: it has no records. Load what `state_dict()` returned."
            raise InvalidState(message) from error
        super().load_state_dict({name: value for name, value in state.items() if name != "records"})
        self.records = records

    def _on_epoch(self, event: EpochStarted) -> None:
        self._record(event)

    def _on_batch(self, event: BatchStarted) -> None:
        self._record(event)

    def _record(self, event: Lifecycle) -> None:
        progress = event.progress
        if self.records and self.records[-1].batch == progress.batch:
            return  # an epoch that is gone on with, or in which nothing was learned
        for name, rates in learning_rates(event.aggregate).items():
            for group, rate in enumerate(rates):
                self.records.append(Rate(progress.epoch, progress.batch, progress.step, name, group, float(rate)))
