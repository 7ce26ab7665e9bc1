"""The chart's values: closed by the schema, described in the README, and clean under `helm lint`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts import helm, values_table

CHART = helm.CHARTS / "highwater"


def objects_of(schema: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All schemas of objects, with their places."""
    if isinstance(schema, list):
        for number, part in enumerate(schema):
            yield from objects_of(part, f"{where}/{number}")
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield where, schema
        for key, part in schema.items():
            yield from objects_of(part, f"{where}/{key}")


def test_no_object_takes_unknown_keys() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    # Helm puts `global` there itself; resources of a quota have any names, but their values are checked.
    loose = {where for where, part in objects_of(schema) if part.get("additionalProperties") is not False}
    assert loose == {"/properties/global", "/properties/quota/properties/hard"}
    assert schema["properties"]["quota"]["properties"]["hard"]["additionalProperties"]


def test_every_value_has_a_place_in_the_schema_and_the_other_way_round() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(given: dict[str, Any], part: dict[str, Any], where: str) -> None:
        if "$ref" in part:
            part = schema["$defs"][part["$ref"].rpartition("/")[2]]
        if "properties" not in part:
            return
        optional = {"global"} | ({"nvidia.com/gpu", "memory"} if where == "limitRange.max." else set())
        assert set(given) == set(part["properties"]) - optional, where
        for key, value in given.items():
            if isinstance(value, dict):
                compare(value, part["properties"][key], f"{where}{key}.")

    compare(values, schema, "")


def test_the_readme_is_up_to_date() -> None:
    assert not values_table.out_of_date(CHART), "run: python -m tests.charts.values_table charts/highwater"


@pytest.mark.parametrize(
    "sets",
    [
        [],
        ["storage=s3://bucket/x", "storageEndpoint=http://minio:9000"],
        ["createCredentials.enabled=true", "createCredentials.accessKeyId=a", "createCredentials.secretAccessKey=b"],
        [
            "sharedCluster.enabled=true",
            "priorityClasses.enabled=true",
            "limitRange.enabled=true",
            "networkPolicy.enabled=false",
        ],
    ],
)
def test_lint_is_clean(sets: list[str]) -> None:
    assert "[WARNING]" not in helm.lint("highwater", *sets)


def test_no_address_of_a_registry_is_in_the_chart() -> None:
    for path in CHART.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert not any(host in text for host in ("docker.io", "quay.io", "ghcr.io", "github.io", "pypi")), path


VALUES = """
# What a does,
# in two lines.
a: 1

group:
  # What b does | or not.
  b: [x, 'y']
  inner:
    # What c does.
    c: ""
# A mapping as one.
whole: {d: 1, e: null}
"""


def test_the_table_has_one_row_for_each_value() -> None:
    assert values_table.rows(VALUES) == [
        ("a", 1, "What a does, in two lines."),
        ("group.b", ["x", "y"], "What b does | or not."),
        ("group.inner.c", "", "What c does."),
        ("whole", {"d": 1, "e": None}, "A mapping as one."),
    ]
    assert '| `group.b` | What b does \\| or not. | `["x", "y"]` |' in values_table.table(VALUES)


def test_a_value_without_description_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no comment above group\.f, g;"):
        values_table.rows("# A group.\ngroup:\n  # What e does.\n  e: 1\n  f: 2\ng: 3\n")


def test_the_table_is_written_between_its_markers(tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    chart.mkdir()
    (chart / "values.yaml").write_text(VALUES)
    readme = chart / "README.md"
    readme.write_text(f"before\n{values_table.BEGIN}\nold\n{values_table.END}\nafter\n")
    assert values_table.out_of_date(chart)
    values_table.main([str(chart)])
    assert not values_table.out_of_date(chart)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    readme.write_text("no markers")
    with pytest.raises(ValueError, match="put them where"):
        values_table.main([str(chart)])
