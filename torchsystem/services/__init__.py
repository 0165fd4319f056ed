"""Services act; consumers and subscribers listen.

- `Service`: handlers of actions, called by name.
- `Producer`, `Consumer`: events, delivered by type.
- `event`: makes a class an event.
- `handler`: marks the methods of a class of consumers.
- `Publisher`, `Subscriber`: messages, delivered by topic.
- `deferred`, `background`: other ways to be delivered to than at once.
- `Mailbox`, `mailbox`, `FOREVER`, `UNTIL_END_OF_EPOCH`, `UNTIL_READ`: messages for those who come later.
- `Timers`, `Elapsed`: events that are due by the clock.
- `Registered`, `HandlerFailed`: what producers tell of themselves.
- `Depends`: says what a handler needs.
"""

from torchsystem.depends import Depends
from torchsystem.services.consumer import Consumer
from torchsystem.services.failures import HandlerFailed
from torchsystem.services.mailbox import FOREVER, UNTIL_END_OF_EPOCH, UNTIL_READ, Mailbox, mailbox
from torchsystem.services.marks import handler
from torchsystem.services.messages import event
from torchsystem.services.modes import background, deferred
from torchsystem.services.prodcon import Producer, Registered
from torchsystem.services.pubsub import Publisher, Subscriber
from torchsystem.services.service import Service
from torchsystem.services.timers import Elapsed, Timers

__all__ = [
    "FOREVER",
    "UNTIL_END_OF_EPOCH",
    "UNTIL_READ",
    "Consumer",
    "Depends",
    "Elapsed",
    "HandlerFailed",
    "Mailbox",
    "Producer",
    "Publisher",
    "Registered",
    "Service",
    "Subscriber",
    "Timers",
    "background",
    "deferred",
    "event",
    "handler",
    "mailbox",
]
