"""What a spec may say and this version cannot do yet; refused before anything starts."""

from __future__ import annotations

from jobs.errors import SpecError
from jobs.spec import JobSpec


def check_built(spec: JobSpec) -> None:
    """SpecError, in one sentence, for what this version cannot do. Pure."""
    if spec.search is not None:
        raise SpecError("search: searching is not built yet; remove that section")
