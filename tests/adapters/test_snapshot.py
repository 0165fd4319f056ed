"""Snapshots: what a run came from, kept by each process that works on it, and without secrets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn, optim

from tests.adapters.boards import learner, loaders, training
from torchsystem import Aggregate
from torchsystem.adapters import provenance
from torchsystem.adapters.redaction import redacted
from torchsystem.adapters.snapshot import Snapshot
from torchsystem.errors import InvalidOption
from torchsystem.progress import Progress
from torchsystem.registry import register
from torchsystem.training import Supervised
from torchsystem.training.events import ProcessStarted


@register
class Encoder(nn.Module):
    """A registered part."""

    def __init__(self, width: int, api_key: str = "") -> None:
        super().__init__()
        self.key = api_key
        self.linear = nn.Linear(width, 1)


def kept(folder: Path, number: int = 1) -> dict[str, Any]:
    """Read the snapshot of a process."""
    loaded: dict[str, Any] = json.loads((folder / str(number) / "snapshot.json").read_text())
    return loaded


def test_it_says_what_is_trained(tmp_path: Path) -> None:
    """Registered parts by their metadata, optimizers by their settings, others by what they print."""
    encoder = Encoder(3)
    model = Supervised(encoder, nn.CrossEntropyLoss(), optim.AdamW(encoder.parameters(), lr=0.01, betas=(0.8, 0.9)))
    Snapshot(tmp_path, hyperparameters={"batch size": 8}).consume(ProcessStarted(model, Progress()))
    parts = kept(tmp_path)["parts"]
    assert parts["nn"]["name"] == "Encoder"
    assert parts["nn"]["arguments"] == {"width": 3}
    assert parts["criterion"] == {"name": "CrossEntropyLoss", "shown": "CrossEntropyLoss()"}
    assert parts["optimizer"]["arguments"]["lr"] == 0.01
    assert parts["optimizer"]["arguments"]["betas"] == [0.8, 0.9]
    assert kept(tmp_path)["hyperparameters"] == {"batch size": 8}


def test_the_learning_rate_is_the_one_it_began_with(tmp_path: Path) -> None:
    """Whatever a scheduler has made of it since."""
    model = learner()
    training().fit(model, loaders(), epochs=2)
    Snapshot(tmp_path).consume(ProcessStarted(model, Progress(epoch=2)))
    assert kept(tmp_path)["parts"]["optimizer"]["arguments"]["lr"] == 0.5
    assert kept(tmp_path)["parts"]["optimization.scheduler"]["arguments"]["gamma"] == 0.5


def test_it_says_what_it_runs_on(tmp_path: Path) -> None:
    """Python, torch, every library, the platform, and how it was called."""
    Snapshot(tmp_path).consume(ProcessStarted(learner(), Progress()))
    found = kept(tmp_path)
    assert found["machine"]["torch"] == torch.__version__
    assert found["machine"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["libraries"]["torchsystem"]
    assert len(found["command"]) == len(sys.argv)
    assert found["seed"] == torch.initial_seed()


def test_each_process_keeps_its_own(tmp_path: Path) -> None:
    """A run that goes on does not lose what it began with; calling `fit` again is no new process."""
    snapshot, model = Snapshot(tmp_path), learner()
    for epochs in (1, 2):
        training(snapshot).fit(model, loaders(), epochs=epochs)
    before = (tmp_path / "1" / "snapshot.json").read_bytes()
    training(Snapshot(tmp_path)).fit(model, loaders(), epochs=3)  # as another process would
    assert sorted(each.name for each in tmp_path.iterdir()) == ["1", "2"]
    assert (tmp_path / "1" / "snapshot.json").read_bytes() == before
    assert kept(tmp_path, 2)["progress"] == {"epoch": 2, "batch": 6, "step": 6}


def test_no_two_processes_get_one_number(tmp_path: Path) -> None:
    """Numbers are claimed, without gaps."""
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda _: Snapshot(tmp_path, patch=False).consume(ProcessStarted(learner(), Progress())), range(16)
            )
        )
    assert sorted(int(each.name) for each in tmp_path.iterdir()) == list(range(1, 17))
    assert all(kept(tmp_path, number)["parts"] for number in range(1, 17))


def test_secrets_are_left_out(tmp_path: Path) -> None:
    """Of the environment comes what is named, and nothing else; what looks like a secret is hidden wherever it is."""
    variables = {"HOME": "/nowhere", "HF_TOKEN": "hush", "DATA_VERSION": "7", "RANK": "0"}
    assert provenance.environment([*provenance.ENVIRONMENT, "DATA_VERSION"], variables) == {
        "DATA_VERSION": "7",
        "RANK": "0",
    }
    encoder = Encoder(3, api_key="hush")
    model = Supervised(encoder, nn.CrossEntropyLoss(), optim.SGD(encoder.parameters(), lr=0.1))
    settings = {"password": "hush", "url": "https://me:hush@host/data", "nested": [{"hf_token": "hush"}]}
    Snapshot(tmp_path, hyperparameters=settings, patch=False).consume(ProcessStarted(model, Progress()))
    shown = (tmp_path / "1" / "snapshot.json").read_text()
    assert "hush" not in shown
    assert kept(tmp_path)["parts"]["nn"]["arguments"]["api_key"] == "(hidden)"
    assert set(kept(tmp_path)["environment"]) <= set(provenance.ENVIRONMENT)


SECRETS: list[Any] = [
    {"password": 4321},
    {"auth": ("hush", "hush")},
    {"passwords": ["hush"]},
    {"credentials": {"user": "hush", "value": "hush"}},
    {"apiToken": b"hush"},
    {"cookie": "hush"},
    {"signing_key": "hush"},
    {"settings": SimpleNamespace(api_key="hush")},
    "postgres://me:a@hush@host/data",
    "https://host/data?lines=3&api_key=hush",
    "https://host/data?sig=hush",
    "Server=host;Password=hush;",
    "Authorization: Bearer hush",
    "token='hu sh'",
    '{"password": "hu sh"}',
    "hf_hushhushhushhushhush",
    "AKIAHUSHHUSHHUSH",
    "-----BEGIN RSA PRIVATE KEY-----\nhush",
]


@pytest.mark.parametrize("secret", SECRETS, ids=repr)
def test_a_secret_is_known_by_its_name_and_by_its_form(secret: Any) -> None:
    """Wherever it stands, and of whatever kind it is."""
    shown = json.dumps(redacted({"nested": [secret]}), default=str).casefold()
    assert "(hidden)" in shown
    assert all(word not in shown for word in ("hush", "hu sh", "4321"))


@pytest.mark.parametrize(
    "harmless",
    [
        {"max_tokens": 5, "tokens": ["<s>"], "tokenizer": "bpe", "max_token": 7, "author": "me", "key": "epoch"},
        {"token": {"name": "Embedding", "arguments": {"width": 3}}},
        "Sequential((token): Embedding(3, 4), (auth): Linear(in_features=1))",
        "https://host/data?lines=3",
        "sk-gradient-boosting",
        {"use_auth": True, "token": None},
    ],
    ids=repr,
)
def test_what_is_no_secret_is_kept(harmless: Any) -> None:
    """Numbers of tokens, and parts that are called so."""
    assert redacted(harmless) == harmless


def test_long_texts_are_looked_through_at_once() -> None:
    """As that of a large value: however it is made, no time is lost over it."""
    for text in ("token" * 50_000, "a" * 200_000 + "=", "key " * 50_000, "token" + " " * 200_000):
        assert redacted(text) == text


def test_a_variable_that_was_named_is_not_a_secret_that_is_told(tmp_path: Path) -> None:
    """Whoever names it wants to know that it was there, and not have it on disk."""
    program = (
        "import sys; from torchsystem import Aggregate; from torchsystem.progress import Progress;"
        "from torchsystem.adapters.snapshot import Snapshot; from torchsystem.training.events import ProcessStarted;"
        "snapshot = Snapshot(sys.argv[1], environment=['HF_TOKEN', 'DATA_VERSION'], patch=False);"
        "snapshot.consume(ProcessStarted(type('Model', (Aggregate,), {})(), Progress()))"
    )
    variables = {**os.environ, "HF_TOKEN": "hush", "DATA_VERSION": "7", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=variables, check=True)  # noqa: S603 - all of it is ours
    found = kept(tmp_path)["environment"]
    assert (found["HF_TOKEN"], found["DATA_VERSION"]) == ("(hidden)", "7")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Make a repository with a module that has an aggregate, committed, changed, and with a new file beside it."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "model.py").write_text("from torchsystem import Aggregate\n\n\nclass Model(Aggregate):\n    width = 1\n")
    (folder / "latin.txt").write_bytes("Gr\xfc\xdfe\r\n".encode("latin-1"))
    (folder / "weights.bin").write_bytes(bytes(range(256)))
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    identity = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org"]
    for words in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "."],
        [*identity, "commit", "--quiet", "-m", "Begin"],
    ):
        subprocess.run(["git", *words], cwd=folder, env=environment, check=True)  # noqa: S603, S607 - all of it is ours
    (folder / "model.py").write_text("from torchsystem import Aggregate\n\n\nclass Model(Aggregate):\n    width = 2\n")
    (folder / "new file.txt").write_text("new")
    (folder / "latin.txt").write_bytes("Gr\xfc\xdfe an alle\r\n".encode("latin-1"))
    (folder / "weights.bin").write_bytes(bytes(reversed(range(256))))
    for name, value in {"diff.noprefix": "true", "diff.relative": "true", "diff.mnemonicPrefix": "true"}.items():
        subprocess.run(["git", "config", name, value], cwd=folder, env=environment, check=True)  # noqa: S603, S607 - as above
    return folder


def load(path: Path) -> Any:
    """Import a module from a file."""
    spec = spec_from_file_location("a_module_of_a_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_code_can_be_had_again(repository: Path, tmp_path: Path) -> None:
    """From the commit and the patch, whatever files hold and users configure; and the file of the class is there."""
    sys.modules["a_module_of_a_test"] = module = load(repository / "model.py")
    try:
        Snapshot(tmp_path / "kept").consume(ProcessStarted(module.Model(), Progress()))
    finally:
        del sys.modules["a_module_of_a_test"]
    found = kept(tmp_path / "kept")
    assert found["git"]["changed"] == ["latin.txt", "model.py", "weights.bin"]
    assert found["git"]["untracked"] == ["new file.txt"]
    assert found["git"]["branch"] == "main"
    folder = tmp_path / "kept" / "1"
    assert (folder / "source.py").read_text() == (repository / "model.py").read_text()
    changed = {name: (repository / name).read_bytes() for name in found["git"]["changed"]}
    for words in (
        ["checkout", "--quiet", "--force", found["git"]["commit"]],
        ["apply", str(folder / "uncommitted.patch")],
    ):
        subprocess.run(["git", *words], cwd=repository, check=True)  # noqa: S603, S607 - all of it is ours
    assert {name: (repository / name).read_bytes() for name in changed} == changed


def test_where_there_is_no_repository_that_is_said(tmp_path: Path) -> None:
    """And the run goes on all the same."""
    assert "not a git repository" in provenance.revision(tmp_path)["unknown"]
    assert provenance.difference(tmp_path) == ""


def test_a_class_without_a_file_has_no_source(tmp_path: Path) -> None:
    """As in a notebook, or one that is made at run time."""
    cls = type("Nowhere", (Aggregate,), {"__module__": "nowhere"})
    Snapshot(tmp_path, patch=False).consume(ProcessStarted(cls(), Progress()))
    assert kept(tmp_path)["source"] is None
    assert [each.name for each in (tmp_path / "1").iterdir()] == ["snapshot.json"]


@pytest.mark.parametrize(
    "options", [{"hyperparameters": {"model": object()}}, {"environment": "HOME"}, {"environment": ["AWS_*"]}]
)
def test_options_without_meaning_are_refused(options: dict[str, Any]) -> None:
    """When it is made; whole families of variables cannot be asked for."""
    with pytest.raises(InvalidOption, match=r"Snapshot\((hyperparameters|environment)="):
        Snapshot("runs", **options)
