"""Templates: how the path of a kind of artefacts is made from values, and how the values are read off a path."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from string import Formatter

from torchsystem.errors import AmbiguousPath, InvalidTemplate, UnfilledTemplate, UnsafeName
from torchsystem.storage.segments import check_key, check_segment

NUMBER = "number"
RESERVED = {"kind", "sha256"}
Values = Mapping[str, str | int]


class Template:
    """How the path of one kind of artefacts is made.

    Args:
        kind: The kind.
        text: The path, with `{fields}`. `{kind}` is the kind itself; `{number}` is drawn when something is written,
            and may be padded: `{number:04d}`.

    Raises:
        InvalidTemplate: It is not a relative path, or not every path that it makes could be read again.
        UnsafeName: The kind cannot be part of a path.

    Examples:
        >>> from torchsystem.storage.templates import Template
        >>> template = Template("predictions", "{run}/{kind}/{split}_{number:03d}.json")
        >>> template.format({"run": "first", "split": "test", "number": 7})
        'first/predictions/test_007.json'
        >>> template.parse("first/predictions/test_007.json")
        {'run': 'first', 'split': 'test', 'number': 7}
    """

    def __init__(self, kind: str, text: str) -> None:
        self.kind = check_segment("kind", kind)
        self.text = text
        self._parts = _parts(kind, text)
        self.fields = tuple(field for _, field, _ in self._parts if field)
        self.numbered = NUMBER in self.fields
        self._pattern = re.compile("".join(_expressions(self._parts)))
        self.shape = re.sub(r"\(\?P<\w+>", "(", self._pattern.pattern)

    def format(self, values: Values) -> str:
        """Make the path of an artefact.

        Raises:
            UnfilledTemplate: A value is missing, or is of no field.
            UnsafeName: A value cannot be part of a path.
            AmbiguousPath: Other values would make the same path.
        """
        self.check(values, complete=True)
        texts = {field: str(value) for field, value in values.items()}
        path = check_key("".join(f"{literal}{_filled(field, spec, texts)}" for literal, field, spec in self._parts))
        if {field: str(value) for field, value in (self.parse(path) or {}).items()} != texts:
            message = (
                f"{dict(values)} makes {path!r} by the template {self.text!r}, and so would other values. Divide its "
                f"fields by something that the values do not contain."
            )
            raise AmbiguousPath(message)
        return path

    def parse(self, path: str) -> dict[str, str | int] | None:
        """Read the values off a path; None if the template does not make such a path."""
        found = self._pattern.fullmatch(path)
        if found is None:
            return None
        texts = found.groupdict()
        values = {field: int(text) if field == NUMBER else text for field, text in texts.items()}
        canonical = "".join(f"{literal}{_filled(field, spec, values)}" for literal, field, spec in self._parts)
        return values if canonical == path else None

    def folder(self, values: Values) -> str:
        """Return the folder below which all artefacts with some values lie; `""` for anywhere."""
        known = ""
        for literal, field, spec in self._parts:
            known += literal
            if field and field not in values:
                break
            known += _filled(field, spec, values)
        else:
            return known.rpartition("/")[0]
        return known.rpartition("/")[0]

    def check(self, values: Values, *, complete: bool = False) -> None:
        """Refuse values that are of no field, or that cannot be part of a path.

        Raises:
            UnfilledTemplate: A value is of no field; or, if all are needed, one is missing.
            UnsafeName: A value cannot be part of a path.
        """
        unknown = [field for field in values if field not in self.fields]
        missing = [field for field in self.fields if field not in values] if complete else []
        if unknown or missing:
            said = [f"{names} {what}" for what, names in {"missing": missing, "unknown": unknown}.items() if names]
            message = f"{self.kind!r} is {self.text!r}: {' and '.join(said)}. Give one value for each of its fields."
            raise UnfilledTemplate(message)
        for field, value in values.items():
            if field == NUMBER:
                _check_number(value)
            else:
                check_segment(field, str(value) if isinstance(value, int) and not isinstance(value, bool) else value)


def _check_number(value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        message = f"{NUMBER}={value!r} is no number of an artefact. Write a whole number, 0 or more."
        raise UnsafeName(message)


def _parts(kind: str, text: str) -> list[tuple[str, str, str]]:
    """Divide a template into pieces of text, each with the field that follows it and how that is written."""
    try:
        parsed = list(Formatter().parse(text))
    except (ValueError, TypeError) as error:
        raise _invalid(kind, text, f"it is no template ({error})") from None
    parts: list[tuple[str, str, str]] = []
    text_so_far = ""
    for literal, field, spec, conversion in parsed:
        text_so_far += literal
        if field is None:
            continue
        _check_field(kind, text, field, spec or "", conversion)
        if field == "kind":
            text_so_far += kind
        else:
            parts.append((text_so_far, field, spec or ""))
            text_so_far = ""
    if text_so_far:
        parts.append((text_so_far, "", ""))
    _check_whole(kind, text, parts)
    return parts


def _check_field(kind: str, text: str, field: str, spec: str, conversion: str | None) -> None:
    if not field.isidentifier() or (field in RESERVED and field != "kind"):
        raise _invalid(kind, text, f"{field!r} cannot be the name of a field")
    if conversion is not None:
        raise _invalid(kind, text, f"{{{field}!{conversion}}} is a conversion, and there are none here")
    if spec and (field != NUMBER or not re.fullmatch(r"0[1-9]d", spec)):
        raise _invalid(kind, text, f"{{{field}:{spec}}} cannot be read again; only {{number:04d}} and its like are")


def _check_whole(kind: str, text: str, parts: list[tuple[str, str, str]]) -> None:
    fields = [field for _, field, _ in parts if field]
    twice = sorted({field for field in fields if fields.count(field) > 1})
    if twice:
        raise _invalid(kind, text, f"{', '.join(twice)} stands in it more than once")
    if any(not literal for literal, field, _ in parts[1:] if field):
        raise _invalid(kind, text, "two of its fields have nothing between them")
    try:
        check_key("".join(f"{literal}{field and 'x'}" for literal, field, _ in parts))
    except UnsafeName as error:
        raise _invalid(kind, text, f"it does not make paths in a store ({error})") from None


def _invalid(kind: str, text: str, why: str) -> InvalidTemplate:
    message = (
        f"The template {text!r} of {kind!r} is refused: {why}. Write one as '{{project}}/{{kind}}/{{number}}.json'."
    )
    return InvalidTemplate(message)


def _expressions(parts: list[tuple[str, str, str]]) -> Iterator[str]:
    for literal, field, _ in parts:
        yield re.escape(literal)
        if field:
            yield rf"(?P<{field}>{'[0-9]+' if field == NUMBER else '[^/]+'})"


def _filled(field: str, spec: str, values: Values) -> str:
    """Write a value as the template says."""
    if not field:
        return ""
    return format(int(values[field]), spec) if field == NUMBER else str(values[field])
