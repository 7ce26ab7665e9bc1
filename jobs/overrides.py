"""Overrides `FIELD=VALUE` on top of a document. Pure.

- VALUE is YAML: `1e-3`, `auto`, `[0.9, 0.99]`, `{kind: qrnn}`. It replaces what was there, sections too.
- Later overrides win.
- Giving one of `epochs` and `steps` takes the other away, unless an override gives that too.
- Giving another `kind` to a section whose kinds have different fields keeps the fields that the new kind has and
  drops the rest, wherever they came from: they can mean nothing to it. Fields that overrides gave always stay, so
  that one which the new kind lacks is an error rather than lost.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs import spec_schema, yaml12
from jobs.errors import SpecError
from jobs.spec_errors import clean, shown
from jobs.spec_schema import Node, Path, dotted


@dataclass(frozen=True)
class Override:
    """One `FIELD=VALUE`: as typed, and what it says."""

    text: str
    path: Path
    value: Any

    @property
    def label(self) -> str:
        """How errors call it."""
        return f"--set {clean(self.text)}"


def parse(text: str) -> Override:
    """The override that a person typed; only the first `=` separates. Raises `SpecError`."""
    name, equals, value = text.partition("=")
    path = tuple(part.strip() for part in name.split("."))
    if not equals or not all(path):
        raise SpecError(f"--set {shown(text)} is not FIELD=VALUE, such as model.hidden=512")
    return Override(text, path, yaml12.loads(value, f"--set {clean(name)}: the value"))


def apply(document: dict[str, Any], overrides: Sequence[Override], root: Node) -> dict[str, Any]:
    """A copy of the document with the overrides in it; `root` is the schema of its task."""
    document = copy.deepcopy(document)
    given = {override.path for override in overrides if override.value is not None}
    for override in overrides:
        _put(document, override, root)
    for one, other in (("epochs", "steps"), ("steps", "epochs")):
        if (one,) in given and (other,) not in given:
            document.pop(other, None)
    for override in overrides:
        if override.path[-1] == "kind":
            _drop_of_other_kinds(document, override.path[:-1], [o.path for o in overrides], root)
    return document


def _put(document: dict[str, Any], override: Override, root: Node) -> None:
    section, path = document, _split(override.path, root)
    for depth, name in enumerate(path[:-1], start=1):
        nodes = spec_schema.find(root, path[:depth])
        if nodes and not any(spec_schema.is_section(node) for node in nodes):
            what = spec_schema.allowed(root, nodes)
            raise SpecError(f"{override.label}: {dotted(path[:depth])} has no fields; it is {what}")
        if not isinstance(section.get(name), dict):
            section[name] = {}
        section = section[name]
    section[path[-1]] = copy.deepcopy(override.value)


def _split(path: Path, root: Node) -> tuple[str, ...]:
    """The keys of a path; what follows a free section, whose keys may hold dots, is one key."""
    names = tuple(str(name) for name in path)
    for depth in range(1, len(names)):
        if any(spec_schema.is_free(node) for node in spec_schema.find(root, names[:depth])):
            return (*names[:depth], ".".join(names[depth:]))
    return names


def _drop_of_other_kinds(document: dict[str, Any], path: Path, overridden: Sequence[Path], root: Node) -> None:
    section: Any = document
    for name in path:
        section = section.get(name) if isinstance(section, dict) else None
    if not isinstance(section, dict):
        return
    known = {str(name) for name in spec_schema.fields(root, path)}
    kept = set(spec_schema.fields(root, path, document))
    for name in known - kept:
        if (*path, name) not in overridden:
            section.pop(name, None)
