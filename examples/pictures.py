"""Make the pictures of the documentation: train on handwritten digits, and let `Plots` draw.

python examples/pictures.py docs/pictures
"""

from __future__ import annotations

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset, random_split

from torchsystem.adapters.plots import Plots
from torchsystem.adapters.progress import ProgressBar
from torchsystem.training import Supervised, Training, accuracy, device, metrics


def main(folder: str) -> None:
    """Train, and leave the pictures in a folder."""
    torch.manual_seed(0)
    images, targets = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(targets))
    train, validation = random_split(data, [0.3, 0.7])
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
    model = Supervised(network, nn.CrossEntropyLoss(), optim.Adam(network.parameters(), lr=0.01))

    training = Training()
    training.override(device, lambda: "cpu")
    training.override(metrics, lambda: {"accuracy": accuracy})
    training.producer.register(ProgressBar(), Plots(folder, when=None))
    loaders = {"train": DataLoader(train, 64, shuffle=True), "validation": DataLoader(validation, 256)}
    training.handle("fit", model, loaders, epochs=30)


if __name__ == "__main__":
    main(*sys.argv[1:])
