"""What a run does when its loss is not finite: go on from the last save, more calmly, and say so.

The seed's rule is to lower bptt when training goes NaN. Gradients then flow back through fewer time steps, while
an optimizer step keeps its tokens, so that the plan, the place in the data and the schedule stay what they are. The
rate is next. A smaller batch is not tried: where a ninth of the rate does not help, fewer rows do not either, and they
would be another plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from jobs.errors import HighwaterError, LossNanError
from jobs.rundir import Record, Row, RunDir
from jobs.spec import JobSpec

RECORD = "stages/calm.json"
#: Times that the truncation is halved before the rate is lowered, and the least that it becomes.
HALVINGS = 2
SHORTEST = 4
RATE_DIVISOR = 3.0


class Calms(Record):
    """What a run goes on with after its loss was not finite, and how it came to that."""

    truncation: int | None
    """Time steps that gradients flow back through; None if that was not lowered."""
    learning_rate: float | None
    """Peak of the schedule; None if that was not lowered."""
    changes: tuple[Row, ...] = ()
    """Oldest first: `time`, the `step` that went wrong, `what` was lowered, `from` and `to`, and `resumed_step`."""


def next_change(spec: JobSpec, past: Sequence[str]) -> tuple[str, float, float] | None:
    """What to lower after these (oldest first), its value now and then; None once that was often enough. Pure."""
    if len(past) >= spec.nan_changes or not isinstance(spec.learning_rate, float | int):
        return None
    bptt = getattr(spec, "bptt", None)
    if isinstance(bptt, int) and past.count("truncation") < HALVINGS:
        now = min(bptt, getattr(spec, "truncation", None) or bptt)
        if now // 2 >= SHORTEST:
            return "truncation", now, now // 2
    return "learning_rate", spec.learning_rate, spec.learning_rate / RATE_DIVISOR


def calm(run: RunDir, spec: JobSpec, error: HighwaterError, resumed_step: int, event: Callable[..., None]) -> JobSpec:
    """The spec with the next thing lowered, recorded so that every later driver goes on with it.

    `error` is what ended the attempt that began after `resumed_step`. Raises LossNanError with the run's last words
    if nothing can help: the very first loss was not finite, or enough was lowered already.
    """
    step = error.step if isinstance(error, LossNanError) else None
    hopeless = step == resumed_step + 1 and not (isinstance(error, LossNanError) and error.of_gradient)
    past = run.read_as(RECORD, Calms)
    changes = past.changes if past else ()
    change = None if hopeless else next_change(spec, [str(row["what"]) for row in changes])
    if change is None:
        tried = ", ".join(f"{row['what']} {row['from']:g} -> {row['to']:g}" for row in changes)
        why = f" (lowered before that: {tried})" if tried else ""
        raise LossNanError(f"{error.message}{why}", step=step) from error
    what, before, after = change
    truncation = int(after) if what == "truncation" else past.truncation if past else None
    rate = after if what == "learning_rate" else past.learning_rate if past else None
    row = {"time": time.time(), "step": step, "what": what, "from": before, "to": after, "resumed_step": resumed_step}
    run.write(RECORD, Calms(truncation=truncation, learning_rate=rate, changes=(*changes, row)))
    event("calm", sentence(error.message, what, before, after))
    return calmed(run, spec)


def calmed(run: RunDir, spec: JobSpec) -> JobSpec:
    """The spec with what was lowered before; as it is where nothing was, or where it asks for even less."""
    record = run.read_as(RECORD, Calms)
    if record is None:
        return spec
    update: dict[str, object] = {}
    if record.truncation is not None and hasattr(spec, "truncation"):
        update["truncation"] = min(record.truncation, spec.truncation or record.truncation)
    if record.learning_rate is not None and isinstance(spec.learning_rate, float | int):
        update["learning_rate"] = min(record.learning_rate, float(spec.learning_rate))
    return spec.model_copy(update=update)


def sentence(said: str, what: str, before: float, after: float) -> str:
    """What a person reads when something was lowered. Pure."""
    lowered = {"truncation": "gradients now flow back through fewer time steps", "learning_rate": "the rate is lower"}
    return f"{said.partition('; ')[0]}; {lowered[what]}: {before:g} -> {after:g}, from the last checkpoint on"
