"""Plausible runs of image and tabular models, and pictures, for tests of the report."""

from __future__ import annotations

import base64
import math
import random
import struct
import zlib

from jobs.rundir import Row, RunDir
from tests.unit import report_fixture as fixture
from tests.unit.stores import MemoryStore

GLYPHS = {
    "1": ("..##....", ".###....", "..##....", "..##....", "..##....", "..##....", ".####...", "........"),
    "7": (".######.", ".....##.", "....##..", "...##...", "..##....", "..##....", "..##....", "........"),
    "8": ("..####..", ".##..##.", ".##..##.", "..####..", ".##..##.", ".##..##.", "..####..", "........"),
    "9": ("..####..", ".##..##.", ".##..##.", "..#####.", ".....##.", ".##..##.", "..####..", "........"),
}
CARRIERS = {"9E": 1890, "AA": 3310, "B6": 5520, "DL": 4890, "EV": 5210, "F9": 70, "FL": 320, "HA": 12, "MQ": 2480,
            "OO": 4, "UA": 5950, "US": 2010, "VX": 530, "WN": 1250, "YV": 61}  # fmt: skip
PLACES = {"ATL": (1710, -2.1, 0.3), "ORD": (1640, -2.3, 0.6), "LAX": (1620, 4.2, -0.2), "BOS": (1530, -3.9, 0.4),
          "MCO": (1400, -0.9, -0.9), "CLT": (1380, -2.6, -0.1), "SFO": (1300, 4.5, -0.1), "FLL": (1190, -0.4, -1.1),
          "MIA": (1160, -0.3, -1.2), "DCA": (960, -3.5, 0.1), "DTW": (930, -2.8, 0.9), "DFW": (860, 0.9, 0.2),
          "RDU": (800, -3.0, 0.0), "TPA": (740, -0.8, -1.0), "SEA": (390, 4.1, 1.1), "PWM": (230, -3.7, 0.7),
          "SJU": (580, 0.4, -2.2), "HNL": (70, 8.9, -1.4), "ANC": (1, 5.1, 2.8), "BQN": (90, 0.6, -2.1)}  # fmt: skip


def png(width: int = 8, height: int = 8, glyph: str = "8") -> bytes:
    """A grey picture, with a digit in its upper left corner."""
    rows = b"".join(
        b"\0" + bytes(230 if x < 8 and y < 8 and GLYPHS[glyph][y][x] == "#" else 20 for x in range(width))
        for y in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, parts))


def _chunk(part: tuple[bytes, bytes]) -> bytes:
    kind, data = part
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def base64_png(**size: int) -> str:
    """The picture as examples have it."""
    return base64.b64encode(png(**size)).decode()


def confusion(classes: int = 10) -> Row:
    """Two hundred pictures of each class; 8 is taken for 1, 9 for 7, and a few others."""
    counts = [[0] * classes for _ in range(classes)]
    for true in range(classes):
        counts[true][true] = 196
        counts[true][(true + 3) % classes] += 4
    counts[8][1], counts[8][8] = 23, 173
    counts[9][7], counts[9][9] = 11, 185
    return {"classes": [str(i) for i in range(classes)], "counts": counts}


def mistakes() -> list[Row]:
    """Four wrong answers."""
    pairs = [("8", "1", 0.996), ("9", "7", 0.91), ("1", "7", 0.83), ("7", "9", 0.55)]
    return [
        {"image": base64.b64encode(png(glyph=true)).decode(), "true": true, "predicted": said, "confidence": sure}
        for true, said, sure in pairs
    ]


LABELS: list[Row] = [
    {"label": "circle", "threshold": 0.41, "precision": 0.961, "recall": 0.972, "f1": 0.966, "rows": 310},
    {"label": "square", "threshold": 0.5, "precision": 0.98, "recall": 1.0, "f1": 0.99, "rows": 295},
    {"label": "star", "threshold": 0.22, "precision": 0.71, "recall": 0.83, "f1": 0.765, "rows": 41},
]
IMAGE_BASELINE = {"accuracy": 0.1014, "f1": 0.0184, "loss": math.log(10)}
IMAGE_SPEC: Row = fixture.SPEC | {
    "task": "image", "batch": 64, "data": {"source": "bundled:digits", "validation_share": 0.2},
    "model": {"kind": "convnet", "widths": [32, 64]},
}  # fmt: skip
TABULAR_BASELINE = {"mape": 0.714, "mae": 71.3, "rmse": 94.0, "r2": 0.0}
TABULAR_SPEC: Row = IMAGE_SPEC | {
    "task": "tabular", "data": {"source": "bundled:flights", "target": "air_time"}, "model": {"kind": "mlp"},
}  # fmt: skip
for _spec in (IMAGE_SPEC, TABULAR_SPEC):
    for _key in ("bptt", "bptt_jitter"):
        _spec.pop(_key, None)


