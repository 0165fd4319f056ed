"""Mail, sent to a real server: encrypted, with attachments, once, and never the end of a run."""

from __future__ import annotations

import json
import logging
import math
import os
import ssl
from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.adapters.mailserver import HOST, Server, make_certificate, serving
from tests.training.fakes import Learner, loader
from torchsystem.adapters.letters import MOST
from torchsystem.adapters.mail import Mail
from torchsystem.adapters.plots import Plots
from torchsystem.errors import InvalidMail, NonFiniteLoss, UnboundInterface
from torchsystem.progress import Progress
from torchsystem.services import FOREVER, Mailbox, mailbox
from torchsystem.training import Training, device
from torchsystem.training.events import BatchEnded, EpochEnded, ProcessStarted, TrainingEnded, TrainingFailed

PASSWORD = "secret of me"  # noqa: S105 - of a server that lives as long as a test


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate that nobody trusts unless told to."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def server() -> Iterator[Server]:
    """Run a server that takes everything, unencrypted."""
    with serving() as server:
        yield server


def plain(server: Server, **options: Any) -> Mail:
    """Make mail for a server on loopback."""
    return Mail("me@example.org", host=HOST, port=server.port, security="none", **options)


def ended(progress: Progress | None = None, reason: str = "over") -> TrainingEnded:
    """Say that a run is over."""
    return TrainingEnded(Learner(), Progress(epoch=2, batch=6) if progress is None else progress, reason)


def body(server: Server, number: int = -1) -> str:
    """Return the text of a mail."""
    part = server.letters[number].get_body()
    assert part is not None
    return str(part.get_content())


def training_of(*listeners: Any) -> Training:
    """Make a training with listeners."""
    training = Training()
    training.override(device, lambda: "cpu")
    training.producer.register(*listeners)
    return training


def test_the_end_of_a_training_is_told_with_its_metrics(server: Server) -> None:
    """How, when, and what came of it; to everybody that it is for."""
    training = training_of(Mail(["a@example.org", "b@example.org"], host=HOST, port=server.port, security="none"))
    assert not training.producer.wants(BatchEnded)
    told = training.handle("fit", Learner(), {"train": loader()}, epochs=2)
    (letter,) = server.letters
    assert letter["Subject"] == "[torchsystem] Learner ended after epoch 2: 2 epochs are done"
    assert letter["To"] == "a@example.org, b@example.org"
    assert letter["From"] == "a@example.org"
    assert server.recipients == [["a@example.org", "b@example.org"]]
    assert letter["Date"]
    assert letter["Message-ID"]
    assert "Epochs: 2, batches: 6, steps: 6, samples: 24" in body(server)
    assert f"train/loss: {told[-1]['train/loss']:.6g}" in body(server)


def test_the_pictures_of_a_run_are_attached(server: Server, tmp_path: Path) -> None:
    """What one draws another sends, whoever is plugged in first; each file once, under its name and kind."""
    box = Mailbox()
    mail, plots = plain(server, attach=["pictures", "notes"]), Plots(tmp_path)
    note = tmp_path / "what\r\nX-Evil: 1.txt"
    note.write_text("by hand")
    for path in (note, note, tmp_path / "gone.png"):
        box.write("notes", str(path))
    for listener in (mail, plots):
        listener.dependency_overrides[mailbox] = lambda: box
    training_of(mail, plots).handle("fit", Learner(), {"train": loader()}, epochs=1)
    (letter,) = server.letters
    attached = list(letter.iter_attachments())
    assert [part.get_content_type() for part in attached] == ["image/png", "text/plain"]
    assert attached[0].get_filename() == "loss.png"
    assert attached[0].get_content() == (tmp_path / "loss.png").read_bytes()
    assert "X-Evil" not in attached[1]
    assert "Not attached: " in body(server)
    assert "gone.png (No such file" in body(server)


def test_a_failure_is_told_with_what_failed(server: Server) -> None:
    """And the exception goes on as it would have."""
    training = training_of(plain(server))
    batches = [(inputs * float("inf"), targets) for inputs, targets in loader()]
    with pytest.raises(NonFiniteLoss):
        training.handle("fit", Learner(), {"train": batches}, epochs=2)
    (letter,) = server.letters
    assert letter["Subject"] == "[torchsystem] Learner failed after epoch 0: NonFiniteLoss"
    assert "torchsystem.errors.NonFiniteLoss: " in body(server)


def test_there_is_one_mail_per_run(server: Server) -> None:
    """None where nothing was left to do, none where somebody interrupted it, and none twice."""
    mail, learner = plain(server), Learner()
    training = training_of(mail)
    for _ in range(2):
        training.handle("fit", learner, {"train": loader()}, epochs=2)
    assert len(server.letters) == 1
    mail.consume(ProcessStarted(learner, Progress(epoch=2, batch=6)))
    for error in (KeyboardInterrupt(), SystemExit(143)):
        mail.consume(TrainingFailed(learner, Progress(epoch=2, batch=7), error))
    assert len(server.letters) == 1
    for _ in range(2):
        mail.consume(TrainingFailed(learner, Progress(epoch=2, batch=7), ValueError("odd")))
    mail.consume(ended(Progress(epoch=3, batch=9)))
    assert len(server.letters) == 2
    training.handle("fit", learner, {"train": loader()}, epochs=3)
    assert len(server.letters) == 3


