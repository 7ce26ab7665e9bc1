"""The report: one file that loads nothing, runs nothing of the run's, and is there for a run in any state."""

from __future__ import annotations

import json
import math
import time
from html.parser import HTMLParser
from typing import Any

import pytest

from jobs.errors import NotFoundError
from jobs.report.axes import active_time, epoch_ticks, rates
from jobs.report.build import build_report, script, shown, write_report
from jobs.report.figure import label
from jobs.report.panel import Chart
from jobs.report.text import Html, duration, escape, finite, number, script_json, share, tag
from jobs.report.thin import extremes, trend
from jobs.report.view import gather
from jobs.rundir import RunDir, segment_key
from tests.unit import report_fixture as fixture
from tests.unit.stores import MemoryStore

#: What every run has, whatever its task.
ALWAYS = {"result", "curves", "decisions", "fit", "memory", "rate", "gradients", "throughput", "details"}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`{{${1}}}<!--\u2028"


class Page(HTMLParser):
    """What of a page is elements and what is text."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(data.decode())

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attrs)))
        self._inside = name
        if name == "script":
            self.scripts.append("")

    def handle_endtag(self, name: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    @property
    def panels(self) -> set[str]:
        return {str(attributes["id"]) for name, attributes in self.elements if name == "section"}

    def figures(self) -> list[dict[str, Any]]:
        kinds = [attributes.get("type") for name, attributes in self.elements if name == "script"]
        chosen = [text for text, kind in zip(self.scripts, kinds, strict=True) if kind == "application/json"]
        return [json.loads(text) for text in chosen]


def charts(run: RunDir) -> dict[str, Chart]:
    return {chart.key: chart for panel in shown(gather(run)) for chart in panel.charts}


def test_a_finished_run_says_what_came_out() -> None:
    page = Page(build_report(fixture.a_run()))
    assert "The best perplexity is 149.8 (step 600; lower is better): 76 % lower than that of a model" in page.words
    assert "32 = 32 rows x 1 worker x 1 micro-step" in page.words
    assert "There is 1 worker instead of 2" in page.words
    assert "seigniorage" in page.words
    assert len(page.figures()) == 5


def test_nothing_is_loaded_from_elsewhere() -> None:
    data = build_report(fixture.a_run())
    for name, attributes in Page(data).elements:
        assert name not in {"iframe", "object", "embed", "base", "form", "video", "audio", "source"}
        assert "src" not in attributes
        assert "srcset" not in attributes
        if name == "link":
            assert attributes["href"] == "data:,"
        if name == "a":
            assert str(attributes["href"]).startswith("#")
    style = data.split(b"<style>")[1].split(b"</style>")[0]
    assert b"url(" not in style
    assert b"@import" not in style
    assert b"default-src &#x27;none&#x27;; script-src &#x27;sha256-" in data


def test_hostile_text_stays_text() -> None:
    run = fixture.a_run(name="<b>run</b>")
    plain = [(name, sorted(a)) for name, a in Page(build_report(run)).elements]
    run.write("spec.json", fixture.SPEC | {"task": HOSTILE, "data": {"source": HOSTILE, HOSTILE: HOSTILE}})
    run.write("examples.json", {
        "generated": [{"prompt": HOSTILE, "text": HOSTILE + HOSTILE}, {"prompt": "p", "text": HOSTILE}],
        "surprising": [{"tokens": [HOSTILE, *fixture.TOKENS[1:]], "nats": fixture.NATS} for _ in range(2)],
    })  # fmt: skip
    metrics = {HOSTILE: 2.0, "perplexity": 150.0, "loss": 5.0}
    result = fixture.result(HOSTILE) | {"message": HOSTILE, "reason": HOSTILE, "metric": HOSTILE}
    run.write("result.json", result | {"metrics": metrics, "best_metrics": metrics, "baseline": metrics})
    rows = [fixture.eval_row(600, 150.0, fixture.START + 5100) | {"metrics": metrics, "step": 600}]
    fixture.put_rows(run, "metrics", 2, rows, segment=1)
    fixture.put_rows(run, "events", 2, [fixture.event(HOSTILE, fixture.START, HOSTILE)])
    page = Page(build_report(run))
    assert {name for name, _ in page.elements} <= {name for name, _ in plain}
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert sum(name == "script" for name, _ in page.elements) == sum(name == "script" for name, _ in plain)
    assert not any("alert(1)" in text for text in page.scripts if "Plotly" in text)
    titles = [figure["layout"]["yaxis"]["title"]["text"] for figure in page.figures()]
    assert any("&lt;img" in title for title in titles)
    assert not any("<img" in title for title in titles)


def test_escaping() -> None:
    assert escape("<a b='c'>&\"") == "&lt;a b=&#x27;c&#x27;&gt;&amp;&quot;"
    assert escape("\x00\x1b\ud800") == "\ufffd\ufffd\ufffd"
    assert tag("p", "<", Html("<br>"), title='"') == '<p title="&quot;">&lt;<br></p>'
    assert label("<a href='x'>") == "&lt;a href=&#x27;x&#x27;&gt;"
    assert json.loads(script_json({"<": HOSTILE})) == {"<": HOSTILE}
    assert "<" not in script_json(HOSTILE)
    assert "\u2028" not in script_json(HOSTILE)
    assert script("a='</script><!--<SCRIPT>'") == r"a='\x3c/script>\x3c!--\x3cSCRIPT>'"


def test_a_run_that_has_barely_started() -> None:
    run = RunDir(MemoryStore(), "new")
    run.write("spec.json", fixture.SPEC | {"bptt": "auto", "batch": "auto", "learning_rate": "auto"})
    words = Page(build_report(run)).words
    assert "not started" in words
    for sentence in ("There are no curves yet", "There are no examples yet", "Nothing has been decided yet"):
        assert sentence in words
    assert "There is no throughput yet" in words
    assert "bptt) auto" in words


@pytest.mark.parametrize(
    "gone", ["spec.json", "attempts/", "stages/", "metrics/", "events/", "examples.json", "result.json"]
)
def test_any_part_may_be_missing(gone: str) -> None:
    store = MemoryStore()
    run = fixture.a_run(store=store)
    store.delete([key for key in list(store.objects) if key.startswith(run.key(gone))])
    page = Page(build_report(run))
    assert page.panels == ALWAYS | {"examples"}


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b"{}", b'{"a": NaN}', b"null", b"\xff\xfe"])
def test_any_part_may_be_broken(broken: bytes) -> None:
    store = MemoryStore()
    run = fixture.a_run(store=store)
    for key in [key for key in store.objects if key.endswith(".json")]:
        store.objects[key] = broken
    page = Page(build_report(run))
    assert page.panels >= ALWAYS
    if broken == b"{":
        assert "result.json could not be read" in page.words


def test_odd_values_in_rows_are_left_out() -> None:
    run = RunDir(MemoryStore(), "odd")
    run.write("attempts/0001.json", fixture.attempt(1, fixture.START, 0))
    rows = fixture.step_rows(1, 50, fixture.START)
    rows[3] |= {"loss": None, "grad_norm": "big", "rate": [1], "time": None}
    rows[4] |= {"loss": math.nan, "grad_norm": math.inf, "units": None}
    rows += [{"kind": "step"}, {"kind": "eval"}, {"kind": "eval", "metrics": 3, "step": "x"}, {"kind": 7}]
    fixture.put_rows(run, "metrics", 1, rows)
    fixture.put_rows(run, "events", 1, [{}, {"kind": None, "message": 3, "time": "now"}])
    run.write("examples.json", {"generated": "no", "surprising": [{"tokens": ["a", 3], "nats": ["x"]}, 4, {}]})
    run.write("stages/data.json", {"facts": [1], "seconds": "x"})
    run.write("result.json", {"reason": "user_code", "baseline": [], "metrics": {"a": None}})
    page = Page(build_report(run))
    assert "failed" in page.words
    assert len(page.figures()) == 4


def test_no_run_is_an_error() -> None:
    with pytest.raises(NotFoundError, match="holds no run"):
        build_report(RunDir(MemoryStore(), "nothing"))


def test_rows_that_were_computed_again_are_not_drawn() -> None:
    run = fixture.a_run()
    lost = fixture.step_rows(fixture.RESUMED + 1, fixture.KILLED, fixture.START)
    fixture.put_rows(run, "metrics", 1, [row | {"loss": 77.0, "epoch": 3} for row in lost], segment=1)
    found = charts(run)["loss"]
    raw = found.series[0]
    assert list(raw.xs) == list(range(1, fixture.STEPS + 1))
    assert max(raw.ys) < 77
    assert list(found.lines) == [fixture.RESUMED]
    assert [text for _, text in found.epochs] == ["1", "2", "3", "4", "5", "6"]


def test_titles_say_the_finding() -> None:
    found = charts(fixture.a_run())
    assert found["metric"].title == "The best validation perplexity is 149.8, 76 % lower than that of the baseline"
    assert found["loss"].y_title == "training loss (nats per token)"
    assert "tokens per second" in found["speed"].title
    assert found["norms"].title.endswith("of the steps were clipped to a gradient norm of 0.4")
    assert len(found["speed"].bands) == 5  # the last evaluation comes after the last step


def test_metric_and_goal_before_there_is_a_result() -> None:
    run = RunDir(MemoryStore(), "images")
    run.write("spec.json", {"task": "image"})
    rows = [
        {"kind": "eval", "step": s, "metrics": {"loss": 1.0, "accuracy": a}, "best": True}
        for s, a in ((1, 0.2), (2, 0.5))
    ]
    fixture.put_rows(run, "metrics", 1, rows)
    run.write("stages/data.json", {"stage": "data", "facts": {"baseline": {"accuracy": 0.1}}})
    fixture.put_rows(run, "events", 1, [{"kind": "plan", "message": "2 steps", "unit": "images"}])
    view = gather(run)
    assert (view.metric, view.goal, view.best(), view.unit) == ("accuracy", "max", (2.0, 0.5), "images")


def test_write_report_puts_it_into_the_run() -> None:
    run = fixture.a_run()
    assert write_report(run) == f"{run.uri}/report.html"
    assert run.store.get(run.key("report.html")).startswith(b"<!doctype html>")
    assert build_report(run) == build_report(run)


def test_a_long_run_stays_small_and_quick() -> None:
    run = fixture.a_run(name="long")
    run.store.delete([entry.key for entry in run.store.list(run.key("attempts/"))])
    row = '{"kind":"step","step":%d,"epoch":%d,"loss":%.6f,"rate":0.001,"grad_norm":0.3,"units":2048,"time":%.3f}\n'
    for segment in range(4):
        steps = range(segment * 50_000 + 1, (segment + 1) * 50_000 + 1)
        rows = (row % (s, s // 999, 4 + (s * 7919 % 1000) / 1000 + (90 if s == 123_456 else 0), s * 0.1) for s in steps)
        run.store.put(run.key(segment_key("metrics", 1, segment)), "".join(rows).encode())
    run.store.delete([run.key(segment_key("metrics", 2, 0))])
    start = time.process_time()
    data = build_report(run)
    assert time.process_time() - start < 5
    assert len(data) < 8e6
    raw = charts(run)["loss"].series[0]
    assert len(raw.xs) <= 2000
    assert max(raw.ys) > 90


def test_thinning_keeps_extremes_and_order() -> None:
    ys = [math.sin(i / 50) for i in range(10_000)]
    ys[7_777], ys[1_234], ys[5] = 9.0, -9.0, math.nan
    xs, thin = extremes(range(10_000), ys, 200)
    assert len(xs) <= 200
    assert max(thin) == 9
    assert min(thin) == -9
    assert xs == sorted(xs)
    xs, smooth = trend(range(10_000), ys, 300)
    assert len(xs) == 300
    assert xs[0] == 0
    assert xs[-1] == 9_999
    assert max(smooth) < 1.01
    assert extremes([], []) == trend([], []) == ([], [])


def test_time_between_attempts_is_cut_out() -> None:
    steps = gather(fixture.a_run()).steps
    clock = active_time(steps)
    assert 300 < clock[-1] < 400
    assert math.isnan(rates(steps, clock)[fixture.RESUMED])
    assert epoch_ticks(steps)[0] == (100.0, "1")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (142.345, "142.3"), (5213, "5,213"), (5213.7, "5,214"), (3e-5, "3e-5"),
     (2.5e-4, "2.5e-4"), (0.003, "0.003"),
     (1e20, "1e20"), (-4e-7, "-4e-7"), ("auto", "auto"), (None, "unknown"), (math.nan, "nan"), (True, "True"),
     (10**400, str(10**400))],
)  # fmt: skip
def test_numbers(value: object, text: str) -> None:
    assert number(value) == text


def test_spans_and_shares() -> None:
    assert [duration(s) for s in (0.04, 59.6, 125, 7200, 93600)] == ["0.04 s", "1 min", "2 min 5 s", "2 h", "1 d 2 h"]
    assert [share(s) for s in (0, 0.004, 0.123)] == ["0 %", "0.4 %", "12 %"]
    assert finite(True) is None
    assert finite("1") is None
    assert finite(2) == 2.0
