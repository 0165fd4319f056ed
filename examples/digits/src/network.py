"""The network, registered: how it is constructed is what it is."""

from torch import Tensor
from torch.nn import Conv2d, Dropout, Flatten, Linear, MaxPool2d, Module, ReLU, Sequential

from torchsystem.registry import register


@register
class ConvNet(Module):
    """Map images of 8 x 8 pixels to the scores of ten digits."""

    def __init__(self, channels: int = 16, dropout: float = 0.3) -> None:
        super().__init__()
        self.layers = Sequential(
            Conv2d(1, channels, 3, padding=1),
            ReLU(),
            Conv2d(channels, 2 * channels, 3, padding=1),
            ReLU(),
            MaxPool2d(2),
            Flatten(),
            Dropout(dropout),
            Linear(2 * channels * 4 * 4, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)
