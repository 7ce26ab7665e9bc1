"""Names of runs: what is one, and a fresh one. A name is the run's id everywhere, Kubernetes included."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Container
from pathlib import PurePath

from jobs.errors import SpecError

LONGEST = 47
"""KubeRay adds up to 16 characters to a RayJob's name, and a DNS label holds 63."""
NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
RULE = f"1 to {LONGEST} lowercase letters, digits and hyphens, a letter first and no hyphen last"


def check_name(name: str) -> str:
    """The name itself; SpecError with the rule and the nearest valid name if it is none (DNS label, RFC 1035)."""
    if NAME.fullmatch(name) and len(name) <= LONGEST:
        return name
    raise SpecError(f"{_short(name)} cannot be the name of a run: it takes {RULE}; use for example {nearest(name)}")


def nearest(name: str) -> str:
    """A valid name that looks like this text."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    dashed = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if not dashed:
        return "run"
    lettered = dashed if dashed[0].isalpha() else f"run-{dashed}"
    return lettered[:LONGEST].rstrip("-")


def fresh_name(source: str, now: float, taken: Container[str]) -> str:
    """A name of the recipe or file with the UTC time, such as `language-20261122-1546`, that is not taken.

    `now` is in seconds since 1970. Of two runs in one minute the second gets `-2`; whether a name is still
    free when it is used, only an exclusive write can tell.
    """
    # A spec may be given as JSON on the command line: then it has no name of its own.
    stem = "run" if source.lstrip().startswith("{") else nearest(PurePath(source).stem)
    stamp = time.strftime("-%Y%m%d-%H%M", time.gmtime(now))
    number = 1
    while True:
        suffix = stamp if number == 1 else f"{stamp}-{number}"
        name = stem[: LONGEST - len(suffix)].rstrip("-") + suffix
        if name not in taken:
            return name
        number += 1


def _short(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:57] + "...")
