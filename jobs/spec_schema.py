"""The JSON Schema of the spec, and what it says about one field in plain words. Pure.

Everything that a person is told about a field (its type, range, choices and neighbours) is read from the
schema that pydantic derives, so the words can not drift from the classes in `jobs.spec`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema

from jobs.specs import SPECS

Node = dict[str, Any]
Path = tuple[str | int, ...]
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> Node:
    """JSON Schema (2020-12) of a spec of any task; `task` tells which of the `oneOf` applies."""
    _, document = models_json_schema([(kind, "validation") for kind in SPECS.values()])
    references = {task: f"#/$defs/{kind.__name__}" for task, kind in SPECS.items()}
    return {
        "$schema": _DIALECT,
        "title": "Highwater spec",
        "description": "One training run. Cross-field rules, such as epochs or steps, are checked on reading.",
        "type": "object",
        "oneOf": [{"$ref": reference} for reference in references.values()],
        "discriminator": {"propertyName": "task", "mapping": references},
        "$defs": {name: _untitled(node) for name, node in document["$defs"].items()},
    }


@cache
def task_schema(task: str) -> Node:
    """Schema of one task's spec; do not change it."""
    return SPECS[task].model_json_schema()


def find(root: Node, path: Path, document: object = None) -> list[Node]:
    """Schemas that may hold at a path; empty if there is no such field.

    `document` settles which variant of a section is meant, by its `kind`; without it all of them count.
    """
    nodes = variants(root, root)
    for key in path:
        nodes = [v for n in nodes for c in _child(n, key, document) for v in variants(root, c)]
        document = _item(document, key)
    return nodes


def fields(root: Node, path: Path, document: object = None) -> list[str]:
    """Names of the fields of the section at a path, in the order of the spec."""
    names: dict[str, None] = {}
    for node in find(root, path, document):
        if _is_variant(node, _at(document, path)):
            names |= dict.fromkeys(node.get("properties", {}))
    return list(names)


def places(root: Node) -> list[str]:
    """Dotted names of all fields of all variants, sections included, outer ones first."""
    found: dict[str, None] = {}
    level: list[Path] = [()]
    while level:
        level = [(*path, name) for path in level for name in fields(root, path)]
        found |= dict.fromkeys(dotted(path) for path in level)
    return list(found)


def kinds(root: Node, section: Path, field: str) -> list[str]:
    """Kinds of a section (such as `qrnn`) that have a field."""
    nodes = [n for n in find(root, section) if field in n.get("properties", {})]
    return [_kind(n)["const"] for n in nodes if "const" in _kind(n)]


def is_section(node: Node) -> bool:
    """Whether values of a schema have fields."""
    return "properties" in node or "additionalProperties" in node


def is_free(node: Node) -> bool:
    """Whether a section takes any key, as a dictionary does."""
    return "properties" not in node and isinstance(node.get("additionalProperties"), dict | bool)


def variants(root: Node, node: Node) -> list[Node]:
    """A schema without references and alternatives: what it may be, one by one."""
    if "$ref" in node:
        return variants(root, root["$defs"][node["$ref"].rsplit("/", 1)[-1]])
    options = node.get("anyOf") or node.get("oneOf")
    return [v for option in options for v in variants(root, option)] if options else [node]


def allowed(root: Node, nodes: Sequence[Node]) -> str:
    """What the schemas allow, in plain words."""
    choices = [choice for node in nodes for choice in _choices(node)]
    kinds = [node["properties"]["kind"]["const"] for node in nodes if "const" in _kind(node)]
    words = [_words(root, node) for node in nodes if not _choices(node) and "const" not in _kind(node)]
    if kinds:
        words.append(f"a section with kind: {' or '.join(kinds)}")
    if choices:
        words.append(choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}")
    return ", or ".join(dict.fromkeys(words))


def dotted(path: Path) -> str:
    """A path as written in errors and in --set; places in a list as [0]."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".")


def _child(node: Node, key: str | int, document: object) -> list[Node]:
    if isinstance(key, int):
        prefix = node.get("prefixItems", [])
        child = prefix[key] if 0 <= key < len(prefix) else node.get("items")
        return [child] if isinstance(child, dict) else []
    if not _is_variant(node, document):
        return []
    child = node.get("properties", {}).get(key, node.get("additionalProperties"))
    return [child] if isinstance(child, dict) else []


def _kind(node: Node) -> Node:
    """Schema of the field that tells a section's variants apart; empty if it has none."""
    kind: Node = node.get("properties", {}).get("kind", {})
    return kind


def _is_variant(node: Node, document: object) -> bool:
    """Whether a section of this kind is meant; a document without a known kind may be any."""
    kind = _kind(node).get("const")
    given = _item(document, "kind")
    return kind is None or not isinstance(given, str) or given == kind


def _at(document: object, path: Path) -> object:
    for key in path:
        document = _item(document, key)
    return document


def _item(document: object, key: str | int) -> object:
    if isinstance(document, dict):
        return document.get(key)
    if isinstance(document, list) and isinstance(key, int) and key < len(document):
        return document[key]
    return None


def _choices(node: Node) -> list[str]:
    values = node["enum"] if "enum" in node else [node["const"]] if "const" in node else []
    return [*(str(value) for value in values), *(["null"] if node.get("type") == "null" else [])]


def _words(root: Node, node: Node) -> str:
    match node.get("type"):
        case "integer":
            return "a whole number" + _range(node, whole=True)
        case "number":
            return "a number" + _range(node, whole=False)
        case "string":
            return "text"
        case "boolean":
            return "true or false"
        case "array" if "prefixItems" in node:
            first = allowed(root, variants(root, node["prefixItems"][0]))
            return f"a list of {len(node['prefixItems'])} values, each {first}"
        case "array":
            return "a list of at least one value" if node.get("minItems") else "a list"
        case "object" if "properties" in node:
            return f"a section with any of {', '.join(node['properties'])}"
        case "object":
            return "a section"
        case _:
            return "any value"


def _range(node: Node, *, whole: bool) -> str:
    low, above = node.get("minimum"), node.get("exclusiveMinimum")
    high, below = node.get("maximum"), node.get("exclusiveMaximum")
    if whole and above is not None:
        low, above = above + 1, None
    parts = [
        f"{word} {limit:g}" if isinstance(limit, float) else f"{word} {limit}"
        for word, limit in (("of at least", low), ("above", above), ("at most", high), ("below", below))
        if limit is not None
    ]
    return " " + " and ".join(parts) if parts else ""


def _untitled(node: Any) -> Any:  # noqa: ANN401 - decoded JSON
    """A schema without the titles that pydantic makes up from field names; those of classes stay."""
    if isinstance(node, list):
        return [_untitled(item) for item in node]
    if not isinstance(node, dict):
        return node
    made_up = isinstance(node.get("title"), str) and "properties" not in node
    return {key: _untitled(value) for key, value in node.items() if not (made_up and key == "title")}
