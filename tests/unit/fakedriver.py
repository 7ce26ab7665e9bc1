"""A driver process that trains nothing: `python -m tests.unit.fakedriver - --name N`; FAKE_MODE says what it does."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from jobs.errors import Reason
from tests.unit.fakerun import FakeRun


def main() -> int:
    mode, name = os.environ["FAKE_MODE"], sys.argv[sys.argv.index("--name") + 1]
    spec = json.loads(os.environ["HIGHWATER_SPEC"])
    fake = FakeRun(Path(spec["storage"]), name)
    if mode == "die":
        print("loading\nsomething broke")
        return 1
    if mode == "refuse":
        print("highwater: the corpus is empty; give another data.source", file=sys.stderr)
        return 2
    fake.dir.write("spec.json", spec)
    if mode == "until":
        fake.dir.write("stages/data.json", {"message": "data is ready", "words": 7})
        return 0
    stopped: list[int] = []
    signal.signal(signal.SIGINT, lambda *_: stopped.append(1))
    fake.plan()
    fake.attempt()
    fake.steps(1, 5)
    end = time.monotonic() + 20
    while mode in ("wait", "deaf") and time.monotonic() < end and not (stopped and mode == "wait"):
        time.sleep(0.02)
    reason = Reason.STOPPED if stopped else Reason.DONE
    fake.dir.store.put(fake.dir.key("report.html"), b"<!doctype html>")
    fake.result(reason, finished_at=time.time(), message="Left at step 5." if stopped else "Trained.")
    return 130 if stopped else 0


if __name__ == "__main__":
    sys.exit(main())
