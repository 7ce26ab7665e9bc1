"""The GPUs that `highwater plan` answers for, as data: those that ship, a person's own, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from jobs import yaml12
from jobs.errors import SpecError
from jobs.spec_errors import nearest, shown

FIELDS = {"name": "a name", "memory_gib": "a number above 0", "bf16": "true or false", "usd_per_hour": "a number"}


@dataclass(frozen=True)
class Card:
    """One kind of GPU."""

    name: str
    memory_gib: float
    """GiB that one process can use of one device."""
    bf16: bool = True
    """Whether it computes in bf16."""
    usd_per_hour: float | None = None
    """What an hour of one costs, in whatever currency the person counts; None if nobody said."""


def cards(extra: Path | None = None, prices: Sequence[str] = ()) -> list[Card]:
    """The cards that ship, then those of the file `extra`, which replace cards of the same name; by memory.

    `prices` are NAME=NUMBER per hour. Raises SpecError with one sentence for a file or a price that cannot be used.
    """
    text = resources.files(__package__).joinpath("cards.yaml").read_text(encoding="utf-8")
    found = {card.name.lower(): card for card in read(text, "cards.yaml")}
    if extra is not None:
        found |= {card.name.lower(): card for card in read(_text(extra), str(extra))}
    for price in prices:
        name, cost = _price(price, [card.name for card in found.values()])
        found[name.lower()] = replace(found[name.lower()], usd_per_hour=cost)
    return sorted(found.values(), key=lambda card: (card.memory_gib, card.name))


def read(text: str, where: str) -> list[Card]:
    """The cards of a YAML text; `where` names it in errors. Pure."""
    document = yaml12.loads(text, where)
    listed = document.get("cards") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not listed or len(document) > 1:
        raise SpecError(f"{where} must hold one list `cards`, such as: cards: [{{name: X1, memory_gib: 24}}]")
    return [_card(one, f"{where}: card {number}") for number, one in enumerate(listed, 1)]


def _card(given: Any, where: str) -> Card:  # noqa: ANN401 - decoded YAML
    if not isinstance(given, dict):
        raise SpecError(f"{where} is {shown(given)}, but must be fields, such as {{name: X1, memory_gib: 24}}")
    for field, value in given.items():
        if field not in FIELDS:
            near = nearest(str(field), list(FIELDS))
            hint = f"; did you mean {near}?" if near else f"; the fields are {', '.join(FIELDS)}"
            raise SpecError(f"{where} has an unknown field {shown(field)}{hint}")
        if not _fits(field, value):
            raise SpecError(f"{where}: {field} is {shown(value)}, but must be {FIELDS[field]}")
    for field in ("name", "memory_gib"):
        if field not in given:
            raise SpecError(f"{where} lacks {field}; give {FIELDS[field]}")
    return Card(**given)


def _fits(field: str, value: Any) -> bool:  # noqa: ANN401 - decoded YAML
    if field == "name":
        return isinstance(value, str) and bool(value.strip()) and "=" not in value
    if field == "bf16":
        return isinstance(value, bool)
    if field == "usd_per_hour" and value is None:
        return True
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return number and (value > 0 if field == "memory_gib" else value >= 0)


def _price(text: str, names: list[str]) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    try:
        cost = float(number)
    except ValueError:
        cost = math.nan
    if not name or not math.isfinite(cost) or cost < 0:
        raise SpecError(f"--price {text} must be a card and its price per hour, such as --price H100=2.5")
    if name.lower() not in {known.lower() for known in names}:
        near = nearest(name, names)
        hint = f"did you mean {near}?" if near else "add it to a file and give that with --cards"
        raise SpecError(f"--price {text}: there is no card {name!r}; {hint}")
    return name, cost


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SpecError(f"--cards: there is no file {path}; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SpecError(f"--cards: {path} cannot be read ({cause}); check it") from error
