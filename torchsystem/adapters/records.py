"""Records: the values of metrics, each with when and on what it was measured, and as lines of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from torchsystem.errors import InvalidMetric, InvalidState


class Record(TypedDict):
    """One value of one metric.

    Attributes:
        epoch: The epoch that it belongs to, from 1.
        step: The optimizer steps that were done, in all.
        phase: The split that it was measured on.
        metric: Its name.
        value: The value.
        time: When it came, in seconds since 1970.
    """

    epoch: int
    step: int
    phase: str
    metric: str
    value: float
    time: float


FIELDS = tuple(Record.__annotations__)


def number(value: object, metric: str) -> float:
    """Return the value of a metric as a number.

    Raises:
        InvalidMetric: It is none.
    """
    try:
        return float(value)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    except (OverflowError, RuntimeError, TypeError, ValueError) as error:
        message = f"metric {metric!r} is reported as {value!r}, which is no number: epoch.report(split, {{name: 0.5}})."
        raise InvalidMetric(message) from error


def line(record: Record) -> str:
    """Return a record as a line of JSON, which knows no infinite numbers, nor any that are none: those are words."""
    value = record["value"]
    if not math.isfinite(value):
        shown = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return json.dumps({**record, "value": shown}) + "\n"
    return json.dumps(record, allow_nan=False) + "\n"


def read(file: Path) -> list[Record]:
    """Read the records of a file; the last line may be one that was being written when a process was killed.

    Raises:
        InvalidState: It is not the file of a history.
    """
    # What is no text is no record either, and found to be none by its line.
    lines: Sequence[str] = file.read_text(encoding="utf-8", errors="replace").split("\n")
    records: list[Record] = []
    for number, text in enumerate(lines[:-1], start=1):  # what follows the last line break was not written whole
        try:
            records.append(checked(json.loads(text)))
        except (KeyError, TypeError, ValueError) as error:
            message = f"{file}, line {number}: this is no record of a history ({error!r}). Move the file away."
            raise InvalidState(message) from error
    return records


def checked(found: Mapping[str, Any]) -> Record:
    """Return what was found as a record: each part of its own type."""
    return {
        "epoch": int(found["epoch"]),
        "step": int(found["step"]),
        "phase": str(found["phase"]),
        "metric": str(found["metric"]),
        "value": float(found["value"]),
        "time": float(found["time"]),
    }
