"""`Events` against a model of it: any sequence of calls does what a few obvious lines say."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from torchsystem.domain import Events


class Happened:
    """An event."""


class Improved(Happened):
    """A kind of it."""


class Best(Improved):
    """A kind of that."""


class Stop(Exception):
    """A request."""


class Plateau(Stop):
    """A kind of it."""


class Fatal(BaseException):
    """A request that is no `Exception`."""


class Failure(Exception):
    """What failing handlers raise; never an event."""


CLASSES = (Happened, Improved, Best, Stop, Plateau, Fatal)
KEYS = (object, BaseException, *CLASSES)
EVENTS = st.one_of(
    st.sampled_from(CLASSES),
    st.sampled_from((Happened, Improved, Best)).map(lambda made: made()),
    st.builds(
        lambda made, why: made(*why), st.sampled_from((Stop, Plateau, Fatal)), st.sampled_from([(), ("a",), ("b",)])
    ),
)


def asked(event: object) -> object:
    """Name what a request asks for: a class asks for what its instance without arguments does."""
    return (event, ()) if isinstance(event, type) else (type(event), getattr(event, "args", event))


class Model:
    """The promise, spelled as simply as possible: no tables, no routes, one event at a time."""

    def __init__(self) -> None:
        self.queue: list[object] = []
        self.handlers: dict[type, list[tuple[str, object]]] = {}
        self.log: list[object] = []

    def find(self, event: object) -> list[tuple[str, object]] | None:
        """Return what was assigned to the nearest class, None if there is none."""
        kind = event if isinstance(event, type) else type(event)
        return next((self.handlers[base] for base in kind.mro() if base in self.handlers), None)

    def handle(self, event: object) -> type | None:
        """Return the class of what is raised."""
        kind = event if isinstance(event, type) else type(event)
        handlers = self.find(event)
        if handlers is None:
            return kind if issubclass(kind, BaseException) else None
        for action, extra in handlers:
            self.log.append((action, event) if action != "deaf" else action)
            if action == "enqueue":
                self.queue.append(extra)
            if action == "fail":
                return Failure
        return None

    def commit(self) -> type | None:
        """Return the class of what is raised."""
        while self.queue:
            event = self.queue.pop(0)
            raised = self.handle(event)
            if raised is not None:
                if self.find(event) is None:
                    self.queue = [other for other in self.queue if asked(other) != asked(event)]
                return raised
        return None


# A handler that enqueues gives only what no handler of this machine enqueues again, or a commit would never end.
ACTIONS = st.tuples(st.sampled_from(["hear", "deaf", "fail", "enqueue"]), st.sampled_from([Stop, Fatal, Stop("a")]))


class EventsMachine(RuleBasedStateMachine):
    """Do the same to both, and look for a difference after every step."""

    @initialize()
    def start(self) -> None:
        """Begin with nothing."""
        self.events, self.model, self.log = Events(), Model(), []

    def handler(self, action: str, extra: object) -> object:
        """Make a real handler that does what the model's action says."""

        def deaf() -> None:
            self.log.append("deaf")

        def hear(event: object) -> None:
            self.log.append((action, event))
            if action == "enqueue":
                self.events.enqueue(extra)
            if action == "fail":
                raise Failure

        return deaf if action == "deaf" else hear

    @rule(event=EVENTS)
    def enqueue(self, event: object) -> None:
        """Enqueue an event."""
        self.events.enqueue(event)
        self.model.queue.append(event)

    @rule()
    def dequeue(self) -> None:
        """Take the first event out, or find none."""
        assert self.events.dequeue() is (self.model.queue.pop(0) if self.model.queue else None)

    @rule(key=st.sampled_from(KEYS), actions=st.lists(ACTIONS, min_size=1, max_size=3))
    def assign(self, key: type, actions: list[tuple[str, object]]) -> None:
        """Assign one handler, or several."""
        if issubclass(Fatal, key) or issubclass(Plateau, key):
            actions = [(action if action != "enqueue" else "hear", extra) for action, extra in actions]
        handlers = [self.handler(*action) for action in actions]
        self.events.handlers[key] = handlers if len(handlers) > 1 else handlers[0]
        self.model.handlers[key] = actions

    @rule(key=st.sampled_from(KEYS), action=ACTIONS.filter(lambda action: action[0] != "enqueue"))
    def on(self, key: type, action: tuple[str, object]) -> None:
        """Add a handler to those that a class has."""
        self.events.on(key)(self.handler(*action))
        self.model.handlers[key] = [*self.model.handlers.get(key, []), action]

    @rule(key=st.sampled_from(KEYS))
    def forget(self, key: type) -> None:
        """Take the handlers of a class away, if it has any."""
        self.events.handlers.pop(key, None)
        self.model.handlers.pop(key, None)

    @rule(event=EVENTS)
    def handle(self, event: object) -> None:
        """Handle an event by hand."""
        assert self.raised(lambda: self.events.handle(event)) is self.model.handle(event)

    @rule()
    def commit(self) -> None:
        """Commit, and see the same exception."""
        assert self.raised(self.events.commit) is self.model.commit()

    def raised(self, call: object) -> type | None:
        """Return the class of what a call raises."""
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - the question is what is raised
            return type(error)
        return None

    @invariant()
    def same(self) -> None:
        """Compare what is queued and what was heard."""
        if hasattr(self, "events"):
            assert [id(event) for event in self.events.queue] == [id(event) for event in self.model.queue]
            assert self.log == self.model.log


test_events_do_what_the_model_says = EventsMachine.TestCase
