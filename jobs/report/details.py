"""What it ran on and what was asked for, folded away: attempts, what the stages found, environment, spec."""

from __future__ import annotations

import json
import re

from jobs.report.panel import Panel, missing
from jobs.report.text import Html, fold, join, moment, number, scroll, table, tag
from jobs.report.view import RunView
from jobs.rundir import Attempt, Row
from jobs.spec import flatten

TITLE = "Details"
LISTED = 40
"""Items of a list that are told; a model may know thousands of classes."""
PLAIN = re.compile(r"[A-Za-z_./][\w ./:+@-]*(?<! )(?<!:)")
WORDS = {"null", "true", "false", "yes", "no", "on", "off", "~"}


def panel(view: RunView) -> Panel:
    """One fold each; those without data are left out."""
    folds = [
        fold("Attempts", _attempts(view), opened=len(view.attempts) > 1),
        fold("What the stages found", _pairs(view.facts, "What the stages found")),
        fold("Environment of the last attempt", _pairs(_environment(view), "Environment")),
        fold("Full spec", tag("pre", "\n".join(yaml_like(view.spec)), tabindex="0") if view.spec else Html("")),
    ]
    if not any(folds):
        return missing("details", TITLE, "There are no details: neither a spec nor an attempt has been recorded.")
    return Panel("details", TITLE, join(folds))


def _attempts(view: RunView) -> Html:
    if not view.attempts:
        return Html("")
    rows = [
        (
            number(attempt.number),
            moment(attempt.started_at),
            attempt.host,
            f"step {attempt.resumed_step:,}" + (f" ({attempt.checkpoint})" if attempt.checkpoint else ""),
            f"{attempt.workers} x {attempt.batch} x {attempt.accumulation}",
            changed(view.spec, attempt),
        )
        for attempt in view.attempts
    ]
    head = ("Attempt", "Started", "Host", "Went on from", "Workers x batch x accumulation", "Changed in the spec")
    return scroll(table(head, rows, "Attempts"), "Attempts")


def changed(spec: Row, attempt: Attempt) -> str:
    """Fields that this attempt asked for otherwise than the run's spec, as `key=value`."""
    first, now = flatten(spec), flatten(attempt.spec)
    differing = [key for key in now if now[key] != first.get(key)] if spec and attempt.spec else []
    return ", ".join(f"{key}={now[key]}" for key in differing) or "nothing"


def _environment(view: RunView) -> Row:
    return view.attempts[-1].environment if view.attempts else {}


def _pairs(document: Row, caption: str) -> Html:
    if not document:
        return Html("")
    rows = [
        (key, _listed(value) if isinstance(value, list) else _value(value))
        for key, value in flatten(document).items()
        if value is not None
    ]
    return scroll(table(("Name", "Value"), rows, caption), caption)


def _listed(values: list[object]) -> str:
    more = f", and {len(values) - LISTED:,} more" if len(values) > LISTED else ""
    return ", ".join(map(_value, values[:LISTED])) + more if values else "none"


def _value(value: object) -> str:
    if isinstance(value, bool | dict):
        return json.dumps(value, ensure_ascii=False)
    return number(value)


def yaml_like(value: Row, indent: int = 0) -> list[str]:
    """A document as lines of YAML: nested keys indented, lists and odd strings as JSON, which YAML includes."""
    lines: list[str] = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            lines += [f"{'  ' * indent}{_scalar(key)}:", *yaml_like(item, indent + 1)]
        else:
            lines.append(f"{'  ' * indent}{_scalar(key)}: {_scalar(item)}")
    return lines


def _scalar(value: object) -> str:
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
