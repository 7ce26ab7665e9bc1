"""Runs that are killed again and again, against the same runs left in peace: every number must be equal.

`python -m tests.bench.kills [--kills 50] [--ray-kills 3] [--seed N]`. SIGKILL comes at uniformly random
instants, inside checkpoint writes too, and strikes the driver alone (its ranks live on for a moment), all
processes, or one rank. Half of the kills meet runs with one worker, half runs with two. A killed run goes
on under its name at once; when its kills are spent it may finish, and its curve is compared bit for bit.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psutil

from infra.keys import TEMP_PREFIX
from jobs.errors import Reason
from jobs.rundir import RunDir
from jobs.spec import JobSpec
from jobs.state import STATES, State
from tests.bench.common import exit_code
from tests.led import finished, in_child, lead, run_of
from tests.unit.tiny import curve, tiny_spec
from trainers.run import SPEC_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
PER_RUN = 6
"""Kills that one run must live through."""
OFTEN = {"every_steps": 2, "every_s": 1000.0}
"""Checkpoints so close to each other that many kills meet one that is being written."""
LIMIT_S = 180.0
"""No run of these takes longer; one that does hangs."""


@dataclass
class Story:
    """What one run lived through."""

    run: RunDir
    kills: Counter[str] = field(default_factory=Counter)
    torn: set[str] = field(default_factory=set)
    """Temporary files, and checkpoints without manifest, that were there right after a kill."""
    inside_write: int = 0
    """Kills after which there were new ones of those."""
    attempt: int = 0
    """The newest attempt at the latest kill."""
    outlived: int = 0
    """Ranks that were still there when the run had finished, though their driver was killed."""

    def note(self, kind: str) -> None:
        """Count a kill, and see what it left half done."""
        self.kills[kind] += 1
        self.attempt = max(self.run.numbers("attempts/"), default=0)
        new = torn(self.run) - self.torn
        self.inside_write += bool(new)
        self.torn |= new


class Driver(Protocol):
    """A driver's process: forked here, or a command."""

    pid: int

    def over(self) -> bool: ...

    def ranks(self) -> list[psutil.Process]: ...


class Forked:
    """A driver in a forked child, with ranks forked from it."""

    def __init__(self, spec: JobSpec, name: str) -> None:
        self.pid = in_child(lambda: lead(spec, name))
        self._over = False

    def over(self) -> bool:
        self._over = self._over or os.waitpid(self.pid, os.WNOHANG)[0] == self.pid
        return self._over

    def ranks(self) -> list[psutil.Process]:
        return family(self)


