"""Services: handlers of actions, called by hand or by name, always injected."""

from __future__ import annotations

from typing import Annotated

import pytest

from torchsystem.errors import DuplicateHandler, InvalidHandler, UnknownAction
from torchsystem.services import Depends, Service


def device() -> str:
    """Say where to train; an interface."""


def test_an_action_is_called_by_its_name_in_kebab_or_snake_case() -> None:
    """`train-model`, `train_model` and `TrainModel` mean one handler."""
    service = Service("training")

    @service.handler
    def train_model(model: str) -> str:
        return f"trained {model}"

    assert service.handle("train-model", "mlp") == "trained mlp"
    assert service.handle("train_model", "mlp") == "trained mlp"
    assert service.handle("TrainModel", "mlp") == "trained mlp"


def test_a_handler_takes_positional_and_keyword_arguments() -> None:
    """What `handle` is given after the action reaches the handler as it was given, also under the name `action`."""
    service = Service()

    @service.handler
    def train(model: str, *batches: int, action: str, **options: object) -> tuple[object, ...]:
        return model, batches, action, options

    assert service.handle("train", "mlp", 1, 2, action="fit", lr=0.1) == ("mlp", (1, 2), "fit", {"lr": 0.1})


def test_a_handler_is_injected_however_it_is_called() -> None:
    """By hand and by name the dependencies are the same, in either spelling, and what is passed wins."""
    service = Service()

    @service.handler
    def train(model: str, device: str = Depends(device)) -> str:
        return f"{model} on {device}"

    @service.handler
    def validate(model: str, device: Annotated[str, Depends(device)]) -> str:
        return f"{model} on {device}"

    service.dependency_overrides[device] = lambda: "cuda"
    assert train("mlp") == validate("mlp") == "mlp on cuda"
    assert service.handle("train", "mlp") == service.handle("validate", "mlp") == "mlp on cuda"
    assert service.handle("train", "mlp", device="cpu") == service.handle("validate", "mlp", "cpu") == "mlp on cpu"


def test_what_a_handler_returns_comes_back_as_it_is() -> None:
    """`None`, zero and the empty are results too."""
    service = Service()
    results: list[object] = [None, 0, "", []]

    @service.handler
    def answer(index: int) -> object:
        return results[index]

    assert all(service.handle("answer", index) is result for index, result in enumerate(results))


def test_the_decorated_function_keeps_its_name_and_doc() -> None:
    """A handler is still the function that was written."""
    service = Service()

    @service.handler
    def train(model: str, device: str = Depends(device)) -> str:
        """Train a model."""
        return f"{model} on {device}"

    assert (train.__name__, train.__doc__) == ("train", "Train a model.")


def test_an_unknown_action_says_what_is_near() -> None:
    """A misspelled action is a `KeyError` that names what was probably meant, unquoted."""
    service = Service("training")

    @service.handler
    def train_model() -> None:
        """Do nothing."""

    @service.handler
    def validate() -> None:
        """Do nothing."""

    with pytest.raises(KeyError) as caught:
        service.handle("trian-model")
    assert isinstance(caught.value, UnknownAction)
    assert str(caught.value) == "Service('training') has no handler for 'trian-model'. Did you mean 'train-model'?"
    with pytest.raises(UnknownAction, match="There are 'train-model', 'validate'"):
        service.handle("export")
    with pytest.raises(UnknownAction, match="There are none yet"):
        Service().handle("train")


def test_an_error_inside_a_handler_is_not_mistaken_for_an_unknown_action() -> None:
    """A `KeyError` that a handler raises passes as it is."""
    service = Service()

    @service.handler
    def train() -> None:
        raise KeyError("weights")

    with pytest.raises(KeyError) as caught:
        service.handle("train")
    assert type(caught.value) is KeyError


def test_a_second_handler_of_one_name_is_refused_naming_both_places() -> None:
    """A taken name is refused, saying where both are written; also when only the spelling differs."""
    service = Service("training")

    def first() -> None:
        @service.handler
        def train_model() -> int:
            return 1

    def second() -> None:
        @service.handler
        def trainModel() -> int:  # noqa: N802
            return 2

    first()
    with pytest.raises(DuplicateHandler) as caught:
        second()
    lines = [int(part.partition(")")[0]) for part in str(caught.value).split("test_service.py:")[1:]]
    assert len(lines) == 2
    assert lines[0] < lines[1]
    assert service.handle("train-model") == 1


def test_the_same_lines_again_are_the_same_handler() -> None:
    """A module that is reloaded, or a cell that is run twice, defines its handlers anew, not others."""
    service = Service()

    def define(result: int) -> None:
        @service.handler
        def train() -> int:
            return result

    define(1)
    define(2)
    assert service.handle("train") == 2


def test_replacing_is_said_aloud() -> None:
    """`replace=True` takes the place of a handler."""
    service = Service()

    @service.handler
    def train() -> int:
        return 1

    @service.handler(replace=True)
    def Train() -> int:  # noqa: N802
        return 2

    assert service.handle("train") == 2
    assert list(service.handlers.values()) == [Train]
    assert train() == 1


def test_what_has_no_name_is_refused() -> None:
    """A lambda has no name that anybody could call it by."""
    with pytest.raises(InvalidHandler, match="no name"):
        Service().handler(lambda: None)


def test_bound_methods_can_be_handlers() -> None:
    """A method of an object is a function like any other."""

    class Trainer:
        def train(self, model: str, device: str = Depends(device)) -> str:
            return f"{model} on {device}"

    service = Service()
    service.handler(Trainer().train)
    service.dependency_overrides[device] = lambda: "cuda"
    assert service.handle("train", "mlp") == "mlp on cuda"


def test_handlers_are_listed_by_action_and_cannot_be_changed_from_outside() -> None:
    """`service.handlers` is a view: actions, in order of registration, and what is called for them."""
    service = Service()

    @service.handler
    def train_model() -> None:
        """Do nothing."""

    assert dict(service.handlers) == {"train-model": train_model}
    with pytest.raises(TypeError):
        service.handlers["train"] = train_model


def test_another_generator_gives_the_language_another_spelling() -> None:
    """`generator=` spells the actions; the name of the function is understood all the same."""
    service = Service(generator=str.upper)

    @service.handler
    def train_model() -> int:
        return 1

    assert list(service.handlers) == ["TRAIN_MODEL"]
    assert service.handle("TRAIN_MODEL") == service.handle("train_model") == 1
