"""The 1,797 handwritten digits that ship with scikit-learn: real ones, 8 x 8 pixels, of 43 people."""

import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split

from src.domain import Loader


def digits(batch_size: int = 64) -> dict[str, Loader]:
    """Load four fifths to train on and one fifth to validate on, always the same."""
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    dataset = TensorDataset(images, torch.tensor(labels))
    train, validation = random_split(dataset, [0.8, 0.2], torch.Generator().manual_seed(0))
    return {
        "train": DataLoader(train, batch_size, shuffle=True),
        "validation": DataLoader(validation, batch_size),
    }
