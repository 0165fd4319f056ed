"""What a thing is: the identity of an object is how it was constructed.

```python
from torchsystem.registry import gethash, getmetadata, register


@register
class Perceptron:
    def __init__(self, features: int, hidden: int = 64) -> None: ...


assert gethash(Perceptron(784)) == gethash(Perceptron(features=784, hidden=64))
assert getmetadata(Perceptron(784))["arguments"] == {"features": 784}
```
"""

from torchsystem.registry import canonical
from torchsystem.registry.accessors import getarguments, gethash, getmetadata, getname, sethash, setname
from torchsystem.registry.catalogue import Registry
from torchsystem.registry.core import register
from torchsystem.registry.fingerprint import fingerprint

__all__ = [
    "Registry",
    "canonical",
    "fingerprint",
    "getarguments",
    "gethash",
    "getmetadata",
    "getname",
    "register",
    "sethash",
    "setname",
]
