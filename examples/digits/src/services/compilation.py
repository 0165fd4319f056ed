"""How a classifier comes into being: built, moved, compiled, and brought to where its run was."""

from torch.nn import Module
from torch.optim import Optimizer

from src.classifier import Classifier
from torchsystem.compiler import Compiler, Depends, compile
from torchsystem.storage import Repository

compiler = Compiler[Classifier]()


def device() -> str:
    """Say where the classifier lives."""


def backend() -> str:
    """Say what compiles its graphs."""


def repository() -> Repository:
    """Say where its checkpoints are."""


@compiler.step
def build_classifier(nn: Module, criterion: Module, optimizer: Optimizer) -> Classifier:
    return Classifier(nn, criterion, optimizer)


@compiler.step
def move_to_device(classifier: Classifier, device: str = Depends(device)) -> Classifier:
    return classifier.to(device)


@compiler.step
def compile_classifier(classifier: Classifier, backend: str = Depends(backend)) -> Classifier:
    return compile(classifier, backend=backend)


@compiler.step
def bring_to_where_it_was(classifier: Classifier, repository: Repository = Depends(repository)) -> Classifier:
    return repository.restore(classifier)
