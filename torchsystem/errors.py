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

    def __reduce__(self) -> tuple[object, ...]:
        """Be sent to another process as it is, also where its constructor wants more than a message."""
        return _made_again, (type(self), self.args), self.__dict__


def _made_again(kind: type[TorchSystemError], arguments: tuple[object, ...]) -> TorchSystemError:
    return kind.__new__(kind, *arguments)


# adapters: the rim


class AdapterError(TorchSystemError):
    """Stand for any mistake in listeners and front doors that stand between torchsystem and the world."""


class InvalidAlert(AdapterError, ValueError):
    """An alert has no bounds, or they have no meaning."""


class InvalidMail(AdapterError, ValueError):
    """A mail cannot be sent as it was described."""


class InvalidPlots(AdapterError, ValueError):
    """An option of plots has no meaning."""


class InvalidExample(AdapterError, TypeError):
    """What is to be shown as an example is neither an image nor text."""


class InvalidReport(AdapterError, ValueError):
    """A report has no metrics, or none that there are; or its intervals have no meaning."""


class ExperimentClosed(AdapterError, RuntimeError):
    """An experiment is used after it was closed."""


class ForeignFolder(AdapterError, ValueError):
    """The folder of an experiment is that of another."""


class MissingExtra(AdapterError, ImportError):
    """A package that an adapter is made of is not installed."""


class MissingOptimization(AdapterError, TypeError):
    """A listener looks at gradients, and the aggregate has no Optimization that tells of them."""


class MissingOptimizer(AdapterError, TypeError):
    """A listener records learning rates, and the aggregate has no optimizer that has any."""


class SharedFolder(AdapterError, ValueError):
    """Two listeners would write into the same files."""


class TwoHomes(AdapterError, ValueError):
    """A listener is to write for two experiments."""


class UnheardReport(AdapterError, RuntimeError):
    """Metrics were to make a report, and would never hear of what it is made of."""


class UnknownHome(AdapterError, RuntimeError):
    """A listener was not told where to write, or not in a way that it could."""


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


# plans: work done once


class PlanError(TorchSystemError):
    """Stand for any mistake in a plan, or in what its journal knows."""


class AmbiguousAction(PlanError, ValueError):
    """Two services of a plan answer to one action."""


class EngineBroken(PlanError, RuntimeError):
    """What runs the steps of a plan broke down again and again, and no step got done in between."""


class ForeignReference(PlanError, ValueError):
    """A step refers to the result of a step of another plan."""


class InvalidPlan(PlanError, ValueError):
    """A plan has no steps, or an option of it has no meaning."""


class NoResult(PlanError, RuntimeError):
    """The result that was asked for is that of a step that failed, or needs one that did."""


class NotPlain(PlanError, TypeError):
    """What a step is given, or returns, is no plain JSON."""


class OutsideStep(PlanError, RuntimeError):
    """Something that only a step of a plan has was asked for where no step is under way."""


class PlanBusy(PlanError, RuntimeError):
    """Another runner holds the lease of a plan."""


class PlanDrift(PlanError, ValueError):
    """A plan is no longer the one that its journal knows.

    Attributes:
        changes: What is different: each step by its key, and in what.
    """

    def __init__(self, message: str, *, changes: dict[str, list[str]]) -> None:
        super().__init__(message)
        self.changes = changes


class PlanTakenOver(PlanError, RuntimeError):
    """A runner no longer holds the lease of its plan: another has taken over."""


class StepFailure(PlanError, RuntimeError):
    """A step failed elsewhere with an exception that cannot be sent from there; it is told in words.

    Attributes:
        kinds: The names of the class of that exception, and of those that it inherits.
    """

    kinds: tuple[str, ...] = ()


class UnknownJournalStep(PlanError, KeyError):
    """No step of a plan is the one that was asked for."""


class UnreachableHandler(PlanError, TypeError):
    """Another process cannot find the handler of a step, or finds it wired differently."""


class UnreadableJournal(PlanError, ValueError):
    """A file is no journal of plans, is one of a later version, or was taken away while it was in use."""


class UnusableHandler(PlanError, TypeError):
    """A handler cannot be a step, or not with the arguments that were given."""


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


# storage: what survives


class StorageError(TorchSystemError):
    """Stand for any mistake in what is stored, or in how it is found again."""


class BrokenCheckpoint(StorageError, ValueError):
    """A checkpoint is not what was saved: something is missing, cut short, changed, or from elsewhere."""


class DamagedArtefact(StorageError, ValueError):
    """The content of an artefact is not what was recorded."""


class DiskFull(StorageError, OSError):
    """There is no room for what is to be saved."""


class FolderInUse(StorageError, RuntimeError):
    """Another process writes in the folder of a run."""


class InvalidContent(StorageError, TypeError):
    """What is to be stored is neither data nor a file."""


class InvalidFigure(StorageError, TypeError):
    """A metric of a checkpoint is no number, or has no name."""


class InvalidMirror(StorageError, ValueError):
    """A mirror is to wait in a way that has no meaning, or to mirror itself."""


class InvalidRepository(StorageError, ValueError):
    """An option of a repository has no meaning."""


class InvalidRetention(StorageError, ValueError):
    """A rule of which checkpoints to keep has no meaning."""


class InvalidStore(StorageError, ValueError):
    """A store cannot be opened in the way that was asked for."""


class InvalidUnit(StorageError, TypeError):
    """A unit of work is of something else than an aggregate and a producer."""


class LeaseLost(StorageError, RuntimeError):
    """Another process has taken over the folder of a run, while this one seemed to be gone."""


