"""Tables that cannot be learned from: one sentence each."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.errors import DataError, HighwaterError, SpecError
from trainers.tabular import prepare

from .tiny_table import CLASSES, START, columns, table, table_document, table_spec

WHO = "tests.unit.tiny_table:houses"


def prepared_facts(folder: Path, **changes: Any) -> dict[str, Any]:
    return prepare(table_spec(folder, **changes), folder / "data")


def arrays(folder: Path, part: str) -> list[np.ndarray[Any, Any]]:
    return [np.load(folder / "data" / f"{part}_{kind}.npy") for kind in ("codes", "values", "targets")]


def replaced(name: str, row: int, value: Any) -> dict[str, list[Any]]:
    values = list(columns()[name])
    values[row] = value
    return {name: values}


BAD: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("target", {}, {"data": {"target": "prize"}}, "data.target names prize, .* did you mean price"),
    ("column", {}, {"data": {"continuous": ["sise"]}}, "data.continuous names sise, .* did you mean size"),
    ("split", {}, {"data": {"split": {"kind": "time", "column": "wen"}}}, "data.split.column names wen.*mean when"),
    ("embedding", {}, {"model": {"embeddings": {"town": 3}}}, "model.embeddings names town"),
    ("words", {}, {"data": {"continuous": ["kind"]}}, "column kind holds text, not numbers"),
    ("all missing", {"age": [None] * 600}, {"data": {"continuous": ["age"]}}, "age has no value in any training row"),
    ("infinite", replaced("age", 7, float("inf")), {}, "column age has infinite values; leave"),
    ("infinite target", replaced("price", 7, float("-inf")), {}, "column price has infinite values"),
    ("no target", {"price": [None] * 600}, {}, "price has no value in any row"),
    ("few targets", {"price": [None] * 60 + columns()["price"][60:]}, {}, "no value in 60 of 600 rows, more than 5.0%"),
    ("NaN targets", {"price": [math.nan] * 60 + columns()["price"][60:]}, {}, "no value in 60 of 600 rows"),
    ("one target", {"price": [1.0] * 600}, {}, "price is 1 in all training rows"),
    ("log of 0", replaced("price", 3, 0.0), {"objective": {"kind": "regression", "log_target": True}}, "above 0"),
    ("text target", {}, {"data": {"target": "city"}}, "target city holds text.*objective.kind to classification"),
    (
        "one class",
        {"dear": [True] * 600},
        {"data": {"target": "dear", "ignore": []}, "objective": CLASSES},
        "one class",
    ),
    ("fractions", {}, {"objective": CLASSES}, "holds fractions"),
    (
        "a class only in validation",
        replaced("dear", 599, None) | {"dear": ["a", "b"] * 290 + ["c"] * 20},
        {"data": {"target": "dear", "ignore": []}, "objective": CLASSES},
        r"1 classes are in the rows that are held out and not in training \(c\)",
    ),
    (
        "auc of three",
        {},
        {"data": {"target": "kind"}, "objective": CLASSES | {"metric": "auc"}},
        "auc is for two classes, and the target has 3",
    ),
    ("no time", replaced("when", 3, None), {}, "when has no value in 1 rows, and data.split needs one"),
    ("one time", {"when": [START] * 600}, {}, "leaves no rows for training"),
    ("split by words", {}, {"data": {"split": {"kind": "time", "column": "city"}}}, "city, which holds text"),
    ("dates", {}, {"data": {"dates": ["city"]}}, "data.dates names city, which holds text"),
    ("nothing left", {}, {"data": {"categorical": [], "continuous": []}}, "no column left to predict price from"),
    ("rare", {}, {"data": {"categorical": ["city"], "continuous": [], "min_count": 999}}, "lower data.min_count"),
    ("no rows", {name: [] for name in columns()}, {}, "has no rows"),
    ("factory", {}, {"data": {"source": None, "factory": WHO, "options": {"give": 3}}}, "returned a int"),
]


@pytest.mark.parametrize(("change", "spec", "said"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_input_is_refused_in_one_sentence(
    tmp_path: Path, change: dict[str, Any], spec: dict[str, Any], said: str
) -> None:
    table(tmp_path, change)
    with pytest.raises(HighwaterError, match=said) as caught:
        prepared_facts(tmp_path, **spec)
    assert "\n" not in caught.value.message
    assert caught.value.reason in ("bad_data", "bad_spec")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", b"", "is not a whole CSV file"),
        ("x.csv", b"price,when\n1,2,3\n", "is not a whole CSV file"),
        ("x.csv", b"price,price\n1,2\n", "several columns called price"),
        ("x.parquet", b"PAR1", "is not a whole Parquet file"),
        ("x.json", b"{}", "is of no known form"),
        (None, b"", "does not exist"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path: Path, name: str | None, content: bytes, said: str) -> None:
    file = tmp_path / (name or "nowhere.csv")
    if name:
        file.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        prepared_facts(tmp_path, data={"source": str(file)})
    assert "\n" not in caught.value.message


def test_rows_without_a_target_are_dropped_and_counted(tmp_path: Path) -> None:
    table(tmp_path, {"price": [None] * 30 + columns()["price"][30:]})
    facts = prepared_facts(tmp_path)
    assert (facts["rows_without_target"], facts["rows"]) == (30, 570)
    assert "30 rows without price dropped" in facts["message"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["data"].update(factory="a.b:c"), "source or factory"),
        (lambda d: d["data"].update(continuous=["price"]), "price stands more than once"),
        (lambda d: d["data"].update(split={"kind": "random", "validation_share": 0.6, "test_share": 0.5}), "no row to"),
        (lambda d: d["objective"].update(y_range=[3, 2]), "begin below its end"),
        (lambda d: d["objective"].update(y_range=[0, 2], log_target=True), "above 0"),
        (lambda d: d["data"].update(options={"a": 1}), "options are for factory"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    from jobs.specfile import spec_from_json

    document = table_document(tmp_path) | {"objective": {"kind": "regression"}}
    change(document)
    with pytest.raises(SpecError, match=said):
        spec_from_json(document)
