"""A mail server on loopback, with or without encryption, that keeps what it is sent."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HOST = "127.0.0.1"


@dataclass
class Server:
    """What came to a server.

    Attributes:
        port: Where it listens.
        letters: The mails.
        recipients: To whom they were to go.
        logins: The users and passwords of those who were let in.
        refuses: What it answers to every mail, instead of taking it.
    """

    port: int = 0
    letters: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    refuses: str | None = None

    async def handle_DATA(self, *call: Any) -> str:  # noqa: N802 - aiosmtpd's name
        *_, envelope = call
        if self.refuses is not None:
            return self.refuses
        letter = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(letter, EmailMessage)
        self.letters.append(letter)
        self.recipients.append(envelope.rcpt_tos)
        return "250 OK"

    def authenticate(self, *call: Any) -> AuthResult:
        *_, data = call
        assert isinstance(data, LoginPassword)
        user, password = data.login.decode(), data.password.decode()
        if password != "secret of me":  # noqa: S105 - there is none to keep
            return AuthResult(success=False, handled=False)
        self.logins.append((user, password))
        return AuthResult(success=True)


@contextmanager
def serving(certificate: Path | None = None, *, at_once: bool = False) -> Generator[Server]:
    """Run a server.

    Args:
        certificate: With which it encrypts, and asks for a login; None to do neither.
        at_once: Whether it encrypts from the beginning, rather than when it is asked to.
    """
    server, loop = Server(), asyncio.new_event_loop()
    options: dict[str, Any] = {"loop": loop}
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        encrypted = {"tls_context": context, "require_starttls": True, "auth_required": True}
        options |= {"authenticator": server.authenticate, "auth_require_tls": not at_once}
        options |= {} if at_once else encrypted
    made = loop.create_server(lambda: SMTP(server, **options), HOST, 0, ssl=context if at_once else None)
    listening = loop.run_until_complete(made)
    server.port = listening.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        listening.close()
        loop.run_until_complete(_finished())
        loop.close()


async def _finished() -> None:
    """End what is still under way."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def make_certificate(folder: Path) -> Path:
    """Make a certificate for loopback that only who is told to will trust; it and its key are in one file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    text = serialization.Encoding.PEM
    plain = key.private_bytes(text, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(plain + certificate.public_bytes(text))
    return path
