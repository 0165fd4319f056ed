"""Services act; consumers and subscribers listen.

- `Service`: handlers of actions, called by name.
- `Producer`, `Consumer`: events, delivered by type.
- `handler`: marks the methods of a class of consumers.
- `Publisher`, `Subscriber`: messages, delivered by topic.
- `event`: makes a class an event.
- `Depends`: says what a handler needs.
"""

from torchsystem.depends import Depends
from torchsystem.services.marks import handler
from torchsystem.services.messages import event
from torchsystem.services.prodcon import Consumer, Producer
from torchsystem.services.pubsub import Publisher, Subscriber
from torchsystem.services.service import Service

__all__ = ["Consumer", "Depends", "Producer", "Publisher", "Service", "Subscriber", "event", "handler"]
