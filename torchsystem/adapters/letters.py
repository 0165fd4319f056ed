"""Letters: what a mail about the end of a run says, with files attached as far as they can be."""

from __future__ import annotations

import logging
import mimetypes
import stat
from collections.abc import Iterable, Mapping
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

from torchsystem.adapters.causes import said, writable
from torchsystem.training.events import TrainingEnded, TrainingFailed

logger = logging.getLogger(__name__)

MOST = 17 * 2**20  # bytes of attachments, which are a third larger when sent; many servers take 25 MB at most


def letter(
    event: TrainingEnded | TrainingFailed,
    *,
    subject: str,
    metrics: Mapping[str, float],
    paths: Iterable[str | Path] = (),
) -> EmailMessage:
    """Write what is to be said, to nobody yet.

    Args:
        event: What it is about.
        subject: What to put before the subject.
        metrics: Those of the last epoch.
        paths: The files to attach. One that cannot be, or that would make it too large, is named in the text.
    """
    message = EmailMessage()
    message["Subject"] = one_line(f"{subject} {_headline(event)}")
    message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain="torchsystem.invalid")
    files, missing = _gather(paths)
    message.set_content(writable("\n".join([*_body(event, metrics), *missing, ""])))
    for path, content in files.items():
        main, sub = _kind(path)
        message.add_attachment(content, maintype=main, subtype=sub, filename=one_line(path.name))
    return message


def one_line(text: str) -> str:
    """Return a text without line breaks and other control characters, so that it is one header and no other."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:200]


def _headline(event: TrainingEnded | TrainingFailed) -> str:
    what = type(event.aggregate).__name__
    if isinstance(event, TrainingFailed):
        return f"{what} failed after epoch {event.progress.epoch}: {type(event.error).__name__}"
    return f"{what} ended after epoch {event.progress.epoch}: {event.reason}"


def _body(event: TrainingEnded | TrainingFailed, metrics: Mapping[str, float]) -> list[str]:
    progress = event.progress
    lines = [
        f"{_headline(event)}.",
        "",
        f"Epochs: {progress.epoch}, batches: {progress.batch}, steps: {progress.step}, samples: {progress.samples}",
        f"Seconds: {progress.elapsed:.0f}",
    ]
    if event.aggregate.is_initialized():
        lines.append(f"Id: {event.aggregate.id}")
    if metrics:
        lines += ["", "Metrics of the last epoch:", *(f"  {name}: {_shown(value)}" for name, value in metrics.items())]
    if isinstance(event, TrainingFailed):
        lines += ["", *said(event.error).splitlines()]
    return lines


def _shown(value: object) -> str:
    """Show a metric; one that is no number is for others to refuse, and keeps no mail from being sent."""
    try:
        return f"{float(value):.6g}"  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    except (OverflowError, RuntimeError, TypeError, ValueError):
        return str(value)


def _kind(path: Path) -> tuple[str, str]:
    """Return the type of an attachment. A message in a message is no bytes to a mail, and what is packed is packed."""
    kind, packed = mimetypes.guess_type(path.name)
    main, _, sub = (kind or "").partition("/")
    is_plain = packed is None and main in {"application", "audio", "image", "text", "video"}
    return (main, sub) if is_plain else ("application", "octet-stream")


def _gather(paths: Iterable[str | Path]) -> tuple[dict[Path, bytes], list[str]]:
    """Read the files, each once; return what there is, and what to say of those that are not attached."""
    files: dict[Path, bytes] = {}
    missing: list[str] = []
    size = 0
    for name in paths:
        try:
            path = Path(name)
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # reading what others write to would wait for them
                missing.append(f"Not attached, for it is no file: {path}")
            elif size + status.st_size > MOST:
                missing.append(f"Not attached, for its size: {path}")
            elif path not in files:
                files[path] = path.read_bytes()
                size += len(files[path])
        except OSError as error:
            missing.append(f"Not attached: {name} ({error.strerror})")
        except (TypeError, ValueError) as error:
            missing.append(f"Not attached: {name!r} ({error})")
    missing = list(dict.fromkeys(missing))
    for line in missing:
        logger.warning("%s", line)
    return files, ["", *missing] if missing else []
