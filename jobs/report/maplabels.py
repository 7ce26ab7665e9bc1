"""Which places of a map get their name beside them, so that no name covers another. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jobs.report.panel import Plane

NARROW, WIDE = 270.0, 440.0
"""Pixels along the plane's side on a phone, and on anything wider."""
LETTER, HEIGHT, GAP = 7.0, 15.0, 9.0
"""Pixels of a letter and of a line at most, and from the middle of a dot up to its name."""
CONSIDERED = 150
"""Largest places that may get a name."""
LONGEST = 20
"""Letters of a name beside a dot; longer ones are told when one points at the dot."""


@dataclass(frozen=True)
class Place:
    """A value on a map, and how many rows have it."""

    name: str
    x: float
    y: float
    rows: int

    @property
    def xy(self) -> tuple[float, float]:
        """Where it is."""
        return self.x, self.y


Box = tuple[float, float, float, float]


def with_names(places: list[Place], plane: Plane) -> tuple[list[Place], list[Place]]:
    """Places with a name on every screen, and those with one only where there is room; the first ones come first."""
    always = _free(places[:CONSIDERED], plane, NARROW, [])
    taken = [_box(place, plane, WIDE) for place in always]
    others = [place for place in places[:CONSIDERED] if place not in set(always)]
    return always, _free(others, plane, WIDE, taken)


def _free(places: Iterable[Place], plane: Plane, side: float, taken: list[Box]) -> list[Place]:
    """Those whose names fit into the drawing and beside those before them."""
    found: list[Place] = []
    boxes = list(taken)
    for place in places:
        box = _box(place, plane, side)
        inside = box[0] >= 0 and box[1] <= side and box[3] <= side
        if inside and len(place.name) <= LONGEST and not any(_overlap(box, other) for other in boxes):
            found.append(place)
            boxes.append(box)
    return found


def _box(place: Place, plane: Plane, side: float) -> Box:
    """Left, right, bottom and top of the name in pixels, y upwards."""
    x = (place.x - plane.x[0]) / (plane.x[1] - plane.x[0]) * side
    y = (place.y - plane.y[0]) / (plane.y[1] - plane.y[0]) * side
    half = len(place.name) * LETTER / 2
    return x - half, x + half, y + GAP, y + GAP + HEIGHT


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]
