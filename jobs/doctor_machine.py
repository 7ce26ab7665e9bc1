"""The doctor's checks of the machine: room, memory, CPUs, clock, and storage."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path

from jobs.errors import HighwaterError
from jobs.findings import Check, Facts
from jobs.units import size

GIB = 2**30


def check_disk(facts: Facts) -> list[Check]:
    """Room for checkpoints and for Ray's session folder."""
    found = []
    places = {"temporary": facts.environ.get("RAY_TMPDIR") or "/tmp"}
    if "://" not in facts.storage:
        places["storage"] = facts.storage
    for what, place in places.items():
        folder = _existing(Path(place).expanduser().absolute())
        free = shutil.disk_usage(folder).free
        short = free < 5 * GIB
        found.append(
            Check(
                name=f"disk ({what})",
                state="warn" if short else "ok",
                message=f"{size(free)} free at {folder}",
                fix="free some: Ray spills and checkpoints want 5 GiB" if short else "",
            )
        )
    return found


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def check_shm(facts: Facts) -> list[Check]:
    """Ray's object store lives in /dev/shm; in a container it is 64 MiB by default."""
    place = facts.root / "dev/shm"
    if not place.exists():
        return []
    total = shutil.disk_usage(place).total
    if total < GIB:
        return [
            Check(
                name="shared memory",
                state="warn",
                message=f"/dev/shm is {size(total)}; Ray falls back to files in /tmp, which is slow",
                fix="start the container with --shm-size=2g, or mount an emptyDir of medium Memory",
            )
        ]
    return [Check(name="shared memory", state="ok", message=f"/dev/shm is {size(total)}")]


def check_memory(facts: Facts) -> list[Check]:
    """What a control group or the machine lets processes have; a local Ray with two workers takes about 3 GiB."""
    limit = memory_limit(facts.root)
    if limit is None:
        return []
    short = limit < 4 * GIB
    return [
        Check(
            name="memory",
            state="warn" if short else "ok",
            message=f"{size(limit)} for processes here",
            fix="a local Ray with two workers takes about 3 GiB; use one worker, or --ray" if short else "",
        )
    ]


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes that processes here may have: the control group's limit (v2, then v1) or the machine's memory."""
    limits = []
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _read(root / name)
        if text.isdigit():
            limits.append(int(text))
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            limits.append(int(line.split()[1]) * 1024)
    return min(limits, default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def check_threads(facts: Facts) -> list[Check]:
    """CPUs, and thread settings that make workers fight over them."""
    threads = facts.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > facts.cpus:
        return [
            Check(
                name="cpus",
                state="warn",
                message=f"{facts.cpus}, but OMP_NUM_THREADS is {threads}",
                fix="unset OMP_NUM_THREADS; the spec's `threads` says how many a worker uses",
            )
        ]
    return [Check(name="cpus", state="ok", message=f"{facts.cpus} usable: keep workers x threads at or below that")]


def _can_be_made(folder: Path) -> bool:
    """Whether the folder is not there, and the nearest one above it that is could take it."""
    above = next(parent for parent in folder.parents if parent.exists())
    return not folder.exists() and above.is_dir() and os.access(above, os.W_OK)


def check_storage(facts: Facts) -> list[Check]:
    """Whether runs can be written, read and listed where they are to live."""
    from infra import storage

    try:
        if "://" not in facts.storage and _can_be_made(Path(facts.storage).expanduser().absolute()):
            # To look must not leave an empty folder behind; a run makes its own.
            return [Check(name="storage", state="ok", message=f"{facts.storage} is not there yet; a run makes it")]
        store = storage.open_store(facts.storage, facts.endpoint)
        storage.check(store)
    except HighwaterError as error:
        return [Check(name="storage", state="fail", message=str(error), fix="give another --storage")]
    return [Check(name="storage", state="ok", message=f"{store.uri} can be written and read")]


def check_clock(facts: Facts) -> list[Check]:
    """Heartbeats and S3 signatures need clocks that agree; S3 refuses more than 15 minutes."""
    endpoint = facts.endpoint or facts.environ.get("AWS_ENDPOINT_URL_S3") or facts.environ.get("AWS_ENDPOINT_URL")
    if facts.storage.startswith("s3://"):
        skew = clock_skew(endpoint or "https://s3.amazonaws.com", facts.now)
        if skew is not None and abs(skew) > 60:
            return [
                Check(
                    name="clock",
                    state="fail" if abs(skew) > 600 else "warn",
                    message=f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the storage's",
                    fix="set this machine's clock (NTP)",
                )
            ]
        if skew is not None:
            return [Check(name="clock", state="ok", message=f"within {max(abs(skew), 1):.0f} s of the storage's")]
    year = time.gmtime(facts.now()).tm_year
    if year < 2025:
        return [Check(name="clock", state="fail", message=f"says the year {year}", fix="set this machine's clock")]
    return [Check(name="clock", state="ok", message=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(facts.now())))]


def clock_skew(address: str, now: Callable[[], float] = time.time) -> float | None:
    """Seconds by which this machine is ahead of a server's Date header; None if there is no answer."""
    import urllib3

    try:
        response = urllib3.PoolManager(timeout=5.0, retries=False).request("HEAD", address, redirect=False)
        return now() - parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (urllib3.exceptions.HTTPError, KeyError, TypeError, ValueError):
        return None