class MetadataMismatch(StorageError, ValueError):
    """A checkpoint was saved with other parts than it is to be restored into.

    Attributes:
        different: In what they differ, by the name of the part.
    """

    def __init__(self, message: str, *, different: dict[str, str]) -> None:
        super().__init__(message)
        self.different = different


class MirrorClosed(StorageError, RuntimeError):
    """Something is to be mirrored by a mirror that is closed, or of another process."""


class NonFiniteState(StorageError, ArithmeticError):
    """A state that is infinite or not a number was to be saved."""


class NotExclusive(StorageError, NotImplementedError):
    """A file system cannot create a file for one of several alone."""


class NotLocal(StorageError, TypeError):
    """A local path was asked for in a store that is elsewhere."""


class OutsideRoot(StorageError, ValueError):
    """A path leads out of the root of its store."""


class UnitOver(StorageError, RuntimeError):
    """A unit of work is used outside its block."""


class UnknownArtefact(StorageError, LookupError):
    """Nothing in a store is what was asked for."""


class UnknownCheckpoint(StorageError, KeyError):
    """A checkpoint was asked for that is not there."""


class UnknownFormat(StorageError, ValueError):
    """A checkpoint has a form that this version does not know."""


class Unnameable(StorageError, TypeError):
    """What something is called cannot be told from the names of others by any other process."""


class AmbiguousPath(StorageError, ValueError):
    """Different values, or different kinds, would have the same path."""


class DuplicateKind(StorageError, ValueError):
    """A kind of artefacts is declared a second time."""


class InvalidTemplate(StorageError, ValueError):
    """A template does not make relative paths that can be read again."""


class UnfilledTemplate(StorageError, TypeError):
    """A template lacks a value, or is given one that it has no field for."""


class UnknownKind(StorageError, KeyError):
    """No kind of artefacts is declared under the name that was asked for."""


class UnsafeName(StorageError, ValueError):
    """A name cannot be that of one file or folder on every system."""


class Unstorable(StorageError, TypeError):
    """What is to be saved or restored is neither a module nor a mapping of tensors, or a tensor has no values."""


# training: the life of a run


class TrainingError(TorchSystemError):
    """Stand for any mistake in how a run is set up, or in what it came to."""


class AlreadyTraining(TrainingError, RuntimeError):
    """An aggregate is to be trained while it is being trained."""


class AveragedWeights(TrainingError, RuntimeError):
    """Averaged weights stand where those of the training are needed."""


class FrozenOptimizer(TrainingError, ValueError):
    """A loss was given for an optimizer none of whose parameters requires a gradient."""


class InexactLoader(TrainingError, ValueError):
    """A run over this loader cannot be continued exactly."""


class InvalidAverage(TrainingError, ValueError):
    """An average of weights has no meaning, or not for these weights any more."""


class InvalidBatch(TrainingError, TypeError):
    """A batch of which nobody can tell how many samples it has."""


class InvalidBudget(TrainingError, ValueError):
    """Nothing says how long to train, or it is said in a way that has no meaning."""


class InvalidLoss(TrainingError, TypeError):
    """What was given as a loss is none, or not one per optimizer."""


class InvalidMetric(TrainingError, ValueError):
    """A metric has a name that is not its own."""


class InvalidOptimization(TrainingError, ValueError):
    """An option of an optimization has no meaning, or none together with the others."""


class InvalidOptimizer(TrainingError, TypeError):
    """What was given as an optimizer is none, or is one that cannot step on gradients alone."""


class InvalidScheduler(TrainingError, ValueError):
    """What was given as a scheduler is none, or belongs to another optimizer."""


class InvalidSeed(TrainingError, ValueError):
    """What is to seed the generators is no seed."""


class InvalidSignal(TrainingError, ValueError):
    """What is to interrupt a run is no signal, or one that nobody can handle."""


class InvalidSearch(TrainingError, ValueError):
    """A search is asked for in a way that has no meaning, or finds nothing to search in."""


class InvalidSplit(TrainingError, ValueError):
    """There is no split to learn from, one has no batches, or one is gone through where it cannot be."""


class InvalidStopping(TrainingError, ValueError):
    """A rule to stop by has no meaning."""


class MetricMismatch(TrainingError, ValueError):
    """A state that is to be taken up was gathered by other metrics."""


class MissingGradients(TrainingError, LookupError):
    """Gradients were to be looked at, and nothing tells of them."""


class MissingMetric(TrainingError, KeyError):
    """A metric that somebody watches was never reported."""


class MismatchedRun(TrainingError, ValueError):
    """A run is to go on over other data, or with other listeners, than it began with."""


class MismatchedState(TrainingError, ValueError):
    """A state is of an optimization that has other parts."""


class NoSuggestion(TrainingError, ValueError):
    """A search has come to nothing that it could suggest."""


class NonFiniteLoss(TrainingError, ArithmeticError):
    """The loss of a batch was infinite or not a number."""


class NonFiniteMetric(TrainingError, ArithmeticError):
    """A metric that somebody watches is not a number."""


class NonFiniteWeights(TrainingError, ArithmeticError):
    """A weight or a gradient is infinite or not a number."""


class NotAnAggregate(TrainingError, TypeError):
    """What is to be trained is no aggregate."""


class SharedParameter(TrainingError, ValueError):
    """Two optimizers move the same parameter, each by the gradients of both."""


class UnnamedListener(TrainingError, ValueError):
    """A listener that remembers something has no name, or the name of another."""


class UnknownOptimizer(TrainingError, KeyError):
    """No optimizer has the name that something was given for."""


class UnreadablePredictions(TrainingError, TypeError):
    """Predictions are of a kind that a listener cannot compare."""


# triggers: when something fires


class InvalidTrigger(TorchSystemError, ValueError):
    """An interval is not a positive amount of a known unit, or triggers are combined with what is none."""
