"""Every mistake that torchsystem can name, one class per mistake, one family.

A message says *what* is wrong, *where* it was written, and *what to write instead*. An error that stands for a
built-in one inherits it too, so ``except KeyError`` around ``service.handle("trian")`` works as one would expect.
"""

from __future__ import annotations


class TorchSystemError(Exception):
    """Stand for any mistake that torchsystem names; catch it to catch them all."""

    def __str__(self) -> str:
        """Return the message as it was written, also where a built-in parent (``KeyError``) would quote it."""
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


# compiler: how an aggregate is built


class CompilerError(TorchSystemError):
    """Stand for any mistake in how an aggregate is built or compiled."""


class EmptyPipeline(CompilerError, ValueError):
    """A compiler without steps was asked to compile."""


class InvalidStep(CompilerError, TypeError):
    """What was given as a step cannot be one, or would not run as one."""


class OrphanedOptimizer(CompilerError, RuntimeError):
    """An optimizer has parameters that the module it was made for has no more."""


class UnmatchedPattern(CompilerError, ValueError):
    """A pattern of names fits no parameter."""


class UnknownStep(CompilerError, KeyError):
    """No step of the pipeline, or more than one, is what was asked for."""


class InvalidCompileOption(CompilerError, TypeError):
    """An option of ``compile`` does not go with what is compiled."""


class MissingCompiler(CompilerError, RuntimeError):
    """What compiles the code that torch generates is not installed, and it is required."""


class NothingCaptured(CompilerError, RuntimeError):
    """An aggregate was compiled and used, and still everything ran eagerly."""


class WrappedAggregate(CompilerError, TypeError):
    """What ``torch.compile`` wrapped around an aggregate was given in its place."""


# depends: what a function needs


class DependencyError(TorchSystemError):
    """Stand for any mistake in what a function needs, or in how it was bound."""


class UnresolvedAnnotation(DependencyError, TypeError):
    """An annotation decides something, and the names in it cannot be found."""


class UnboundInterface(DependencyError, NotImplementedError):
    """A dependency without a body of its own was asked for, and nobody bound an implementation."""


class UnfilledParameter(DependencyError, TypeError):
    """A dependency has a parameter that is neither a dependency nor an argument of the handler."""


class CyclicDependency(DependencyError, RecursionError):
    """A dependency needs, at some depth, itself."""


class SessionEnded(DependencyError, RuntimeError):
    """A session is used outside its ``with`` block, where what it made is closed."""


class TooDeep(DependencyError, RecursionError):
    """Dependencies need dependencies on more levels than Python can call."""


class AsyncInSync(DependencyError, TypeError):
    """A sync function needs, at some depth, an async dependency."""


class ScopeMismatch(DependencyError, ValueError):
    """A value that outlives the call is asked to be made from one that does not."""


class UnknownScope(DependencyError, ValueError):
    """A scope is neither ``"call"`` nor ``"provider"``."""


class InvalidDependency(DependencyError, TypeError):
    """What was declared as a dependency, or bound to one, cannot be called as that dependency."""


class NeverYielded(DependencyError, RuntimeError):
    """A generator dependency ended without a ``yield``."""


class YieldedTwice(DependencyError, RuntimeError):
    """A generator dependency went on to a second ``yield`` where it should have cleaned up and ended."""


# domain: what changes


class DomainError(TorchSystemError):
    """Stand for any mistake in an aggregate, or in the events inside it."""


class InvalidPhase(DomainError, ValueError):
    """A phase is neither ``"train"`` nor ``"evaluation"``."""


class InvalidEpoch(DomainError, TypeError):
    """An epoch is not a whole number."""


class ShadowedAttribute(DomainError, TypeError):
    """A class gives a plain value to a name whose changes an aggregate watches."""


class UnknownIdentity(DomainError, RuntimeError):
    """The id of an aggregate was read before it had one."""


class RepeatedIdentity(DomainError, RuntimeError):
    """An aggregate that has an id was given another."""


class UnkeepableValue(DomainError, TypeError):
    """Something in the state of an aggregate is neither a tensor nor a plain value."""


class UnownedParameter(DomainError, ValueError):
    """An optimizer inside an aggregate optimizes a parameter that is not."""


class UnknownSnapshot(DomainError, ValueError):
    """What is to be restored is no snapshot, or one that a later version has taken."""


class SnapshotMismatch(DomainError, ValueError):
    """A snapshot does not fit the aggregate that it is to be restored into.

    Attributes:
        missing: What the aggregate has and the snapshot has not, by name.
        unexpected: What the snapshot has and the aggregate has not, by name.
        different: What both have, and in what it differs.
    """

    def __init__(self, message: str, *, missing: list[str], unexpected: list[str], different: dict[str, str]) -> None:
        super().__init__(message)
        self.missing = missing
        self.unexpected = unexpected
        self.different = different


class InvalidEventType(DomainError, TypeError):
    """A handler was assigned to something that is not a class of events."""


