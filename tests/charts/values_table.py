"""Writes the table of a chart's values into its README: `python -m tests.charts.values_table charts/NAME ...`.

The comment right above a key in values.yaml is what the table says of it. A mapping whose keys have no comments of
their own is one row. A value that nobody described is an error, so that none can be forgotten.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

BEGIN = "<!-- values: written by tests/charts/values_table.py -->"
END = "<!-- end of values -->"


class Row(NamedTuple):
    """One value that a user may set."""

    key: str
    default: Any
    description: str


def rows(text: str) -> list[Row]:
    """The values of a values.yaml, in its order; ValueError names those that have no description."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        return []
    found = list(_rows(root, "", text.splitlines()))
    bare = [row.key for row in found if not row.description]
    if bare:
        raise ValueError(f"values.yaml: no comment above {', '.join(bare)}; write what each does right above it")
    return found


def table(text: str) -> str:
    """The Markdown table of a values.yaml."""
    lines = ["| Value | What it is | Default |", "|---|---|---|"]
    for row in rows(text):
        default = json.dumps(row.default, ensure_ascii=False)
        lines.append(f"| `{row.key}` | {_cell(row.description)} | `{_cell(default)}` |")
    return "\n".join(lines)


def rewritten(readme: str, values: str) -> str:
    """The README with the table between its markers brought up to date; ValueError without markers."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no lines {BEGIN} and {END}; put them where the table of values belongs")
    return f"{before}{BEGIN}\n{table(values)}\n{END}{after}"


def out_of_date(chart: Path) -> bool:
    """Whether the chart's README says other than its values.yaml."""
    readme = (chart / "README.md").read_text()
    return rewritten(readme, (chart / "values.yaml").read_text()) != readme


def _rows(node: yaml.MappingNode, prefix: str, lines: list[str]) -> Iterator[Row]:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        description = _above(lines, key)
        if isinstance(value, yaml.MappingNode) and value.value and _described(value, lines):
            yield from _rows(value, f"{name}.", lines)
        else:
            yield Row(name, _plain(value), description)


def _described(node: yaml.MappingNode, lines: list[str]) -> bool:
    return any(
        _above(lines, key) or (isinstance(value, yaml.MappingNode) and _described(value, lines))
        for key, value in node.value
    )


def _above(lines: list[str], key: yaml.Node) -> str:
    """The comment that ends in the line above a key that begins its line, as one text."""
    number = key.start_mark.line
    if lines[number][: key.start_mark.column].strip():
        return ""
    comment: list[str] = []
    while number > 0 and lines[number - 1].lstrip().startswith("#"):
        number -= 1
        comment.insert(0, lines[number].lstrip().lstrip("#").strip())
    return " ".join(comment).strip()


def _plain(node: yaml.Node) -> Any:
    return yaml.SafeLoader("").construct_object(node, deep=True)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> None:
    """Bring the READMEs of these charts up to date."""
    for chart in map(Path, arguments):
        readme = chart / "README.md"
        readme.write_text(rewritten(readme.read_text(), (chart / "values.yaml").read_text()))
        print(f"{readme}: the table of values is up to date")


if __name__ == "__main__":
    main(sys.argv[1:])