@pytest.mark.parametrize("security", ["starttls", "ssl"])
def test_the_connection_is_encrypted_before_anybody_logs_in(certificate: Path, security: Any) -> None:
    """By STARTTLS, or from the beginning."""
    trusted = ssl.create_default_context(cafile=certificate)
    with serving(certificate, at_once=security == "ssl") as server:
        mail = Mail(
            "me@example.org",
            host=HOST,
            port=server.port,
            user="me",
            password=PASSWORD,
            security=security,
            context=trusted,
        )
        mail.consume(ended())
    assert server.logins == [("me", PASSWORD)]
    assert len(server.letters) == 1


def test_a_server_that_cannot_be_trusted_is_not_given_the_password(
    certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Certificates are verified; nor is anything said to a server that does not encrypt."""
    options: dict[str, Any] = {"host": HOST, "user": "me", "password": PASSWORD}
    with serving(certificate) as server:
        Mail("me@example.org", port=server.port, **options).consume(ended())
    assert server.logins == server.letters == []
    assert "SSLCertVerificationError" in caplog.text
    with serving() as server:
        Mail("me@example.org", port=server.port, **options).consume(ended())
    assert server.letters == []
    assert "SMTPNotSupportedError" in caplog.text
    assert "Write security='ssl', or 'none' where that is safe." in caplog.text


def test_that_it_cannot_be_sent_is_said_and_fails_no_run(
    server: Server, certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that is away, one that refuses the mail, or the login: the training ends as it would have."""
    server.refuses = "554 not today"
    mails = [plain(server, name="refused")]
    trusted = ssl.create_default_context(cafile=certificate)
    with serving(certificate) as other:
        to: dict[str, Any] = {"to": "me@example.org", "host": HOST}
        mails.append(
            Mail(**to, port=other.port, user="me", password="misremembered", context=trusted, name="locked out")  # noqa: S106
        )
        with serving() as gone:
            pass
        mails.append(Mail(**to, port=gone.port, security="none", name="away"))
        told = training_of(*mails).handle("fit", Learner(), {"train": loader()}, epochs=1)
    assert len(told) == 1
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [line.partition(" was not sent by ")[0] for line in said] == [
        "Mail('refused')",
        "Mail('locked out')",
        "Mail('away')",
    ]
    assert "not today" in said[0]
    assert "535" in said[1]
    assert "misremembered" not in caplog.text


def test_the_password_is_shown_nowhere(certificate: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in what the listener shows of itself, nor in logs at any level, states or errors."""
    caplog.set_level(logging.DEBUG)
    secret = "unheard-of"  # noqa: S105
    trusted = ssl.create_default_context(cafile=certificate)
    with serving(certificate) as server:
        options: dict[str, Any] = {"host": HOST, "port": server.port, "user": "me", "context": trusted}
        mail = Mail("me@example.org", password=SecretStr(secret), **options)
        mail.consume(ended())
    shown = [repr(mail), str(mail), repr(vars(mail)), repr(mail.state_dict()), str(mail.compose(ended())), caplog.text]
    with pytest.raises(InvalidMail) as caught:
        Mail("nobody", host=HOST, user="me", password=secret)
    shown.append(repr(caught.value))
    assert [text for text in shown if secret in text] == []
    assert "was not sent" in caplog.text


HEADERS = "Subject: x\r\nBcc: victim@example.org\r\n\r\nevil"


def test_no_header_can_be_slipped_in(server: Server) -> None:
    """By no reason, subject or name of a file: a line break is none in a header."""
    mail = plain(server, subject=f"a\n{HEADERS}")
    mail.consume(ended(reason=f"b\r\n{HEADERS}"))
    (letter,) = server.letters
    assert letter["Bcc"] is None
    assert "a Subject: x" in letter["Subject"]
    assert server.recipients == [["me@example.org"]]
    assert letter.get_all("Subject") is not None
    assert len(letter.get_all("Subject", [])) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"to": []},
        {"to": "nobody"},
        {"to": "me@example.org\r\nBcc: you@example.org"},
        {"to": ["me@example.org", "a@b, c@d"]},
        {"sender": "x <y>"},
        {"host": ""},
        {"host": "a\nb"},
        {"security": "tls"},
        {"user": "me"},
        {"password": "x"},
        {"security": "none", "user": "me", "password": "x"},
        {"user": "me", "password": "pässword"},
        {"attach": "pictures"},
        {"attach": 5},
        {"to": None},
        {"port": "25"},
        {"port": 99999},
        {"timeout": 0},
        {"timeout": math.inf},
        {"user": "me", "password": b"x"},
    ],
)
def test_what_could_not_be_sent_is_refused(arguments: dict[str, Any]) -> None:
    """When it is made, and not when a night has passed."""
    with pytest.raises(InvalidMail, match="cannot be sent"):
        Mail(**{"to": "me@example.org", "host": "mail.example.org", **arguments})


def test_a_mailbox_that_is_missing_is_said_before_anything_is_trained(server: Server) -> None:
    """Where there is something to attach; who attaches nothing needs none."""
    started = ProcessStarted(Learner(), Progress())
    with pytest.raises(UnboundInterface, match="mailbox"):
        plain(server, attach=["pictures"]).consume(started)
    plain(server).consume(started)


def test_what_is_asked_for_and_not_there_is_said(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody wonders in vain why a picture is missing; the mail is sent all the same."""
    mail = plain(server, attach=["pictures"])
    mail.dependency_overrides[mailbox] = Mailbox
    mail.consume(ended())
    assert "nothing under 'pictures' in the mailbox" in caplog.text
    assert len(server.letters) == 1


def test_attachments_that_would_make_it_too_large_are_named(server: Server, tmp_path: Path) -> None:
    """Rather than the whole mail refused."""
    large = tmp_path / "large.bin"
    with large.open("wb") as stream:
        stream.truncate(MOST + 1)
    letter = plain(server).compose(ended(), [large])
    assert list(letter.iter_attachments()) == []
    assert f"Not attached, for its size: {large}" in letter.get_content()


def test_a_mail_that_is_as_large_as_may_be_is_taken_by_most(tmp_path: Path, server: Server) -> None:
    """As it is sent, not as the files are: many servers refuse more than 25 MB."""
    large = tmp_path / "large.bin"
    with large.open("wb") as stream:
        stream.truncate(MOST)
    letter = plain(server).compose(ended(), [large])
    assert len(list(letter.iter_attachments())) == 1
    assert len(letter.as_bytes()) < 25_000_000


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mail.eml", "application/octet-stream"),  # as a message it would come without its content
        ("runs.tar.gz", "application/octet-stream"),
        ("loss.png", "image/png"),
        ("history.csv", "text/csv"),
        ("model", "application/octet-stream"),
    ],
)
def test_attachments_come_as_they_are(server: Server, tmp_path: Path, name: str, kind: str) -> None:
    """Byte by byte, whatever their names make them out to be."""
    content = b"Subject: no header\r\n\r\n\xff\n"
    (tmp_path / name).write_bytes(content)
    letter = plain(server).compose(ended(), [tmp_path / name])
    (attached,) = message_from_bytes(letter.as_bytes(), policy=policy.default).iter_attachments()
    assert attached.get_content_type() == kind
    assert attached.get_payload(decode=True) == content


