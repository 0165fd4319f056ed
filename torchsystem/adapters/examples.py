"""Examples of what an aggregate predicts, to look at in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice, zip_longest
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from torchsystem.errors import InvalidExample, InvalidOption
from torchsystem.training.events import BatchPredicted

ONE, MANY = 3, 4  # dimensions of an image, and of several


class FirstExamples:
    """Show the first examples of a batch: a table of predictions and targets, and the images in the metadata.

    An image in the metadata is a tensor with one row per example, of shape `(examples, channels, height, width)`, with
    1 or 3 channels: the metadata itself, or what stands in it under some name. Of a mapping of predictions, or of
    targets, each example has what stands under all names.

    Args:
        count: How many.

    Raises:
        InvalidOption: That is no number of examples.

    Examples:
        >>> from torch import nn, tensor
        >>> from torchsystem import Aggregate
        >>> from torchsystem.progress import Progress
        >>> from torchsystem.training.events import BatchPredicted
        >>> event = BatchPredicted(Aggregate(), Progress(), tensor([3, 5]), tensor([3, 6]), None, "test")
        >>> print(FirstExamples(2)(event)["predictions"])
        | example | prediction | target |
        | --- | --- | --- |
        | 0 | 3 | 3 |
        | 1 | 5 | 6 |
    """

    def __init__(self, count: int = 8) -> None:
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            message = f"FirstExamples({count!r}): write how many examples to show, 1 or more."
            raise InvalidOption(message)
        self.count = count

    def __call__(self, event: BatchPredicted) -> Mapping[str, Tensor | str]:
        """Return what to show, by title."""
        predictions, targets = self._rows(event.predictions), self._rows(event.targets)
        lines = ["| example | prediction | target |", "| --- | --- | --- |"]
        lines += [
            f"| {number} | {prediction} | {targets[number] if number < len(targets) else ''} |"
            for number, prediction in enumerate(predictions)
        ]
        found = event.metadata.items() if isinstance(event.metadata, Mapping) else [("images", event.metadata)]
        images = {
            str(name): each[: self.count]
            for name, each in found
            if isinstance(each, Tensor) and each.ndim == MANY and _is_visible(each)
        }
        return {"predictions": "\n".join(lines), **images}

    def _rows(self, values: Any) -> list[str]:
        if values is None:
            return []
        if isinstance(values, Mapping):
            columns = [[f"{name}: {cell}" for cell in self._rows(each)] for name, each in values.items()]
            return [", ".join(filter(None, row)) for row in zip_longest(*columns)]
        if isinstance(values, Tensor):
            values = values[: self.count].tolist() if values.ndim > 0 else [values.item()]
        try:
            return [_cell(each) for each in islice(values, self.count)]
        except TypeError:
            return [_cell(values)]


def show(writer: SummaryWriter, title: str, value: object, step: int) -> None:
    """Write an image, several, or text.

    Args:
        writer: Where to.
        title: The tag.
        value: An image of shape `(channels, height, width)`, several with one more dimension in front, or text in
            Markdown. Values that are no bytes are brought between 0 and 1 if they are not there.
        step: When it was.

    Raises:
        InvalidExample: It is nothing of that kind.
    """
    if isinstance(value, str):
        writer.add_text(title, value, step)
    elif isinstance(value, Tensor) and value.ndim in {ONE, MANY} and _is_visible(value):
        image = _visible(value.detach().cpu())
        writer.add_image(title, image, step) if value.ndim == ONE else writer.add_images(title, image, step)
    else:
        _refuse(title, value)


def _is_visible(image: Tensor) -> bool:
    return image.shape[-3] in {1, 3} and image.numel() > 0 and not image.is_complex()


def _visible(image: Tensor) -> Tensor:
    """Bring values between 0 and 1, those that are not finite to the nearest end."""
    if image.dtype == torch.uint8:
        return image
    image = image.to(torch.float32)
    finite = image[image.isfinite()]
    low, high = finite.aminmax() if len(finite) > 0 else (torch.zeros(()), torch.zeros(()))
    image = image.nan_to_num(nan=low.item(), posinf=high.item(), neginf=low.item())
    if low >= 0 and high <= 1:
        return image
    halves = image / 2, low / 2, high / 2  # of which no difference overflows
    return (halves[0] - halves[1]) / (halves[2] - halves[1]).clamp(min=torch.finfo(torch.float32).tiny)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_cell(each) for each in value) + "]"
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return shown.replace("|", "\\|").replace("\n", " ")


def _refuse(title: str, value: object) -> NoReturn:
    what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    message = (
        f"the example {title!r} is {what}. Give text, or an image as a tensor of shape (channels, height, width) with "
        f"1 or 3 channels, or several with one more dimension in front."
    )
    raise InvalidExample(message)
