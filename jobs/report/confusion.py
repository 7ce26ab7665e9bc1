"""Which classes are taken for which: a heat map of counts, or for many classes the pairs most often confused."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from jobs.metric import percent
from jobs.report.panel import Panel
from jobs.report.reading import count, items, named, words
from jobs.report.text import EMPTY, Html, fold, join, number, scroll, share, table, tag
from jobs.report.view import RunView, section
from jobs.rundir import Row

TITLE = "Which classes are confused"
DRAWN = 20
"""Classes whose matrix is still read at a glance."""
BRIEF = 20
"""Letters of a name at the matrix."""
PAIRS, CLASSES = 15, 100
"""Rows of the tables at most."""
LEVELS = (0.02, 0.05, 0.15)
"""Shares of a true class at which the next, stronger shade of a mistake begins."""


@dataclass(frozen=True)
class Matrix:
    """How often each true class (row) was called each class (column)."""

    classes: list[str]
    counts: list[list[int]]

    @property
    def total(self) -> int:
        """All rows that were judged."""
        return sum(map(sum, self.counts))

    @property
    def right(self) -> int:
        """Those that were called what they are."""
        return sum(row[i] for i, row in enumerate(self.counts))

    def pairs(self) -> list[tuple[int, int]]:
        """Every (true, called) that is a mistake and happened, most often first."""
        found = [(i, j) for i, row in enumerate(self.counts) for j, n in enumerate(row) if n and i != j]
        return sorted(found, key=lambda pair: (-self.counts[pair[0]][pair[1]], sum(self.counts[pair[0]]), pair))


def panel(view: RunView) -> Panel | None:
    """The matrix and the pair most often confused; nothing for runs whose model does not choose among classes."""
    matrix = parse(section(view.examples, "confusion"))
    if matrix is None:
        return None
    pairs = matrix.pairs()
    shown = _drawing(matrix) if len(matrix.classes) <= DRAWN else _pairs(matrix, pairs)
    folded = fold("The pairs most often confused", _pairs(matrix, pairs)) if len(matrix.classes) <= DRAWN else EMPTY
    body = (_lead(matrix, pairs, view.unit), shown, folded, fold("Each class in numbers", _classes(matrix, pairs)))
    return Panel("confusion", TITLE, join(body))


def parse(document: Row) -> Matrix | None:
    """The matrix if names and counts fit together and something was counted."""
    raw = document.get("counts")
    if not isinstance(raw, list) or not isinstance(document.get("classes"), list):
        return None
    counts = [[count(cell) for cell in items(row, len(raw))] for row in raw]
    known = [[cell for cell in row if cell is not None] for row in counts]
    classes = [named(name) for name in document["classes"]]
    if len(classes) != len(raw) or any(len(row) != len(raw) for row in known):
        return None
    matrix = Matrix(classes, known)
    return matrix if matrix.total else None


def _lead(matrix: Matrix, pairs: list[tuple[int, int]], unit: str) -> Html:
    """What share was right, and the pair most often confused."""
    total = f"{number(matrix.total)} held-out {unit}"
    if not pairs:
        return tag("p", f"At the end of training, all {total} were put into the right class.", class_="lead")
    text = f"At the end of training, {percent(matrix.right / matrix.total)} of {total} were put into the right class. "
    true, called = pairs[0]
    times, of = matrix.counts[true][called], sum(matrix.counts[true])
    text += (
        f"Most often confused: \u201c{matrix.classes[true]}\u201d was taken for \u201c{matrix.classes[called]}\u201d "
    )
    text += f"{'once' if times == 1 else f'{number(times)} times'} in {number(of)} ({share(times / of)})."
    return tag("p", text, class_="lead")


# The heat map, which is a table: it prints, and is read aloud, as it stands


def _drawing(matrix: Matrix) -> Html:
    names = (tag("th", tag("span", words(name, BRIEF)), scope="col", title=name) for name in matrix.classes)
    head = tag("tr", tag("td"), *names, tag("th", tag("span", "found"), scope="col", class_="found"))
    rows = [_row(matrix, true) for true in range(len(matrix.classes))]
    caption = tag("caption", "True class by row, what the model said by column", class_="unseen")
    grid = tag("table", caption, tag("thead", head), tag("tbody", *rows), class_="matrix")
    meaning = (
        "Each row is a true class, each column what the model said. On the outlined diagonal it was right; the "
        "stronger the orange of another cell, the larger the share of its row that went wrong there."
    )
    return join((scroll(grid, TITLE), _legend(), tag("p", meaning)))


def _row(matrix: Matrix, true: int) -> Html:
    counts, total = matrix.counts[true], sum(matrix.counts[true])
    cells = [_cell(matrix, true, called) for called in range(len(counts))]
    found = tag("td", percent(counts[true] / total) if total else "-", class_="found")
    name = matrix.classes[true]
    return tag("tr", tag("th", words(name, BRIEF), scope="row", title=name), *cells, found)


def _cell(matrix: Matrix, true: int, called: int) -> Html:
    times, total = matrix.counts[true][called], sum(matrix.counts[true])
    part = times / total if total else 0.0
    look = "right" if true == called else f"s{1 + sum(part >= level for level in LEVELS)}" if times else None
    note = f"true {matrix.classes[true]}, called {matrix.classes[called]}: {number(times)} of {number(total)}"
    return tag("td", number(times) if times else "", class_=look, title=f"{note} ({share(part)})")


def _legend() -> Html:
    bounds = [share(level) for level in LEVELS]
    steps = [f"below {bounds[0]}", *(f"{low} to {high}" for low, high in pairwise(bounds)), f"{bounds[-1]} or more"]
    marks = [tag("li", tag("mark", step, class_=f"s{i}")) for i, step in enumerate(steps, 1)]
    return tag("ul", tag("li", "wrong, of the true class:"), *marks, class_="legend")


# In numbers


def _pairs(matrix: Matrix, pairs: list[tuple[int, int]]) -> Html:
    if not pairs:
        return EMPTY
    rows = []
    for true, called in pairs[:PAIRS]:
        times, of = matrix.counts[true][called], sum(matrix.counts[true])
        rows.append((matrix.classes[true], matrix.classes[called], number(times), number(of), share(times / of)))
    title = "The pairs most often confused"
    return scroll(table(("True class", "Taken for", "Times", "Of", "Share"), rows, title, "figures"), title)


def _classes(matrix: Matrix, pairs: list[tuple[int, int]]) -> Html:
    """Each class, the one with the smallest share found first."""
    mistaken = dict(reversed(pairs))
    said = [sum(column) for column in zip(*matrix.counts, strict=True)]
    of = [sum(row) for row in matrix.counts]
    right = [row[i] for i, row in enumerate(matrix.counts)]
    order = sorted(range(len(of)), key=lambda i: (right[i] / of[i] if of[i] else 2.0, -of[i]))
    rows = [
        (
            matrix.classes[i],
            number(of[i]),
            percent(right[i] / of[i]) if of[i] else "-",
            percent(right[i] / said[i]) if said[i] else "-",
            matrix.classes[mistaken[i]] if i in mistaken else "-",
        )
        for i in order[:CLASSES]
    ]
    head = ("True class", "Held out", "Found (recall)", "Right when said (precision)", "Most often taken for")
    return scroll(table(head, rows, "Each class in numbers", "figures"), "Each class in numbers")
