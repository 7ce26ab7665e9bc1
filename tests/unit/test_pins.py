"""Pinned checkpoints: kept by retention, refused where there is nothing to keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.disk import DiskStore
from jobs.errors import NotFoundError
from jobs.pins import pin, pinned
from jobs.rundir import RunDir
from trainers.checkpoint import Manifest, commit, finished, superfluous


def run_with(folder: Path, *steps: int) -> RunDir:
    run = RunDir(DiskStore(folder), "first")
    for step in steps:
        manifest = Manifest(
            step=step,
            attempt=1,
            workers=1,
            batch=8,
            accumulation=1,
            files={},
            metric=float(step),
            evaluated_here=True,
            time=0.0,
        )
        commit(run, manifest)
    return run


def test_retention_keeps_the_newest_the_best_and_the_pinned(tmp_path: Path) -> None:
    run = run_with(tmp_path, 10, 20, 30, 40)
    assert pin(run, 20) == (20,)
    gone = superfluous(finished(run), 1, 1, True, pinned(run))
    assert [manifest.step for manifest in gone] == [30]


def test_the_newest_is_pinned_unless_told_and_let_go_again(tmp_path: Path) -> None:
    run = run_with(tmp_path, 10, 20)
    assert pin(run) == (20,)
    assert pin(run, 10) == (10, 20)
    assert pin(run, remove=True) == (10,)
    assert pin(run, 10, remove=True) == ()
    assert pinned(run) == frozenset()


@pytest.mark.parametrize(
    ("step", "remove", "said"), [(15, False, "steps with one: 10"), (10, True, "pinned steps: none")]
)
def test_what_is_not_there_is_refused_with_what_is(step: int, remove: bool, said: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=said):
        pin(run_with(tmp_path, 10), step, remove=remove)
