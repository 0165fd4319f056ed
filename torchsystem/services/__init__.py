"""Services act; consumers and subscribers listen.

- `Service`: handlers of actions, called by name.
- `Producer`, `Consumer`: events, delivered by type.
- `handler`: marks the methods of a class of consumers.
- `deferred`, `background`: other ways to be delivered to than at once.
- `Registered`, `HandlerFailed`: what producers tell of themselves.
- `Publisher`, `Subscriber`: messages, delivered by topic.
- `event`: makes a class an event.
- `Depends`: says what a handler needs.
"""

from torchsystem.depends import Depends
from torchsystem.services.consumer import Consumer
from torchsystem.services.failures import HandlerFailed
from torchsystem.services.marks import handler
from torchsystem.services.messages import event
from torchsystem.services.modes import background, deferred
from torchsystem.services.prodcon import Producer, Registered
from torchsystem.services.pubsub import Publisher, Subscriber
from torchsystem.services.service import Service

__all__ = [
    "Consumer",
    "Depends",
    "HandlerFailed",
    "Producer",
    "Publisher",
    "Registered",
    "Service",
    "Subscriber",
    "background",
    "deferred",
    "event",
    "handler",
]
