"""What a spec may say and this version cannot do yet; refused before anything starts."""

from __future__ import annotations

from jobs.errors import SpecError
from jobs.spec import AUTO, JobSpec


def check_built(spec: JobSpec) -> None:
    """SpecError, in one sentence, for what this version cannot find by itself. Pure."""
    if spec.learning_rate == AUTO:
        raise SpecError("learning_rate: auto is not built yet; give a number, such as the one in a recipe")
    if spec.search is not None:
        raise SpecError("search: searching is not built yet; remove that section")
