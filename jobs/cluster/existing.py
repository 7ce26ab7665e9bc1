"""What a RayJob that is there says of its run: the spec that it carries, and how far it was to go. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from jobs.cluster.kube import Object
from jobs.cluster.manifest import RUN_LABEL
from jobs.cluster.standing import Standing, standing, submission
from jobs.errors import NameInUseError, SpecError
from jobs.spec import JobSpec
from jobs.specfile import spec_from_text


@dataclass(frozen=True)
class Existing:
    """A run's RayJob at one look."""

    name: str
    uid: str
    spec: JobSpec
    until: str | None
    submission: str
    standing: Standing
    created: float
    """Seconds since 1970, by the API server's clock."""


def existing(job: Object, where: str) -> Existing:
    """The run that a RayJob is; NameInUseError if it is none of ours, or of a version that this one cannot read."""
    metadata = job.get("metadata") or {}
    name = str(metadata.get("name", ""))
    told = variables(job)
    if RUN_LABEL not in (metadata.get("labels") or {}) or "HIGHWATER_SPEC" not in told:
        raise NameInUseError(f"RayJob {name} in {where} is no run of highwater; use another --name")
    try:
        changes = json.loads(told.get("HIGHWATER_SET") or "[]")
        spec = spec_from_text(told["HIGHWATER_SPEC"], changes, f"the spec of RayJob {name}")
    except (SpecError, ValueError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise NameInUseError(
            f"RayJob {name} in {where} has a spec that this version of highwater cannot read ({first}); "
            "use another --name"
        ) from error
    return Existing(
        name=name,
        uid=str(metadata.get("uid", "")),
        spec=spec,
        until=told.get("HIGHWATER_UNTIL") or None,
        submission=submission(job) or told.get("HIGHWATER_SUBMISSION", ""),
        standing=standing(job),
        created=seconds(str(metadata.get("creationTimestamp", ""))),
    )


def variables(job: Object) -> dict[str, str]:
    """The environment of a RayJob's workers, as their processes see it."""
    for group in _at(job, "spec", "rayClusterSpec").get("workerGroupSpecs") or []:
        for container in _at(group, "template", "spec").get("containers") or []:
            pairs = {one["name"]: one["value"] for one in container.get("env") or [] if "value" in one}
            if "HIGHWATER_SPEC" in pairs:
                return {name: value.replace("$$", "$") for name, value in pairs.items()}
    return {}


def seconds(stamp: str) -> float:
    """Seconds since 1970 of a time as Kubernetes writes it; 0 if it is none."""
    try:
        return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def _at(document: Object, *keys: str) -> Object:
    for key in keys:
        value = document.get(key)
        document = value if isinstance(value, dict) else {}
    return document