def segments() -> Row:
    """Errors by carrier and destination; the worst have hardly a row."""
    draw = random.Random(3)
    rows = [_segment("carrier", name, count, draw) for name, count in CARRIERS.items()]
    rows += [_segment("dest", name, count, draw) for name, (count, _, _) in PLACES.items()]
    return {"error": "MAPE", "rows": rows}


def _segment(column: str, value: str, rows: int, draw: random.Random) -> Row:
    return {"column": column, "value": value, "rows": rows, "error": 0.06 + draw.expovariate(1) / math.sqrt(4 * rows)}


def predicted(rows: int = 1200) -> Row:
    """Minutes in the air, and predictions that are off by a tenth or so."""
    draw = random.Random(5)
    true = [round(draw.choice([40, 75, 110, 140, 190, 330, 345]) * draw.uniform(0.85, 1.2)) for _ in range(rows)]
    return {"target": "air_time", "true": true, "predicted": [t * draw.gauss(1.0, 0.08) + 3 for t in true]}


def embeddings() -> list[Row]:
    """Two columns: destinations, and carriers without any order."""
    draw = random.Random(7)
    xy = [[draw.gauss(0, 1), draw.gauss(0, 1)] for _ in CARRIERS]
    places = {"column": "dest", "names": list(PLACES), "xy": [[x, y] for _, x, y in PLACES.values()]}
    carriers = {"column": "carrier", "names": list(CARRIERS), "xy": xy, "counts": list(CARRIERS.values())}
    counts = [rows for rows, _, _ in PLACES.values()]
    return [places | {"counts": counts, "explained": [0.52, 0.21]}, carriers | {"explained": [0.2, 0.15]}]


def an_image_run(name: str = "digits", examples: Row | None = None) -> RunDir:
    """A finished run whose accuracy should be as high as possible."""
    scores = [0.71, 0.86, 0.921, 0.948, 0.967, 0.9731]
    metrics = [{"accuracy": s, "f1": s - 0.004, "loss": 2.3 * (1 - s)} for s in scores]
    shown = {"confusion": confusion(), "mistakes": mistakes()} if examples is None else examples
    facts = {
        "baseline": IMAGE_BASELINE,
        "baseline_name": "a model that always says the most frequent class",
        "classes": [str(i) for i in range(10)],
        "message": "bundled:digits: 1,437 images of 10 classes to train on, 360 held out.",
    }
    return _run(name, IMAGE_SPEC, facts, metrics, shown, {"metric": "accuracy", "goal": "max", "unit": "images"})


def a_tabular_run(name: str = "flights", examples: Row | None = None) -> RunDir:
    """A finished run whose error should be as low as possible."""
    scores = [0.31, 0.142, 0.11, 0.094, 0.088, 0.0862]
    metrics = [{"mape": s, "mae": 100 * s, "rmse": 130 * s, "r2": 1 - s * s} for s in scores]
    shown: Row = {"predicted": predicted(), "segments": segments(), "embeddings": embeddings()}
    facts = {
        "baseline": TABULAR_BASELINE,
        "baseline_name": "a model that always says the median of air_time",
        "message": "bundled:flights: 26,400 rows to train on, 6,600 later ones held out.",
    }
    return _run(
        name,
        TABULAR_SPEC,
        facts,
        metrics,
        shown if examples is None else examples,
        {"metric": "mape", "goal": "min", "unit": "rows"},
    )


def _run(name: str, spec: Row, facts: Row, metrics: list[Row], examples: Row, plan: Row) -> RunDir:
    run = RunDir(MemoryStore(), name)
    run.write("spec.json", spec)
    run.write("attempts/0001.json", fixture.attempt(1, fixture.START, 0) | {"spec": spec})
    record = {"stage": "data", "seconds": 1.2, "facts": facts, "message": facts["message"], "time": fixture.START + 1}
    run.write("stages/data.json", record)
    rows: list[Row] = []
    left = list(metrics)
    for row in fixture.step_rows(1, fixture.STEPS, fixture.START + 2, pace=0.05):
        rows.append(row | {"loss": max(0.02, row["loss"] - 4.4)})
        if row["step"] % fixture.EPOCH == 0:
            step = row["step"]
            rows.append(fixture.eval_row(step, 2.0, row["time"]) | {"metrics": left.pop(0)})
    fixture.put_rows(run, "metrics", 1, rows)
    message = "600 steps in 6 epochs of a model with 21,000 parameters, in fp32"
    fixture.put_rows(run, "events", 1, [fixture.event("plan", fixture.START + 1.5, message) | plan])
    run.write("examples.json", examples)
    run.write("result.json", fixture.result(name) | {
        "task": spec["task"], "metric": plan["metric"], "metric_goal": plan["goal"], "metrics": metrics[-1],
        "best_metrics": metrics[-1], "baseline": facts["baseline"], "attempts": 1,
    })  # fmt: skip
    return run
