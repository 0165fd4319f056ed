"""Five-fold cross-validation as a plan: kill it anywhere, and the same line goes on where it was."""

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from torch.nn import CrossEntropyLoss
from torch.optim import AdamW
from torch.utils.data import DataLoader, TensorDataset

from src.network import ConvNet
from torchsystem.adapters.checkpoints import Checkpoints
from torchsystem.plans import Journal, Plan, StepFinished, StepStarted, step_key
from torchsystem.services import Consumer, Depends, Service
from torchsystem.storage import Repository
from torchsystem.training import Supervised, Training, accuracy, device, metrics

RUNS = Path(__file__).parent / "runs"
FOLDS, EPOCHS = 5, 8

evaluation = Service("evaluation")
narrator = Consumer("narrator")


def split(fold: int) -> dict[str, DataLoader]:
    """Learn from four fifths, and keep the fifth that is this fold's to be tested on."""
    images, labels = load_digits(return_X_y=True)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(images, labels)
    inputs, targets = torch.tensor(images).float().reshape(-1, 1, 8, 8) / 16, torch.tensor(labels)
    train, test = list(folds)[fold]
    return {
        "train": DataLoader(TensorDataset(inputs[train], targets[train]), 64, shuffle=True),
        "test": DataLoader(TensorDataset(inputs[test], targets[test]), 256),
    }


@evaluation.handler
def train_fold(fold: int, epochs: int, key: str = Depends(step_key)) -> dict[str, float]:
    training = Training()
    training.override(device, lambda: "cpu")
    training.override(metrics, lambda: {"accuracy": accuracy})
    loaders, nn = split(fold), ConvNet()
    model = Supervised(nn, CrossEntropyLoss(), AdamW(nn.parameters(), lr=3e-3), id="fold")
    with Repository(RUNS / "folds", run=key) as repository:
        training.producer.register(Checkpoints(repository))
        repository.restore(model)  # where this very step was, if it was interrupted
        training.fit(model, {"train": loaders["train"]}, epochs=epochs)
    return training.validate(model, loaders["test"])


@evaluation.handler
def report(folds: list[dict[str, float]]) -> dict[str, float]:
    scores = torch.tensor([fold["accuracy"] for fold in folds], dtype=torch.float64)
    return {"mean": scores.mean().item(), "deviation": scores.std().item(), "worst": scores.min().item()}


@narrator.handler
def begin(event: StepStarted) -> None:
    print(f"{event.step:14} begins", flush=True)


@narrator.handler
def end(event: StepFinished) -> None:
    figures = "   ".join(f"{name} {value:.4f}" for name, value in event.result.items())
    print(f"{event.step:14} ends     {figures}", flush=True)


def main() -> None:
    torch.set_num_threads(1)  # on images this small, threads wait for one another more than they compute
    plan = Plan("digits-cv", services=[evaluation])
    plan.producer.register(narrator)
    folds = [plan.add("train-fold", fold=fold, epochs=EPOCHS) for fold in range(FOLDS)]
    plan.add("report", folds=folds)
    result = plan.run(Journal(RUNS / "digits-cv.db"))
    print(f"\naccuracy {result['mean']:.2%} ± {result['deviation']:.2%}, {result['worst']:.2%} in the worst fold\n")
    plan.show()


if __name__ == "__main__":
    main()
