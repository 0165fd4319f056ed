"""The life of a run: the loop, ready made or as generators for one's own, and its events.

```python
from torch import manual_seed, nn, optim, tensor

from torchsystem.training import EarlyStopping, Supervised, Training, accuracy, device, metrics

manual_seed(0)

training = Training()
training.override(device, lambda: "cpu")
training.override(metrics, lambda: {"accuracy": accuracy})
training.producer.register(EarlyStopping("validation/loss", "min", patience=3))

network = nn.Linear(2, 2)
model = Supervised(network, nn.CrossEntropyLoss(), optim.SGD(network.parameters(), lr=1.0))
loader = [(tensor([[0.0, 1.0], [1.0, 0.0]]), tensor([1, 0]))]
history = training.handle("fit", model, {"train": loader, "validation": loader}, epochs=10)

assert history[-1]["validation/accuracy"] == 1.0
```
"""

from torchsystem.training.averaging import WeightAverage
from torchsystem.training.epoch import Epoch
from torchsystem.training.guards import StopOnDegeneratePredictions, StopOnNonFinite, StopOnThreshold
from torchsystem.training.interrupts import interrupts
from torchsystem.training.loop import batches, epochs
from torchsystem.training.metrics import accuracy
from torchsystem.training.optimization import Optimization
from torchsystem.training.randomness import seed
from torchsystem.training.service import Training
from torchsystem.training.settings import device, metrics, precision
from torchsystem.training.splits import Split
from torchsystem.training.stopping import EarlyStopping
from torchsystem.training.supervised import Supervised

__all__ = [
    "EarlyStopping",
    "Epoch",
    "Optimization",
    "Split",
    "StopOnDegeneratePredictions",
    "StopOnNonFinite",
    "StopOnThreshold",
    "Supervised",
    "Training",
    "WeightAverage",
    "accuracy",
    "batches",
    "device",
    "epochs",
    "interrupts",
    "metrics",
    "precision",
    "seed",
]
