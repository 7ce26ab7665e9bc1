"""The spec class of each task; the value of `task` picks the one that a document is read as."""

from __future__ import annotations

from jobs.spec import JobSpec
from jobs.spec_language import LanguageSpec

SPECS: dict[str, type[JobSpec]] = {"language": LanguageSpec}
