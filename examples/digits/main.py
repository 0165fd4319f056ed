"""The composition root: the one place where everything is put together."""

from pathlib import Path

import torch
from torch.nn import CrossEntropyLoss
from torch.optim import AdamW

from src.data import digits
from src.metrics import ClassificationMetrics
from src.network import ConvNet
from src.services import checkpoints, compilation, earlystopping, tensorboard, training
from torchsystem.services import Consumer

RUNS = Path(__file__).parent / "runs"
EPOCHS = 60  # per run, if nothing stops it before

report = Consumer("report")


@report.handler
def show(event: training.Iterated) -> None:
    train, validation = event.results["train"], event.results["validation"]
    print(
        f"epoch {event.epoch:3}   train loss {train['loss']:.4f}   "
        f"validation loss {validation['loss']:.4f}   accuracy {validation['accuracy']:6.2%}"
    )


device = "cuda" if torch.cuda.is_available() else "cpu"
training.service.override(training.device, lambda: device)
compilation.compiler.override(compilation.device, lambda: device)
compilation.compiler.override(compilation.backend, lambda: "aot_eager")  # needs no C++; "inductor" pays on more
compilation.compiler.override(compilation.folder, lambda: RUNS / "checkpoints")
checkpoints.consumer.override(checkpoints.folder, lambda: RUNS / "checkpoints")
tensorboard.consumer.override(tensorboard.folder, lambda: RUNS / "tensorboard")
patience = earlystopping.Patience(epochs=4)
earlystopping.subscriber.override(earlystopping.patience, lambda: patience)

training.producer.register(report, tensorboard.consumer, checkpoints.consumer, earlystopping.consumer)


def main() -> None:
    torch.set_num_threads(1)  # on images this small, threads wait for one another more than they compute
    torch.manual_seed(0)
    nn = ConvNet()
    classifier = compilation.compiler.compile(nn, CrossEntropyLoss(), AdamW(nn.parameters(), lr=3e-3))
    first = classifier.epoch
    print(f"{'Continuing' if first else 'Starting'} {classifier.id} at epoch {first + 1} on {device}")

    loaders, metrics = digits(), ClassificationMetrics()
    reason = f"{EPOCHS} epochs are done"
    with tensorboard.consumer:
        try:
            for _ in range(EPOCHS):
                training.service.handle("iterate", classifier, loaders, metrics)
        except StopIteration as stop:
            reason = str(stop)

    results = training.validate(classifier, loaders["validation"], metrics)
    print(f"\nStopped: {reason}\n")
    for name, value in {
        "epochs in all": f"{classifier.epoch}",
        "validation loss": f"{results['loss']:.4f}",
        "validation accuracy": f"{results['accuracy']:.2%}",
        "checkpoint": f"{relative(RUNS / 'checkpoints' / classifier.id)}.pt",
    }.items():
        print(f"  {name:22}{value}")
    print("\nTo look at the curves:  .venv/bin/tensorboard --logdir", relative(RUNS / "tensorboard"))
    print("To go on from here:     make demo")
    print("To begin anew:          rm -r", relative(RUNS))


def relative(path: Path) -> Path:
    """Shorten a path for who stands here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    main()