class Command:
    """`python -m trainers.run`, which starts a Ray of its own."""

    def __init__(self, spec: JobSpec, name: str) -> None:
        environment = os.environ | {SPEC_VARIABLE: spec.model_dump_json(), "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
        environment.pop("RAY_ADDRESS", None)
        command = [sys.executable, "-m", "trainers.run", "-", "--name", name, "--quiet"]
        # Ray tells of a lost worker on stdout, whatever the driver prints.
        self._process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
        self.pid = self._process.pid

    def over(self) -> bool:
        return self._process.poll() is not None

    def ranks(self) -> list[psutil.Process]:
        return [process for process in family(self) if "RayTrainWorker" in title(process)]


def torn(run: RunDir) -> set[str]:
    """Files that were being written, and checkpoints that were, as paths below the run."""
    root = Path(run.store.uri) / run.name
    temporary = {str(path.relative_to(root)) for path in root.rglob(f"{TEMP_PREFIX}*")}
    checkpoints = [path for path in (root / "checkpoints").glob("*") if not (path / "manifest.json").exists()]
    return temporary | {path.name for path in checkpoints}


def family(driver: Driver) -> list[psutil.Process]:
    """All processes that descend from a driver."""
    with suppress(psutil.Error):
        return psutil.Process(driver.pid).children(recursive=True)
    return []


def title(process: psutil.Process) -> str:
    """A process's command line; empty if it is gone."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def strike(driver: Driver, kind: str) -> str:
    """SIGKILL whom the kind says; the kind in effect: a rank that is not there yet cannot be killed."""
    ranks = driver.ranks()
    kind = "all" if kind == "rank" and not ranks else kind
    victims = {"rank": ranks[-1:], "driver": [], "all": family(driver)}[kind]
    if kind != "rank":
        victims.insert(0, psutil.Process(driver.pid))
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return kind


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Look often until it is true; RuntimeError if it never is."""
    end = time.monotonic() + LIMIT_S
    while not true():
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not within {LIMIT_S:.0f} s")
        time.sleep(0.01)


def torment(story: Story, start: Callable[[], Driver], kinds: list[str], instant: Callable[[Driver], None]) -> None:
    """Kill the run once per kind and let it finish; what outlived its driver is ended only then."""
    met: list[psutil.Process] = []
    driver = start()
    try:
        for kind in kinds:
            instant(driver)
            met += family(driver)
            if driver.over():
                if done(story.run):
                    break
                driver = start()
                continue
            struck = strike(driver, kind)
            story.note(struck)
            if struck != "rank":  # The driver survives a lost rank, and tries again by itself.
                wait_until(driver.over, "a killed driver")
                driver = start()
        wait_until(driver.over, f"the end of {story.run.uri}")
        if not done(story.run):
            driver = start()
            wait_until(driver.over, f"the end of {story.run.uri}")
            if not done(story.run):
                raise RuntimeError(f"{story.run.uri} did not finish")
    finally:
        met += family(driver)
        if not driver.over():
            os.kill(driver.pid, signal.SIGKILL)
        left = forks()
        story.outlived = len(left)
        for process in met + left:  # psutil knows a process by its start too: a number that was used again is safe.
            with suppress(psutil.NoSuchProcess):
                process.kill()


def forks() -> list[psutil.Process]:
    """What was forked from here and is still there: of this process group, with this command line."""
    own = psutil.Process()
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            mine = os.getpgid(process.pid) == os.getpgid(0) and process.cmdline() == own.cmdline()
            if mine and process != own and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def done(run: RunDir) -> bool:
    """Whether the run has finished; RuntimeError if it failed by anything but its lost ranks."""
    result = run.result()
    if result and STATES[result.reason] is State.FAILED and result.reason is not Reason.WORKER_LOST:
        raise RuntimeError(f"{run.uri} failed: {result.message}")
    return result is not None and result.reason is Reason.DONE


def without_ray(folder: Path, workers: int, kills: int, draw: random.Random) -> list[tuple[Story, RunDir]]:
    """Runs with forked ranks, each killed a few times, until the kills are spent; each beside its straight twin."""
    stories: list[tuple[Story, RunDir]] = []
    left = kills
    while left > 0:
        seed = len(stories)
        spec = tiny_spec(folder, workers=workers, batch=4 // workers, seed=seed, steps=150, checkpointing=OFTEN)
        began = time.monotonic()
        straight = finished(spec, f"straight-{workers}-{seed}")
        longest = (time.monotonic() - began) * 0.35
        story = Story(run_of(spec, f"killed-{workers}-{seed}"))
        kinds = [draw.choice(["driver", "all", "rank"][: workers + 1]) for _ in range(min(left, PER_RUN))]

        def instant(_: Driver, longest: float = longest) -> None:
            time.sleep(draw.uniform(0.0, longest))

        def start(spec: JobSpec = spec, name: str = story.run.name) -> Driver:
            return Forked(spec, name)

        torment(story, start, kinds, instant)
        left -= story.kills.total()
        stories.append((story, straight))
        tell(f"{workers} worker(s), run {seed}", story, straight)
    return stories


def with_ray(folder: Path, kills: int, draw: random.Random) -> list[tuple[Story, RunDir]]:
    """One run on Ray with two workers, killed while it trains; its twin has forked ranks."""
    if not kills:
        return []
    rarely = {"every_steps": 10, "every_s": 1000.0}
    spec = tiny_spec(
        folder, workers=2, batch=2, steps=1500, checkpointing=rarely, evaluation={"every_steps": 200}, seed=99
    )
    straight = finished(spec, "straight-ray")
    story = Story(run_of(spec, "killed-ray"))
    kinds = [["rank", "driver", "all"][number % 3] for number in range(kills)]

    def instant(driver: Driver) -> None:
        # Most of a start is Ray's own; the instants that matter are those of training and saving.
        wait_until(lambda: driver.over() or trains(story.run, story.attempt), "training on Ray")
        time.sleep(draw.uniform(0.0, 2.0))

    torment(story, lambda: Command(spec, story.run.name), kinds, instant)
    tell("2 workers on Ray", story, straight)
    return [(story, straight)]


def trains(run: RunDir, after: int) -> bool:
    """Whether an attempt later than that one has metrics."""
    return any(number > after for number, _ in run.segments("metrics"))


def tell(what: str, story: Story, straight: RunDir) -> None:
    attempts = story.run.attempts()
    steps = " ".join(str(attempt.resumed_step) for attempt in attempts)
    verdict = "equal" if same(story, straight) else "DIFFERENT"
    print(
        f"{what}: {story.kills.total()} kills ({listed(story.kills)}), {story.inside_write} inside a write, "
        f"attempts from steps {steps}: {verdict}",
        flush=True,
    )


def listed(kills: Counter[str]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in sorted(kills.items()))


def same(story: Story, straight: RunDir) -> bool:
    return curve(story.run) == curve(straight)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--ray-kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the instants and victims")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = folder  # Killed processes leave their temporary folders behind.
        stories = without_ray(Path(folder), 1, options.kills // 2, draw)
        stories += without_ray(Path(folder), 2, options.kills - options.kills // 2, draw)
        stories += with_ray(Path(folder), options.ray_kills, draw)
        kills = sum((story.kills for story, _ in stories), Counter[str]())
        inside = sum(story.inside_write for story, _ in stories)
        resumes = sum(len(story.run.attempts()) - 1 for story, _ in stories)
        equal = sum(same(story, straight) for story, straight in stories)
        left = sum(len(torn(story.run)) for story, _ in stories)
        outlived = sum(story.outlived for story, _ in stories)
    print(f"{inside} kills inside a write; {left} torn checkpoints and temporary files are still there at the end")
    print(f"{outlived} ranks of killed drivers were still there when their run had finished")
    print(
        f"{kills.total()} kills ({listed(kills)}), {resumes} resumes, {time.monotonic() - began:.0f} s: "
        f"{equal} of {len(stories)} curves equal bit for bit (goal: all)"
    )
    return exit_code(equal == len(stories) and kills.total() == options.kills + options.ray_kills)


if __name__ == "__main__":
    sys.exit(main())
