"""Layouts: where artefacts of each kind lie, as templates that have names."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from torchsystem.errors import AmbiguousPath, DuplicateKind, UnknownKind
from torchsystem.storage.templates import Template, Values


class Layout:
    """Where artefacts of each kind lie below the root of a store: a template for each kind.

    Args:
        templates: The kinds to begin with, and their templates.

    Raises:
        InvalidTemplate: A template makes no relative paths, or some that could not be read again.

    Examples:
        >>> from torchsystem.storage.layout import Layout
        >>> layout = Layout()
        >>> layout.declare("predictions", "{project}/{experiment}/{run}/predictions/{split}_{number}.json")
        >>> layout.path("predictions", project="digits", experiment="a", run="1", split="test", number=2)
        'digits/a/1/predictions/test_2.json'
        >>> kind, values = layout.parse("digits/a/1/predictions/test_2.json")
        >>> kind, values["split"], values["number"]
        ('predictions', 'test', 2)
    """

    def __init__(self, **templates: str) -> None:
        self._templates: dict[str, Template] = {}
        for kind, template in templates.items():
            self.declare(kind, template)

    def declare(self, kind: str, template: str) -> None:
        """Say where the artefacts of a kind lie.

        Args:
            kind: The kind.
            template: The path, with `{fields}`; `{kind}` is the kind, `{number}` (or `{number:04d}`) is drawn by the
                store.

        Raises:
            DuplicateKind: The kind is declared already, or its paths are those of another.
            InvalidTemplate: The template makes no relative paths, or some that could not be read again.
            UnsafeName: The kind cannot be part of a path.
        """
        made = Template(kind, template)
        if kind in self._templates:
            message = f"{kind!r} is declared already, as {self._templates[kind].text!r}. Give the other another name."
            raise DuplicateKind(message)
        for other in self._templates.values():
            if other.shape == made.shape:
                message = (
                    f"{kind!r} would lie where {other.kind!r} does: {template!r} makes the paths of {other.text!r}."
                )
                raise DuplicateKind(message)
        self._templates[kind] = made

    def __iter__(self) -> Iterator[str]:
        """Iterate over the kinds, as declared."""
        return iter(self._templates)

    def __contains__(self, kind: object) -> bool:
        return kind in self._templates

    def __repr__(self) -> str:
        return f"Layout({', '.join(f'{kind}={made.text!r}' for kind, made in self._templates.items())})"

    def template(self, kind: str) -> Template:
        """Return the template of a kind.

        Raises:
            UnknownKind: The kind is not declared.
        """
        try:
            return self._templates[kind]
        except KeyError:
            near = get_close_matches(str(kind), self._templates, n=1) or list(self._templates)
            known = f"Did you mean {' or '.join(map(repr, near))}?" if near else "No kind is declared."
            message = f"No kind {kind!r} is declared. {known} Write layout.declare({kind!r}, '...')."
            raise UnknownKind(message) from None

    def path(self, kind: str, /, **values: str | int) -> str:
        """Make the path of an artefact, relative to the root of the store.

        Raises:
            UnknownKind: The kind is not declared.
            UnfilledTemplate: A value is missing, or is of no field.
            UnsafeName: A value cannot be part of a path.
            AmbiguousPath: Other values, or another kind, would make the same path.
        """
        return self.format(self.template(kind), values)

    def format(self, template: Template, values: Values) -> str:
        """Make a path, as `path` does."""
        path = template.format(values)
        for other in self._templates.values():
            if other.kind != template.kind and other.parse(path) is not None:
                message = (
                    f"{path!r} would be of kind {template.kind!r}, and of kind {other.kind!r} too ({other.text!r})."
                )
                raise AmbiguousPath(message)
        return path

    def parse(self, path: str) -> tuple[str, dict[str, str | int]] | None:
        """Tell the kind and the values of an artefact from its path; None if it is of no kind."""
        for kind, template in self._templates.items():
            values = template.parse(path)
            if values is not None:
                return kind, values
        return None