class InvalidEventHandler(DomainError, TypeError):
    """What was assigned to a class of events cannot handle them."""


# registry: what a thing is


class RegistryError(TorchSystemError):
    """Stand for any mistake in what a thing is, and in how that is told."""


class InvalidRegistration(RegistryError, TypeError):
    """What was given to be registered is no class, or one whose objects cannot have a record."""


class InvalidExclusion(RegistryError, ValueError):
    """A parameter that is to be left out does not exist."""


class NameTaken(RegistryError, ValueError):
    """A name stands for another class already, or a class has another name already."""


class NotRegistered(RegistryError, TypeError):
    """An object was asked what it is, and its class is not registered."""


class NoCanonicalForm(RegistryError, TypeError):
    """An argument is of a kind that no other process could tell from another."""


class UnknownName(RegistryError, KeyError):
    """A name was asked for under which no class is registered."""


class CannotBuild(RegistryError, ValueError):
    """Metadata do not describe an object that can be built, or not the one they claim to."""


# services: who acts, who listens


class ServiceError(TorchSystemError):
    """Stand for any mistake in services, in listeners, or in what they are told."""


class AmbiguousEvent(ServiceError, ValueError):
    """An event is asked for by a name that two types have."""


class DeliveryTimeout(ServiceError, TimeoutError):
    """Listeners in the background did not get done in time."""


class DispatchTooDeep(ServiceError, RecursionError):
    """Handlers dispatch events whose handlers dispatch events, deeper than was allowed."""


class DuplicateHandler(ServiceError, ValueError):
    """A second handler is registered under a name that is taken."""


class InvalidEvent(ServiceError, TypeError):
    """A class was dispatched where an event was meant."""


class InvalidHandler(ServiceError, TypeError):
    """A function cannot handle what it is registered for."""


class InvalidListener(ServiceError, TypeError):
    """What was plugged in cannot listen there."""


class InvalidOption(ServiceError, ValueError):
    """An option of a handler or of a listener has no meaning."""


class InvalidState(ServiceError, ValueError):
    """What a listener is to remember was remembered by another."""


class InvalidTopic(ServiceError, ValueError):
    """A topic is malformed, or stands for many where one is needed."""


class QueueFull(ServiceError, RuntimeError):
    """A listener in the background has as many messages waiting as it may."""


class UnknownAction(ServiceError, KeyError):
    """A service has no handler of the name that was asked for."""


class UnknownEvent(ServiceError, KeyError):
    """No type of events has the name that was asked for."""


class UnknownListener(ServiceError, ValueError):
    """A listener was taken out of where it is not plugged in."""


class UnroutableAnnotation(ServiceError, TypeError):
    """A handler does not say which events it hears, or says it in a way that no event can be told by."""


class WaitsForItself(ServiceError, RuntimeError):
    """A handler in the background waits until the background is idle."""


# training: the life of a run


class TrainingError(TorchSystemError):
    """Stand for any mistake in how a run is set up, or in what it came to."""


class FrozenOptimizer(TrainingError, ValueError):
    """A loss was given for an optimizer none of whose parameters requires a gradient."""


class InvalidBatch(TrainingError, TypeError):
    """A batch of which nobody can tell how many samples it has."""


class InvalidBudget(TrainingError, ValueError):
    """Nothing says how long to train, or it is said in a way that has no meaning."""


class InvalidLoss(TrainingError, TypeError):
    """What was given to step on is not a loss, or not one per optimizer."""


class InvalidMetric(TrainingError, ValueError):
    """A metric has a name that is not its own."""


class InvalidOptimization(TrainingError, ValueError):
    """An option of an optimization has no meaning, or none together with the others."""


class InvalidOptimizer(TrainingError, TypeError):
    """What was given as an optimizer is none, or is one that cannot step on gradients alone."""


class InvalidScheduler(TrainingError, ValueError):
    """What was given as a scheduler is none, or belongs to another optimizer."""


class InvalidSplit(TrainingError, ValueError):
    """There is no split to learn from."""


class InvalidStopping(TrainingError, ValueError):
    """A rule to stop by has no meaning."""


class MissingMetric(TrainingError, KeyError):
    """A metric that somebody watches was never reported."""


class MismatchedState(TrainingError, ValueError):
    """A state is of an optimization that has other parts."""


class NonFiniteLoss(TrainingError, ArithmeticError):
    """The loss of a batch was infinite or not a number."""


class NonFiniteMetric(TrainingError, ArithmeticError):
    """A metric that somebody watches is not a number."""


class SharedParameter(TrainingError, ValueError):
    """Two optimizers move the same parameter, each by the gradients of both."""


class UnknownOptimizer(TrainingError, KeyError):
    """No optimizer has the name that something was given for."""


# triggers: when something fires


class InvalidTrigger(TorchSystemError, ValueError):
    """An interval is not a positive amount of a known unit, or triggers are combined with what is none."""