@pytest.mark.parametrize("path", [7, "a\0b", ["a list"], "no such\udcff", "."])
def test_what_cannot_be_attached_keeps_no_mail_from_being_sent(server: Server, path: Any) -> None:
    """What is no path, or leads to no file, is named in the text."""
    mail, box = plain(server, attach=["pictures"]), Mailbox()
    mail.dependency_overrides[mailbox] = lambda: box
    box.write("pictures", path, keep=FOREVER)
    mail.consume(ended())
    assert "Not attached" in body(server)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_mail_waits_for_no_pipe(server: Server, tmp_path: Path) -> None:
    """Into which perhaps nobody writes, ever."""
    os.mkfifo(tmp_path / "pipe")
    assert "for it is no file" in plain(server).compose(ended(), [tmp_path / "pipe"]).get_content()


class Speechless(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("error", [Speechless(), ValueError("of \udcff"), OSError("no\0\r\nBcc: you@example.org")])
def test_odd_errors_and_metrics_keep_no_mail_from_being_sent(server: Server, error: Exception) -> None:
    """A mail that says why a run failed is worth more than how it says so."""
    mail = plain(server)
    odd: dict[str, Any] = {"train/a": None, "train/b": "text", "train/c": 10**400, "train/\udcff": 0.5}
    mail.consume(EpochEnded(Learner(), Progress(epoch=1), odd))
    mail.consume(TrainingFailed(Learner(), Progress(epoch=1, batch=3), error))
    assert type(error).__name__ in body(server)
    assert "train/b: text" in body(server)
    assert server.recipients == [["me@example.org"]]


def test_the_last_metrics_are_its_state(server: Server) -> None:
    """A run that goes on and ends at once tells what was measured before."""
    mail, resumed = plain(server), plain(server)
    mail.consume(EpochEnded(Learner(), Progress(epoch=1), {"train/loss": 0.5}))
    resumed.load_state_dict(json.loads(json.dumps(mail.state_dict())))
    resumed.consume(ended())
    assert "train/loss: 0.5" in body(server)
