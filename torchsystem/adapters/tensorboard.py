"""TensorBoard: a run to look at while it goes.

```python
from torchsystem.adapters.tensorboard import TensorBoard
from torchsystem.training import Training
from torchsystem.triggers import every

training = Training()
board = TensorBoard("runs/first", losses=every(100, "batches"), weights=every(1, "epochs"))
training.producer.register(board)
```
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from tensorboard.plugins.hparams.summary_v2 import (  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
    hparams_pb,
)
from torch import Tensor

from torchsystem.adapters.causes import said
from torchsystem.adapters.examples import FirstExamples, show
from torchsystem.adapters.histograms import gradients as gradients_of
from torchsystem.adapters.histograms import weights as weights_of
from torchsystem.adapters.histograms import write_histograms
from torchsystem.adapters.immediacy import Immediate
from torchsystem.adapters.losses import Losses
from torchsystem.adapters.moments import StepMoments
from torchsystem.adapters.parts import demand_optimization, describe, flat, learning_rates, scalar
from torchsystem.adapters.records import number
from torchsystem.adapters.redaction import redacted
from torchsystem.adapters.residents import Resident
from torchsystem.adapters.writers import Writers, writer, writers
from torchsystem.depends import Depends
from torchsystem.errors import InvalidOption, MissingMetric
from torchsystem.progress import Progress
from torchsystem.services import handler
from torchsystem.training.events import (
    BatchEnded,
    BatchPredicted,
    BatchStarted,
    EpochEnded,
    EpochStarted,
    GradientsUpdated,
    Interrupted,
    Lifecycle,
    ProcessStarted,
    Trained,
    TrainingEnded,
    TrainingFailed,
    Validated,
)
from torchsystem.triggers import Trigger

__all__ = ["FirstExamples", "TensorBoard", "Writers", "writer", "writers"]

Examples: TypeAlias = Callable[[BatchPredicted], Mapping[str, Tensor | str]]

BEFORE_CHECKPOINTS, LAST = -1, 1000  # orders: what a checkpoint says was written is written before it is made


class TensorBoard(Immediate, Resident):
    """Write what TensorBoard shows of a run: curves, learning rates, hyper-parameters, configuration, histograms.

    Every metric is a tag, such as `"loss"`, and every split a series of it, so that `"train"` and `"validation"` share
    the axes of one chart; their steps are epochs. What belongs to the run as a whole has batches for steps. Learning
    rates are written as epochs begin, and whenever losses are.

    Nothing is read from the device between the moments that a trigger says. What a checkpoint says was written is on
    disk; a run that goes on continues its curves, and what an earlier process wrote beyond that point is hidden.

    Args:
        path: The folder of the run. Without one it is that of the experiment, as for every `Resident`.
        hyperparameters: What to show as such, beside what the parts of the aggregate say of themselves.
        losses: When to write the losses of the batches since the last time, all of them: `every(100, "batches")`.
        weights: When to write histograms of the weights: where an epoch is crossed with the epoch, else with the batch.
        gradients: When to write histograms of the gradients, as they are before a step.
        examples: What to show of the first batch of a split that is predicted: how many examples, as `FirstExamples`
            does, or a function that returns images and texts by title.
        name: What to call it, and its state.
        project: As for every `Resident`.
        experiment: As for every `Resident`.
        run: As for every `Resident`.
        storage: As for every `Resident`.

    Raises:
        InvalidOption: What should be a trigger is none.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from torch import nn, optim, tensor
        >>> from torchsystem.adapters.tensorboard import TensorBoard
        >>> from torchsystem.training import Supervised, Training, device
        >>> network = nn.Linear(2, 2)
        >>> model = Supervised(network, nn.CrossEntropyLoss(), optim.SGD(network.parameters(), lr=0.1))
        >>> loader = [(tensor([[0.0, 1.0]]), tensor([1]))]
        >>> training = Training()
        >>> training.override(device, lambda: "cpu") and None
        >>> with TemporaryDirectory() as folder:
        ...     training.producer.register(TensorBoard(folder))
        ...     history = training.fit(model, {"train": loader, "validation": loader}, epochs=3)
        ...     sorted(each.name for each in Path(folder).iterdir() if each.is_dir())
        ['train', 'validation']
    """

    kind: ClassVar[str] = "tensorboard"
    is_alone: ClassVar[bool] = True

    def __init__(  # noqa: PLR0913 - each says one thing to show, or where
        self,
        path: str | Path | None = None,
        *,
        hyperparameters: Mapping[str, Any] | None = None,
        losses: Trigger | None = None,
        weights: Trigger | None = None,
        gradients: Trigger | None = None,
        examples: int | Examples | None = None,
        name: str = "tensorboard",
        project: str | None = None,
        experiment: str | None = None,
        run: str | None = None,
        storage: str | Path | None = None,
    ) -> None:
        super().__init__(name, path=path, project=project, experiment=experiment, run=run, storage=storage)
        _check(losses=losses, weights=weights, gradients=gradients)
        self.hyperparameters = {} if hyperparameters is None else dict(hyperparameters)
        self._start = Progress()
        self._writers: Writers | None = None
        self._rated: int | None = None  # the batch whose learning rates were written last
        self._losses = Losses()
        self._is_in_epoch = False
        self._moments = None if gradients is None else StepMoments(gradients)
        self.override(writers, self._opened, scope="provider")
        if losses is not None:
            self.handler(self._keep_loss)
            self.handler(when=losses)(self._write_losses)
            self.handler(when=losses)(self._write_batch_rates)
        if weights is not None:
            self.handler(when=weights, order=BEFORE_CHECKPOINTS)(self._write_weights)
        if gradients is not None:
            self.handler(self._write_gradients)
        self._examples = FirstExamples(examples) if isinstance(examples, int) else _callable(examples)
        self._shown: dict[str, int] = {}  # after which batch the examples of a split were shown last
        if self._examples is not None:
            self.handler(self._write_examples)

    @handler(order=BEFORE_CHECKPOINTS - 1)
    def begin(self, event: ProcessStarted) -> None:
        """Begin where the run does, or where it goes on.

        Raises:
            MissingOptimization: Histograms of gradients are wanted, and nothing tells of the gradients.
        """
        if self._moments is not None:
            demand_optimization(self.name, event.aggregate)
        self.close()
        self._start, self._is_in_epoch = event.progress, True  # an epoch that is gone on with may not begin again

    @handler(order=BEFORE_CHECKPOINTS)
    def describe(self, event: ProcessStarted, writers: Writers = Depends(writers)) -> None:
        """Write what is trained: its configuration as text, and its hyper-parameters."""
        root: Any = writers()  # torch does not tell type checkers that it has a `file_writer`
        described, given = redacted(describe(event.aggregate)), redacted(self.hyperparameters)
        text = json.dumps({**described, "hyperparameters": given}, indent=2, default=scalar)
        root.add_text("configuration", f"```json\n{text}\n```", event.progress.batch + 1)
        trial = "/".join(writers.folder.absolute().parts[-4:])  # of equal ones TensorBoard would show one
        root.file_writer.add_summary(hparams_pb({**flat(described), **flat(given)}, trial_id=trial), 0)

    @handler(order=BEFORE_CHECKPOINTS)
    def begin_epoch(self, event: EpochStarted, writers: Writers = Depends(writers)) -> None:
        """Write what the epoch begins to learn with."""
        self._is_in_epoch = True
        self._write_rates(event, writers)

    @handler(order=BEFORE_CHECKPOINTS)
    def measured(self, event: Trained | Validated, writers: Writers = Depends(writers)) -> None:
        """Write the metrics of a split that is gone through by itself; those of an epoch come with its end."""
        if not self._is_in_epoch:
            split = event.split if isinstance(event, Validated) else "train"
            with writers.writing():
                for name, value in event.metrics.items():
                    writers(split).add_scalar(name, number(value, name), event.progress.epoch)

    @handler(order=BEFORE_CHECKPOINTS)
    def end_epoch(self, event: EpochEnded, writers: Writers = Depends(writers)) -> None:
        """Write the metrics of the epoch, and have all on disk."""
        self._is_in_epoch = False
        with writers.writing():
            for key, value in event.metrics.items():
                split, _, name = key.partition("/")
                writers(split).add_scalar(name, number(value, name), event.progress.epoch)
        self.flush()

    @handler(order=LAST - 1)
    def fail(self, event: TrainingFailed, writers: Writers = Depends(writers)) -> None:
        """Write how the run failed."""
        self._drain(writers)
        with writers.writing():
            writers().add_text("failure", said(event.error), event.progress.batch + 1)

    @handler(order=LAST)
    def end(self, _event: TrainingEnded | TrainingFailed | Interrupted) -> None:
        """Close what is open; a run that goes on opens it anew."""
        self.close()

    def flush(self) -> None:
        """Have all that is known on disk."""
        if self._writers is not None:
            self._drain(self._writers)
            self._writers.flush()

    def close(self) -> None:
        """Have all that is known on disk, and close what is open."""
        self._is_in_epoch, self._rated = False, None
        try:
            if self._writers is not None:
                self._drain(self._writers)
        finally:
            super().close()

    def state_dict(self) -> dict[str, Any]:
        """Return what it remembers; what came before is on disk then, so that there will be no gap in the curves."""
        self.flush()
        moments = {} if self._moments is None else self._moments.state()
        return {**super().state_dict(), "gradients": moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what was remembered."""
        super().load_state_dict({name: value for name, value in state.items() if name != "gradients"})
        if self._moments is not None:
            self._moments.restore(state.get("gradients", {}))

    def _opened(self) -> Generator[Writers]:
        opened = self._writers = Writers(self.folder, self._start)
        try:
            yield opened
        finally:
            self._writers = None
            opened.close()

    def _keep_loss(self, event: BatchEnded) -> None:
        if event.loss is None:
            message = (
                f"{self.name} shall write losses, and the loop does not tell them. Write "
                f"`epoch.fitted = predictions, loss` after each batch, or leave out `losses=`."
            )
            raise MissingMetric(message)
        self._losses.keep(event.progress.batch, event.loss)

    def _write_losses(self, _event: BatchEnded, writers: Writers = Depends(writers)) -> None:
        self._drain(writers)

    def _write_batch_rates(self, event: BatchStarted, writers: Writers = Depends(writers)) -> None:
        self._write_rates(event, writers)

    def _drain(self, writers: Writers) -> None:
        """Write the losses that are kept, read from the device in one go."""
        losses = list(self._losses.read())
        with writers.writing():
            for loss in losses:
                writers().add_scalar("batch/loss", loss.value, loss.batch, loss.time)

    def _write_rates(self, event: Lifecycle, writers: Writers) -> None:
        """Write what the next batch is learned with, as what belongs to that batch."""
        batch = event.progress.batch + 1
        if batch == self._rated:
            return
        self._rated = batch
        with writers.writing():
            for name, rates in learning_rates(event.aggregate).items():
                for group, rate in enumerate(rates):
                    tag = f"learning rate/{name}" if len(rates) == 1 else f"learning rate/{name}/{group}"
                    writers().add_scalar(tag, float(rate), batch)

    def _write_weights(self, event: BatchEnded | EpochEnded, writers: Writers = Depends(writers)) -> None:
        """Write them with what they were learned by: the epoch, or within it the batch."""
        is_epoch, progress = isinstance(event, EpochEnded), event.progress
        with writers.writing():
            to, step = (writers("train"), progress.epoch) if is_epoch else (writers(), progress.batch)
            write_histograms(to, "weights", weights_of(event.aggregate), step)

    def _write_gradients(self, event: GradientsUpdated, writers: Writers = Depends(writers)) -> None:
        if self._moments is not None and self._moments.has_come(event):
            with writers.writing():
                write_histograms(writers(), "gradients", gradients_of(event.aggregate), event.progress.batch + 1)

    def _write_examples(self, event: BatchPredicted, writers: Writers = Depends(writers)) -> None:
        batch = event.progress.batch
        if self._examples is None or self._shown.get(event.dataset) == batch:
            return
        self._shown[event.dataset] = batch
        examples = self._examples(event)
        with writers.writing():
            for title, value in examples.items():
                show(writers(), f"{event.dataset}/{title}", value, batch)


def _callable(examples: Examples | None) -> Examples | None:
    if examples is not None and not callable(examples):
        message = f"TensorBoard(examples={examples!r}): write how many to show, or a function of a BatchPredicted."
        raise InvalidOption(message)
    return examples


def _check(**triggers: object) -> None:
    for name, trigger in triggers.items():
        if trigger is not None and not isinstance(trigger, Trigger):
            message = f"TensorBoard({name}={trigger!r}): this is no trigger. Write {name}=every(100, 'batches')."
            raise InvalidOption(message)
