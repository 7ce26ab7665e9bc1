"""How the found rate is told: the panel of the report and the command's text, from good, odd and hostile records."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from jobs.lr_table import lr_text
from jobs.report import rangetest
from jobs.report.build import build_report
from jobs.report.figure import figure
from jobs.report.render import render
from jobs.report.view import RunView, gather
from jobs.rundir import Row
from tests.unit import report_tasks as tasks
from tests.unit.test_report import HOSTILE, Page
from tests.unit.test_report_tasks import ODD, replaced
from trainers.lr.decide import decide
from trainers.lr.rules import RULES

from .test_lr import made_up


def a_record(count: int = 2, **changes: Any) -> Row:
    sweeps = [made_up(seed=seed) for seed in range(count)]
    facts = decide(sweeps, "minimum/4", "adamw").to_json() | {
        "halvings": 0,
        "sweeps": [sweep.to_json() for sweep in sweeps],
        "steps": 180,
        "run_steps": 2000,
    }
    record: Row = {"stage": "lr", "time": 1.0, "seconds": 2.0, "message": "found", "facts": facts | changes}
    return json.loads(json.dumps(record))  # as a run directory gives it back


@pytest.fixture(scope="module")
def view() -> RunView:
    given = gather(tasks.a_tabular_run(examples={}))
    return replace(given, spec=given.spec | {"learning_rate": "auto"})


def words(view: RunView, record: Row) -> str:
    panel = rangetest.panel(replace(view, rate_search=record))
    assert panel is not None
    return Page(render(panel).encode()).words


def test_the_curve_shows_sweeps_bracket_rules_and_what_was_taken(view: RunView) -> None:
    record = a_record()
    facts = record["facts"]
    panel = rangetest.panel(replace(view, rate_search=record))
    assert panel is not None
    (chart,) = panel.charts
    names = [series.name for series in chart.series]
    assert names.count("running median") == names.count("each mini-batch") == 2
    assert set(RULES) <= set(names)
    assert chart.bands == [(facts["bracket"]["low"], facts["bracket"]["diverged"])]
    drawn = next(series for series in chart.series if series.name == "running median")
    assert list(drawn.ys)[:20] == list(facts["sweeps"][0]["smooth"])[:20], "what is drawn is what was decided from"
    assert [row[0] for row in chart.rows] == list(RULES)
    assert figure(chart)["layout"]["xaxis"]["ticktext"][0] == "1e-07"
    said = words(view, record)
    assert "The learning rate is 0.0" in said
    assert "from where learning begins to where it is lost" in said


def test_doubt_and_halvings_are_said(view: RunView) -> None:
    said = words(view, a_record(conclusive=False, halvings=3))
    assert "The curve said too little to be sure." in said
    assert "halved 3 times" in said
    assert "One sweep was made" in words(view, a_record(1))


def test_without_a_search_there_is_no_panel_and_before_its_end_a_sentence(view: RunView) -> None:
    given = replace(view, spec=view.spec | {"learning_rate": 0.01})
    assert rangetest.panel(given) is None
    assert "has not been found yet" in words(view, {})


@pytest.mark.parametrize("odd", ODD, ids=lambda value: str(value)[:8])
def test_any_value_of_the_record_may_be_odd(odd: object, view: RunView) -> None:
    small = a_record()
    for sweep in small["facts"]["sweeps"]:
        for key in ("rates", "losses", "smooth"):
            sweep[key] = list(sweep[key][:8])
    for document in replaced(small["facts"], odd):
        panel = rangetest.panel(replace(view, rate_search={"facts": document}))
        html = render(panel) if panel else ""
        assert "<script>alert" not in html


def test_hostile_words_add_no_element() -> None:
    run = tasks.a_tabular_run(examples={})
    plain = a_record()
    run.write("stages/lr.json", plain)
    expected = [name for name, _ in Page(build_report(run)).elements]
    run.write("stages/lr.json", a_record(why=HOSTILE) | {"message": HOSTILE})
    assert [name for name, _ in Page(build_report(run)).elements] == expected


def test_the_commands_text_has_every_rule_and_sweep() -> None:
    record = a_record(halvings=2)
    text = lr_text(record)
    assert "minimum/4 <" in text
    assert all(rule in text for rule in RULES)
    assert "halved 2 times" in text
    assert text.count("as the loss was four times its lowest") == 2
    assert lr_text({"message": "nothing to find"}) == "nothing to find"
