"""YAML 1.2 in and out, as plain JSON values, with ruamel.yaml's parser and our own reading of scalars.

ruamel.yaml resolves some scalars as YAML 1.1 did (dates, `1_000`), so only its events are used here; the core
schema of YAML 1.2 (section 10.3.2) is the six patterns below. Input is hostile until proven otherwise: size, depth
and the number of nodes after aliases are bounded, and no tag can construct anything.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from jobs.errors import SpecError

MAX_BYTES = 1 << 20
MAX_NODES = 10_000
MAX_DEPTH = 50

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INF = re.compile(r"([-+]?)\.(?:inf|Inf|INF)")
_NAN = re.compile(r"\.(?:nan|NaN|NAN)")
_TAG = "tag:yaml.org,2002:"


def loads(text: str, where: str) -> Any:  # noqa: ANN401 - decoded YAML
    """The one document in `text` as JSON values; an empty text is None.

    `where` names the text in errors, such as a file. Raises `SpecError` with the line and column.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    if len(text) > MAX_BYTES:
        raise SpecError(f"{where} is larger than 1 MiB, which no spec is; check that it is the file you meant")
    try:
        return _Builder(YAML(typ="safe", pure=True).parse(text), where).document()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SpecError(f"{where} is not valid YAML{place}: {_plainly(error.problem or error.context)}") from error
    except YAMLError as error:
        raise SpecError(f"{where} is not valid YAML: {_plainly(error)}") from error


def dumps(document: dict[str, Any]) -> str:
    """JSON values as YAML 1.2 that `loads` reads back equal, one field a line, in the given order."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml: Any = YAML(typ="safe", pure=True)  # Any: its settings are declared as None
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 1 << 30
    out = StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def scalar(text: str) -> str | int | float | bool | None:
    """What an unquoted scalar means in the core schema of YAML 1.2."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text[0] in "tT"
    if _INT.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text)
    if infinite := _INF.fullmatch(text):
        return -math.inf if infinite[1] == "-" else math.inf
    return math.nan if _NAN.fullmatch(text) else text


def _plainly(problem: object) -> str:
    """The parser's words on one line, without its own terms."""
    text = " ".join(str(problem or "it cannot be read").split())
    text = re.sub(r"\(?'<(stream|document) (start|end)>',?\)?", r"the \2 of the text", text)
    return text.replace("that cannot start any token", "that cannot begin a value; quote the text")


@dataclass
class _Builder:
    """Folds parser events into values, counting the nodes that a walk over the result would meet."""

    events: Iterator[Any]
    where: str
    anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)
    open_anchors: set[str] = field(default_factory=set)
    nodes: int = 0

    def document(self) -> Any:  # noqa: ANN401 - decoded YAML
        from ruamel.yaml.events import DocumentStartEvent, StreamEndEvent

        next(self.events)
        start = next(self.events)
        if isinstance(start, StreamEndEvent):
            return None
        if start.version is not None and tuple(start.version) != (1, 2):
            raise self.error(start, "a %YAML line asks for another version; specs are read as YAML 1.2")
        value = self.node(next(self.events), 0)
        next(self.events)
        following = next(self.events)
        if isinstance(following, DocumentStartEvent):
            raise self.error(following, "a second document begins; keep one spec per file")
        return value

    def node(self, event: Any, depth: int) -> Any:  # noqa: ANN401 - ruamel's events, decoded YAML
        from ruamel.yaml.events import AliasEvent, MappingStartEvent, ScalarEvent

        self.count(event, 1)
        if depth > MAX_DEPTH:
            raise self.error(event, f"values are nested more than {MAX_DEPTH} deep")
        if isinstance(event, AliasEvent):
            return self.alias(event)
        before = self.nodes
        if event.anchor:
            self.open_anchors.add(event.anchor)
        value: Any
        if isinstance(event, ScalarEvent):
            value = self.scalar(event)
        else:
            self.check_tag(event, "map" if isinstance(event, MappingStartEvent) else "seq")
            value = self.mapping(depth) if isinstance(event, MappingStartEvent) else self.sequence(depth)
        if event.anchor:
            self.open_anchors.discard(event.anchor)
            self.anchors[event.anchor] = (value, self.nodes - before)
        return value

    def mapping(self, depth: int) -> dict[str, Any]:
        from ruamel.yaml.events import MappingEndEvent, ScalarEvent

        values: dict[str, Any] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                raise self.error(event, "a key must be a plain word")
            if event.value == "<<" and event.style is None:
                raise self.error(event, "merge keys (<<) are not part of YAML 1.2; write the fields out")
            if event.value in values:
                raise self.error(event, f"the key {event.value!r} is given a second time; keep one")
            self.scalar(event)
            values[event.value] = self.node(next(self.events), depth + 1)
        return values

    def sequence(self, depth: int) -> list[Any]:
        from ruamel.yaml.events import SequenceEndEvent

        values: list[Any] = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            values.append(self.node(event, depth + 1))
        return values

    def scalar(self, event: Any) -> str | int | float | bool | None:  # noqa: ANN401 - ruamel's event
        plain = event.style is None and event.tag in (None, "")
        self.check_tag(event, "str")
        try:
            return scalar(event.value) if plain else str(event.value)
        except ValueError as error:  # Python converts no integers of thousands of digits
            raise self.error(event, "a number has too many digits") from error

    def alias(self, event: Any) -> Any:  # noqa: ANN401 - ruamel's event, decoded YAML
        if event.anchor in self.open_anchors:
            raise self.error(event, f"the alias *{event.anchor} stands inside what it repeats")
        if event.anchor not in self.anchors:
            raise self.error(event, f"no value was named &{event.anchor} before; quote the text if it is no alias")
        value, nodes = self.anchors[event.anchor]
        self.count(event, nodes)
        return copy.deepcopy(value)  # an override of one place must not change the other

    def check_tag(self, event: Any, kind: str) -> None:  # noqa: ANN401 - ruamel's event
        if event.tag is not None and str(event.tag) not in ("", "!", f"!!{kind}", _TAG + kind):
            tag = str(event.tag).replace(_TAG, "!!")
            raise self.error(event, f"the tag {tag} is not allowed; write the value without it")

    def count(self, event: Any, nodes: int) -> None:  # noqa: ANN401 - ruamel's event
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise self.error(event, f"more than {MAX_NODES} values, repeated ones counted; no spec is that long")

    def error(self, event: Any, problem: str) -> SpecError:  # noqa: ANN401 - ruamel's event
        mark = event.start_mark
        return SpecError(f"{self.where}, line {mark.line + 1}, column {mark.column + 1}: {problem}")
