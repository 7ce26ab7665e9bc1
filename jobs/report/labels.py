"""Many labels at once: the threshold of each, and how well it is met."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.metric import percent
from jobs.report.panel import Panel
from jobs.report.reading import count, named, records, share_of
from jobs.report.text import Html, join, number, plural, scroll, table, tag
from jobs.report.view import RunView
from jobs.rundir import Row

TITLE = "Each label"
MOST = 1000
SHOWN = 100
HEAD = ("Label", "Has it", "Threshold", "Right when said (precision)", "Found (recall)", "F1")


@dataclass(frozen=True)
class Label:
    """One label on the held-out data; None for what is not known, or not defined."""

    name: str
    rows: int | None
    threshold: float | None
    precision: float | None
    recall: float | None
    f1: float | None


def panel(view: RunView) -> Panel | None:
    """A table, the label that is met worst first; nothing for runs that choose one class."""
    labels = [_label(row) for row in records(view.examples.get("labels"), MOST)]
    if not labels:
        return None
    labels.sort(key=lambda label: 2.0 if label.f1 is None else label.f1)
    grid = scroll(table(HEAD, map(_row, labels[:SHOWN]), TITLE, "figures"), TITLE)
    more = tag("p", f"{plural(len(labels) - SHOWN, 'label')} that are met better left out.")
    return Panel("labels", TITLE, join((_lead(labels), _meaning(), grid, more if len(labels) > SHOWN else "")))


def _label(row: Row) -> Label:
    figures = {key: share_of(row.get(key)) for key in ("threshold", "precision", "recall", "f1")}
    return Label(named(row.get("label")), count(row.get("rows")), **figures)


def _lead(labels: list[Label]) -> Html:
    known = [label for label in labels if label.f1 is not None]
    if not known:
        return tag("p", f"The model may give each of {plural(len(labels), 'label')} or not.", class_="lead")
    worst, best = known[0], known[-1]
    words = f"The label met worst is \u201c{worst.name}\u201d (F1 {percent(worst.f1 or 0.0)})"
    words += f", the one met best \u201c{best.name}\u201d ({percent(best.f1 or 0.0)})" if len(known) > 1 else ""
    return tag("p", f"{words}.", class_="lead")


def _meaning() -> Html:
    return tag(
        "p",
        "A label is said where the model holds it at least as likely as its threshold, which was chosen on the "
        "held-out data. F1 lies between the two shares before it and is 100 % only if both are.",
    )


def _row(label: Label) -> tuple[str, ...]:
    shares = (label.precision, label.recall, label.f1)
    return (
        label.name,
        "-" if label.rows is None else number(label.rows),
        "-" if label.threshold is None else number(label.threshold),
        *("-" if value is None else percent(value) for value in shares),
    )
