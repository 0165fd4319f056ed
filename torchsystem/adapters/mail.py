"""Mail: word of how a run ended, with what others left in the mailbox attached."""

from __future__ import annotations

import logging
import math
import smtplib
import ssl
from collections.abc import Iterable, Mapping, Sequence
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import SecretStr

from torchsystem.adapters.letters import letter, one_line
from torchsystem.errors import InvalidMail
from torchsystem.services import Consumer, Depends, Mailbox, handler, mailbox
from torchsystem.training.events import EpochEnded, Lifecycle, ProcessStarted, TrainingEnded, TrainingFailed

if TYPE_CHECKING:
    from torchsystem.depends import Provider

logger = logging.getLogger(__name__)

Security = Literal["starttls", "ssl", "none"]

PORTS = {"starttls": 587, "ssl": 465, "none": 25}
AFTER_ALL = 100  # after those who draw and measure at the end


class Mail(Consumer):
    """Send a mail when a training is over, as planned or not: once per run, and none where nothing was left to do.

    Of a run that is interrupted there is no mail. That one cannot be sent fails no run: it is an error in the log. The
    connection is encrypted and the server's certificate verified, unless said otherwise; the password is shown nowhere.

    Args:
        to: Whom to send it to: one address, or several.
        host: The server that sends it.
        port: Its port; by default the usual one: 587 for `"starttls"`, 465 for `"ssl"`, 25 for `"none"`.
        sender: From whom it is; by default from the first of those it is sent to.
        user: Whom to log in as; None for not at all.
        password: With which password.
        security: How the connection is encrypted: `"starttls"`, `"ssl"`, or `"none"`, which takes no password.
        context: What decides which certificates are trusted; by default those that the system trusts.
        subject: What to put before the subject.
        attach: The keys in the mailbox under which there are paths of files to attach, such as `("pictures",)`. The
            mailbox is that of the experiment, or has to be bound: `mail.dependency_overrides[mailbox] = lambda: box`.
        timeout: How many seconds the server may take for each answer.
        name: What its state is saved as.
        provider: Where its handlers' dependencies are bound; one of its own by default.

    Raises:
        InvalidMail: It could not be sent as it is described.

    Examples:
        >>> from torchsystem.adapters.mail import Mail
        >>> mail = Mail("me@example.org", host="mail.example.org", user="me", password="secret", attach=["pictures"])
        >>> mail, mail.password
        (Mail('mail'), SecretStr('**********'))
    """

    def __init__(  # noqa: PLR0913 - each says one thing
        self,
        to: str | Sequence[str],
        *,
        host: str,
        port: int | None = None,
        sender: str | None = None,
        user: str | None = None,
        password: SecretStr | str | None = None,
        security: Security = "starttls",
        context: ssl.SSLContext | None = None,
        subject: str = "[torchsystem]",
        attach: Sequence[str] = (),
        timeout: float = 30,
        name: str | None = "mail",
        provider: Provider | None = None,
    ) -> None:
        super().__init__(name, provider=provider)
        self.to = [to] if isinstance(to, str) else list(to or ())
        self.sender = self.to[0] if sender is None and self.to else sender or ""
        self.host = host
        self.user = user
        self.password = SecretStr(password) if isinstance(password, str) else password
        self.security: Security = security
        self.subject = subject
        self.attach = attach
        self.timeout = timeout
        self._context = context
        self.port = PORTS.get(security, 25) if port is None else port
        _check(self)
        self._begun_at = -1  # batches that were done when this process began; all of them, if there is nothing to do
        self._is_sent = False
        self._metrics: dict[str, float] = {}
        if attach:
            self.handler(self._prepare)
        self.handler(order=AFTER_ALL)(self._send_with_files if attach else self._send_alone)

    @handler
    def begin(self, event: ProcessStarted) -> None:
        """Note where the run is, so that one that has nothing left to do sends nothing."""
        self._begun_at, self._is_sent = event.progress.batch, False

    @handler
    def remember(self, event: EpochEnded) -> None:
        """Remember the metrics of the last epoch."""
        self._metrics = dict(event.metrics)

    def state_dict(self) -> dict[str, Any]:
        """Return the last metrics, beside what every consumer remembers."""
        return {**super().state_dict(), "metrics": dict(self._metrics)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what was remembered."""
        super().load_state_dict({key: value for key, value in state.items() if key != "metrics"})
        self._metrics = dict(state.get("metrics", {}))

    def compose(self, event: TrainingEnded | TrainingFailed, paths: Iterable[str | Path] = ()) -> EmailMessage:
        """Write the mail.

        Args:
            event: What it is about.
            paths: The files to attach. One that cannot be, or that would make it too large, is named in the text.
        """
        message = letter(event, subject=self.subject, metrics=self._metrics, paths=paths)
        message["From"], message["To"] = self.sender, ", ".join(self.to)
        return message

    def _prepare(self, event: ProcessStarted, box: Mailbox = Depends(mailbox)) -> None:
        """Ask for the mailbox when a run begins: that it is missing is not to be found out at the end."""

    def _send_with_files(self, event: TrainingEnded | TrainingFailed, box: Mailbox = Depends(mailbox)) -> None:
        if self._is_due(event):
            found = {key: box.read(key) for key in self.attach}
            for key in (key for key, paths in found.items() if not paths):
                logger.warning("%r: there is nothing under %r in the mailbox to attach.", self, key)
            self._send(event, [path for paths in found.values() for path in paths])

    def _send_alone(self, event: TrainingEnded | TrainingFailed) -> None:
        if self._is_due(event):
            self._send(event, [])

    def _is_due(self, event: Lifecycle) -> bool:
        """Tell whether there is something to tell: a failure, or an end that something was done for."""
        if self._is_sent:
            return False
        if isinstance(event, TrainingFailed):
            return isinstance(event.error, Exception)  # whoever interrupts a run knows, and it may well go on
        return event.progress.batch != self._begun_at

    def _send(self, event: TrainingEnded | TrainingFailed, paths: Iterable[str | Path]) -> None:
        self._is_sent = True
        try:
            message = self.compose(event, paths)
            with self._connect() as server:
                if self.user is not None and self.password is not None:
                    server.login(self.user, self.password.get_secret_value())
                refused = server.send_message(message)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no reason for a run to fail
            logger.error("%r was not sent by %s:%d: %s", self, self.host, self.port, self._said(error))  # noqa: TRY400
        else:
            for address, answer in refused.items():
                logger.error("%r was not sent to %s: %r", self, address, answer)

    def _said(self, error: Exception) -> str:
        """Say what went wrong, but for values and the password, which a traceback and some messages would show."""
        text = str(error) if isinstance(error, OSError) else ""  # of others the message may be what was to be sent
        secret = _secret(self)
        return f"{type(error).__name__} {text.replace(secret, '**********') if secret else text}".rstrip()

    def _connect(self) -> smtplib.SMTP:
        """Connect to the server, and have the connection encrypted as was asked for, or not at all."""
        context = ssl.create_default_context() if self._context is None else self._context
        if self.security == "ssl":
            return smtplib.SMTP_SSL(self.host, self.port, timeout=self.timeout, context=context)
        server = smtplib.SMTP(self.host, self.port, timeout=self.timeout)
        if self.security == "starttls":
            try:
                _encrypt(server, context)
            except BaseException:
                server.close()
                raise
        return server


def _encrypt(server: smtplib.SMTP, context: ssl.SSLContext) -> None:
    server.ehlo_or_helo_if_needed()
    if not server.has_extn("starttls"):
        message = "the server knows no STARTTLS. Write security='ssl', or 'none' where that is safe."
        raise smtplib.SMTPNotSupportedError(message)
    server.starttls(context=context)


def _check(mail: Mail) -> None:
    """Refuse what could not be sent.

    Raises:
        InvalidMail: It is said what is wrong, without the password.
    """
    is_text = mail.password is None or isinstance(mail.password, SecretStr)
    remedies = {
        "Write to= and sender= as addresses, like 'me@example.org'": (
            not mail.to or not all(map(_is_address, [mail.sender, *mail.to]))
        ),
        "Write host= as the name of a server, like 'mail.example.org'": (
            not mail.host or one_line(mail.host) != mail.host
        ),
        "Write port= as a number, like 587": not isinstance(mail.port, int) or not 0 < mail.port < 2**16,
        "Write timeout= as seconds above 0": (
            not isinstance(mail.timeout, int | float) or not 0 < mail.timeout < math.inf
        ),
        "Write security= as 'starttls', 'ssl' or 'none'": mail.security not in PORTS,
        "Write both user= and password=, or neither": (mail.user is None) is not (mail.password is None),
        "Python's client for mail takes user= and password= in ASCII alone": (
            not is_text or not all(text.isascii() for text in (mail.user or "", _secret(mail)))
        ),
        "A password goes over a connection that is encrypted: write security='starttls' or 'ssl'": (
            mail.security == "none" and mail.password is not None
        ),
        "Write attach= as a list of keys, like ['pictures']": (
            isinstance(mail.attach, str) or not isinstance(mail.attach, Sequence)
        ),
    }
    wrong = [remedy for remedy, is_wrong in remedies.items() if is_wrong]
    if wrong:
        message = f"Mail({', '.join(mail.to)!r}, host={mail.host!r}, ...) cannot be sent. {'. '.join(wrong)}."
        raise InvalidMail(message)


def _secret(mail: Mail) -> str:
    return mail.password.get_secret_value() if isinstance(mail.password, SecretStr) else ""


def _is_address(text: object) -> bool:
    try:
        return isinstance(text, str) and bool(Address(addr_spec=text).domain) and text.isascii() and text.isprintable()
    except (HeaderParseError, IndexError, ValueError):
        return False
