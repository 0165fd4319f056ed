"""The composition root: the one place where everything is put together."""

from pathlib import Path

import torch
from torch.nn import CrossEntropyLoss
from torch.optim import AdamW

from src.data import digits
from src.metrics import ClassificationMetrics
from src.network import ConvNet
from src.services import compilation, training
from torchsystem.adapters.alert import Alert
from torchsystem.adapters.checkpoints import Checkpoints
from torchsystem.adapters.experiment import Experiment
from torchsystem.adapters.gradients import Gradients
from torchsystem.adapters.history import History
from torchsystem.adapters.learning_rate import LearningRate
from torchsystem.adapters.plots import Plots
from torchsystem.adapters.progress import ProgressBar
from torchsystem.adapters.snapshot import Snapshot
from torchsystem.adapters.tensorboard import TensorBoard
from torchsystem.storage import Repository
from torchsystem.training import EarlyStopping, seed
from torchsystem.triggers import every

RUNS = Path(__file__).parent / "runs"
EPOCHS = 60  # in all, if nothing stops it before


def main() -> None:
    torch.set_num_threads(1)  # on images this small, threads wait for one another more than they compute
    seed(0)
    with (
        Experiment("digits", "convnet", "baseline", storage=RUNS) as experiment,
        Repository(experiment.folder / "checkpoints") as repository,
        training.producer,
    ):
        history = History()
        experiment.register(
            training.producer,
            ProgressBar(),
            history,
            Plots(history=history),
            TensorBoard(weights=every(5, "epochs")),
            LearningRate(),
            Gradients(every(50, "steps")),
            Snapshot(),
            Alert("validation/loss", above=1.0),
            EarlyStopping("validation/loss", "min", patience=4),
            Checkpoints(repository, every=every(10, "batches"), keep_best=("validation/accuracy", "max")),
        )
        run(experiment, repository)


def run(experiment: Experiment, repository: Repository) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    training.service.override(training.device, lambda: device)
    compilation.compiler.override(compilation.device, lambda: device)
    compilation.compiler.override(compilation.backend, lambda: "aot_eager")  # needs no C++; "inductor" pays on more
    compilation.compiler.override(compilation.repository, lambda: repository)

    nn = ConvNet()
    classifier = compilation.compiler.compile(nn, CrossEntropyLoss(), AdamW(nn.parameters(), lr=3e-3))
    begun = classifier.progress.batch
    print(f"{f'Continuing after batch {begun} of' if begun else 'Starting'} {classifier.id} on {device}")

    loaders, metrics = digits(), ClassificationMetrics()
    training.service.handle("fit", classifier, loaders, metrics, EPOCHS)
    results = training.validate(classifier, loaders["validation"], metrics)
    print()
    for name, value in {
        "epochs in all": f"{classifier.epoch}",
        "validation loss": f"{results['loss']:.4f}",
        "validation accuracy": f"{results['accuracy']:.2%}",
        "checkpoints": f"{len(repository.checkpoints(classifier))}",
    }.items():
        print(f"  {name:22}{value}")
    print("\nTo look at the curves:  .venv/bin/tensorboard --logdir", relative(experiment.folder / "tensorboard"))
    print("To look at the files:   ls", relative(experiment.folder))
    print("To begin anew:          rm -r", relative(RUNS))


def relative(path: Path) -> Path:
    """Shorten a path for who stands here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    main()
