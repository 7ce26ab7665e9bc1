"""What people see of fit: two panels of the report, and its lines on a terminal."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jobs.display import HISTORY, Plain, line, shorten
from jobs.follow import Follower
from jobs.live import picture
from jobs.report import decisions, fit, memory
from jobs.report.build import build_report
from jobs.report.field import BANDS
from jobs.report.figure import figure
from jobs.report.fitrecord import Fit, parse
from jobs.report.panel import Chart
from jobs.report.render import render
from jobs.report.view import gather
from jobs.rundir import Row, RunDir
from jobs.status import status_of
from jobs.view import Update
from tests.unit import report_fixture as fixture
from tests.unit.fakerun import FakeRun
from tests.unit.fit_record import LIMIT, MIB, SURFACE, USABLE, a_fit, a_line, largest, mark, probe, timeline
from tests.unit.test_report import HOSTILE, Page


def a_run(record: Row | None, **spec: object) -> RunDir:
    run = fixture.a_run()
    run.write("spec.json", fixture.SPEC | {"batch": "auto", "bptt": "auto"} | spec)
    if record is not None:
        run.write("stages/fit.json", record)
    return run


def charts(record: Row) -> dict[str, Chart]:
    view = gather(a_run(record))
    return {chart.key: chart for module in (fit, memory) for chart in module.panel(view).charts}


def words(run: RunDir, module: Any = fit) -> str:
    return Page(render(module.panel(gather(run))).encode()).words


def parsed(record: Row) -> Fit:
    found = parse(record)
    assert found is not None
    return found


# The record


def test_the_surface_is_the_one_that_the_search_solved() -> None:
    solver = pytest.importorskip("trainers.fit.sizes")
    theirs, ours = solver.Surface(**SURFACE), parsed(a_fit()).surface
    assert ours is not None
    for batch, bptt in ((1, 16), (35, 140), (300, None), (2000, 64)):
        assert ours.highest(batch, bptt) == pytest.approx(theirs.highest(solver.Size(batch, bptt)))
        assert int(ours.largest_batch(bptt, USABLE)) == theirs.largest_batch(bptt, USABLE)
    assert ours.largest_batch(70, 1.0) == 0
    flat = parsed(a_fit() | {"facts": a_fit()["facts"] | {"surface": SURFACE | {"row": 0, "cell": 0}}}).surface
    assert flat is not None
    assert flat.largest_batch(70, USABLE) == math.inf


def test_a_probe_is_read_as_the_search_means_it() -> None:
    sizes = pytest.importorskip("trainers.fit.sizes")
    row = probe(24, 70)
    theirs = sizes.Reading.from_json({key: value for key, value in row.items() if key != "purpose"})
    ours = parsed(a_fit()).probes[1]
    assert ours.highest == theirs.highest
    assert ours.rate == pytest.approx(theirs.rate)


# The panel of sizes


def test_the_choice_is_said_in_plain_words() -> None:
    text = words(a_run(a_fit()))
    assert f"The chosen size is batch {largest(140)} x bptt 140 on each worker." in text
    assert "of the limit of 512.0 MiB (memory_limit_mib)" in text
    assert "Memory decided: batch" in text
    assert "bptt is how many time steps" in text


def test_the_map_shows_field_limit_probes_frontier_and_choice() -> None:
    sizes = charts(a_fit())["sizes"]
    names = [series.name.split(":")[0] for series in sizes.series]
    assert names == [
        "the limit less its reserve of 4 %", "best batch at its bptt", "run and measured", "run and failed", "chosen",
    ]  # fmt: skip
    edge, best, good, bad, star = sizes.series
    assert all(mark(int(y), int(x)) <= 1.02 * USABLE for x, y in zip(edge.xs, edge.ys, strict=True))
    assert (list(star.xs), list(star.ys)) == ([140], [largest(140)])
    assert (len(best.xs), len(good.xs), len(bad.xs)) == (8, 6, 1)
    assert "MiB" in good.notes[0]
    assert "tokens/s" in good.notes[0]
    assert "DefaultCPUAllocator" in bad.notes[0]
    field = sizes.field
    assert field is not None
    at = field.shares[list(field.ys).index(field.ys[5])][7]
    assert at == pytest.approx(mark(int(field.ys[5]), int(field.xs[7])) / LIMIT)
    assert len(sizes.rows) == 7 + 7
    assert {row[5] for row in sizes.rows} == {"measured", "inferred"}


def test_the_map_as_plotly_has_it() -> None:
    drawn = figure(charts(a_fit())["sizes"])
    field, layout = drawn["data"][0], drawn["layout"]
    assert field["type"] == "contour"
    assert len(field["z"]) == len(field["y"])
    assert max(map(max, field["z"])) < 1.25, "a band beyond the last would have no colour of its own"
    assert len(field["colorscale"]) == len(BANDS)
    assert (layout["xaxis"]["type"], layout["yaxis"]["type"], layout["hovermode"]) == ("log", "log", "closest")
    assert layout["xaxis"]["tickvals"] == [16, 32, 64, 128, 256]
    assert 10 ** layout["xaxis"]["range"][1] > 280


def test_the_speed_has_its_line_and_the_choice() -> None:
    speeds = charts(a_fit())["speeds"]
    best, floor, star = speeds.series
    assert floor.ys[0] == pytest.approx(0.95 * max(best.ys))
    assert star.ys[0] >= floor.ys[0]
    assert "tokens per second" in speeds.title


def test_another_share_of_the_speed_is_the_specs() -> None:
    run = a_run(a_fit(), fit={"throughput": 0.8})
    (_, speeds) = fit.panel(gather(run)).charts
    assert speeds.series[1].name == "80 % of the best"


def test_without_bptt_memory_is_drawn_against_the_batch() -> None:
    found = charts(a_line())
    assert "speeds" not in found
    assert found["sizes"].field is None
    assert [series.name for series in found["sizes"].series] == [
        "solved from the probes", "limit (512.0 MiB)", "run and measured", "run and failed", "chosen: batch 2,400",
    ]  # fmt: skip
    text = words(a_run(a_line()))
    assert "The data decided: with a larger batch an epoch would have fewer than 100 optimizer steps." in text
    assert "bptt" not in text


def test_runs_without_a_search_say_so_in_one_sentence() -> None:
    assert words(fixture.a_run()) == (
        "Largest size The spec gave batch 16 and bptt 64; with batch: auto and bptt: auto, "
        "Highwater looks for the largest size that fits."
    )
    assert "has not been found yet" in words(a_run(None))
    assert "does not say which size" in words(a_run({"stage": "fit", "facts": {"batch": 0}}))
    assert words(fixture.a_run(), memory).startswith("Memory Memory was not measured")


# The panel of memory


def test_a_step_is_stacked_by_cause() -> None:
    step = charts(a_fit())["step-memory"]
    areas = [series for series in step.series if series.style == "area"]
    assert [series.name.split(" ")[0] for series in areas] == [
        "not", "weights", "optimizer", "gradients", "buckets", "data", "activations",
    ]  # fmt: skip
    assert len({tuple(series.xs) for series in areas}) == 1, "what is stacked has the same places"
    tops = [sum(column) for column in zip(*(series.ys for series in areas), strict=True)]
    peak, limit = step.series[-2:]
    assert peak.ys == [pytest.approx(max(tops))]
    assert limit.ys == [512, 512]
    assert "of the memory is activations" in step.title
    assert len({(series.colour, series.pattern) for series in areas}) == len(areas)
    drawn = figure(step)["data"]
    assert all(trace["stackgroup"] == "one" for trace in drawn[: len(areas)])


def test_a_long_timeline_keeps_its_peak() -> None:
    rows = timeline(33, 140, 8_000)
    top = max(sum(v for k, v in row.items() if k != "seconds") for row in rows)
    record = a_fit()
    record["facts"]["probes"] = [probe(33, 140, "soak", timeline=rows, other=0)]
    step = charts(record)["step-memory"]
    assert len(step.series[0].xs) <= memory.MOMENTS + 2
    assert step.series[-2].ys[0] == pytest.approx(top / MIB)


def test_a_limit_far_above_is_said_and_not_drawn() -> None:
    record = a_fit()
    record["facts"]["limit"] = 40 * 2**30
    step = charts(record)["step-memory"]
    assert not any("limit" in series.name for series in step.series)
    assert "40.0 GiB, is far above" in step.sentence


def test_parts_and_phases_beside_the_prediction() -> None:
    for record in (a_fit(), a_line()):
        text = words(a_run(record), memory)
        assert "high-water mark, predicted" in text
        assert "optimizer state 32.0 6.2 %" in text
        assert "evaluation 112.0 22 %" in text
    assert 'class="bar"' in memory.panel(gather(a_run(a_line()))).body
    assert 'class="bar"' not in memory.panel(gather(a_run(a_fit()))).body


def test_each_shrink_is_a_sentence_with_and_without_a_search() -> None:
    row = {"time": 1.0, "step": 340, "from": 32, "to": 16, "facts": {"asked": 2**23, "free": 2**20}}
    first = {"step": 0, "from": 64, "to": 32, "facts": None}
    for record in (a_fit(), None):
        run = a_run(record)
        run.write("stages/shrink.json", {"batch": 16, "accumulation": 4, "shrinks": [first, row, 3]})
        text = words(run, memory)
        assert "ran out of memory at batch 64. It began again with batch 32" in text
        assert "batch 32, when 8.0 MiB more were asked for and 1.0 MiB were free. It went on from step 340" in text
        assert not any("shrink" in what or what == "stage stage" for _, _, what, _ in decisions.happenings(gather(run)))


# What is odd or hostile


ODD: tuple[object, ...] = (None, True, HOSTILE, -1, 0, 1e300, 10**400, math.nan, [[]], {"a": None})


@pytest.mark.parametrize("odd", ODD, ids=lambda value: str(value)[:8])
def test_any_value_of_the_record_may_be_odd(odd: object) -> None:
    whole = a_fit()["facts"]
    soak = probe(largest(140), 140, "soak", timeline=timeline(33, 140, 9))
    whole["probes"] = [probe(24, 70), soak]
    moments = [odd, {"seconds": odd}, {"seconds": 1, "data": odd}, {"seconds": 2, "data": 5}]
    views = [{**whole, key: odd} for key in whole]
    views += [whole | {"surface": SURFACE | {key: odd}} for key in SURFACE]
    views += [whole | {"probes": [soak | {key: odd}]} for key in soak]
    views += [whole | {"probes": [soak | {"timeline": moments}]}]
    views += [whole | {"frontier": [whole["frontier"][0], whole["frontier"][1] | {"rate": odd, "bptt": odd}]}]
    empty = gather(a_run(None))
    for facts in views:
        document = {"stage": "fit", "facts": facts, "message": odd}
        shrinks = [{"from": odd, "step": odd, "facts": {"asked": odd}}]
        seen = replace(empty, fit=document, stages=[document], shrinks=shrinks)
        for module in (fit, memory, decisions):
            html = render(module.panel(seen))  # refuses numbers that are not finite
            assert "<img" not in html
            assert "<script>alert" not in html


def test_hostile_text_adds_no_element_to_the_page() -> None:
    plain = [name for name, _ in Page(build_report(a_run(a_fit()))).elements]
    record = a_fit()
    facts = record["facts"]
    facts |= {"why": HOSTILE, "decided_by": HOSTILE, "limit_source": HOSTILE, "unit": HOSTILE}
    for row in facts["probes"]:
        row |= {
            "failed": HOSTILE if row["failed"] else "",
            "parts": row["parts"] | {HOSTILE: 5},
            "phases": {HOSTILE: 7},
        }
    for row in facts["frontier"]:
        row |= {"known": HOSTILE, "limited_by": HOSTILE}
    page = Page(build_report(a_run(record | {"message": HOSTILE})))
    assert set(plain) == {name for name, _ in page.elements}
    assert sum(name == "script" for name, _ in page.elements) == plain.count("script")
    notes = [text for drawn in page.figures() for trace in drawn["data"] for text in trace.get("hovertext", [])]
    assert any("&lt;" in text for text in notes)
    assert not any("<" in text for text in notes)


def test_the_course_of_the_search_stays_out_of_the_details() -> None:
    view = gather(a_run(a_fit()))
    assert view.facts["decided_by"] == "memory"
    assert not {"probes", "frontier", "surface"} & set(view.facts)


def test_decisions_tell_the_choice_once_and_no_probes() -> None:
    run = a_run(a_fit())
    message = a_fit()["message"]
    rows = [fixture.event("probe", fixture.START + 1 + i, f"trying batch {i}") for i in range(4)]
    fixture.put_rows(run, "events/fit", 1, [*rows, fixture.event("fit", fixture.START + 9, message)])
    told = [why for _, _, _, why in decisions.happenings(gather(run))]
    assert sum(message in why for why in told) == 1
    assert not any("trying" in why for why in told)
    run.store.delete([run.key("stages/fit.json")])
    assert sum("trying" in why for _, _, _, why in decisions.happenings(gather(run))) == 4


# The terminal


def tell(fake: FakeRun, number: int, time: float) -> None:
    message = f"trying batch {number} x bptt 70: {number * 8} MiB of 512 MiB, 3,410 tokens/s"
    fake.append("events/fit", {"kind": "probe", "time": time, "message": message, "batch": number, "bptt": 70})


def test_probes_are_told_once_in_order_before_the_choice(tmp_path: Path) -> None:
    fake, lines = FakeRun(tmp_path), list[str]()
    follower, plain = Follower(fake.dir), Plain(lines.append)
    for number in (1, 2, 3):
        tell(fake, number, 10.0 + number)
        plain.show(follower.view, follower.poll())
        assert follower.view.searching == "fitting"
    tell(fake, 4, 14.0)
    fake.dir.write("stages/fit.json", a_fit() | {"time": 15.0})
    fake.append("events", {"kind": "fit", "time": 15.1, "message": a_fit()["message"]})
    plain.show(follower.view, follower.poll())
    plain.show(follower.view, follower.poll())
    assert [text[9:].split(" x ")[0].strip() for text in lines[:4]] == [f"fit: trying batch {i}" for i in (1, 2, 3, 4)]
    assert a_fit()["message"] in lines[4]
    assert len(lines) == 5
    assert not follower.view.searching
    assert follower.view.probes == 4


def test_status_says_what_is_tried_before_the_first_step(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path)
    fake.lease()
    tell(fake, 8, 60.0)
    status = status_of(fake.dir, now=61.0)
    assert status.message == "fit: trying batch 8 x bptt 70: 64 MiB of 512 MiB, 3,410 tokens/s"
    assert status.batch is None


def test_the_picture_says_fitting(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path)
    follower = Follower(fake.dir)
    tell(fake, 8, 60.0)
    events = [line(follower.view, update) for update in follower.poll()]

    def drawn() -> str:
        console = Console(file=io.StringIO(), width=100, height=24)
        console.print(picture(follower.view, events, console, 0.0))
        return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]

    assert "demo  fitting" in drawn()
    assert "looking for the largest size that fits: 1 size run" in drawn()
    assert drawn().count("trying batch 8") == 1
    fake.plan()
    fake.attempt()
    follower.poll()
    assert "demo  running" in drawn()


def test_probes_of_a_finished_search_make_room_in_the_history() -> None:
    probes = [Update("probe", f"fit: {i}", 1.0) for i in range(HISTORY + 3)]
    others = [Update("event", f"event {i}", 2.0) for i in range(4)]
    assert shorten([others[0], *probes, *others[1:]]) == others
    assert shorten([*others, *probes]) == probes[-HISTORY:]
    assert shorten([*probes[:3], *others]) == [*probes[:3], *others]
    lines: list[str] = []
    Plain(lines.append).show(Follower(RunDir(fixture.MemoryStore(), "demo")).view, [*probes, *others])
    assert lines[0] == f"... {len(probes)} earlier lines left out\n"
    assert len(lines) == 5
