"""Leases: one driver at a time, and a dead one is noticed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from infra.disk import DiskStore
from jobs.errors import LeaseLostError, NameInUseError
from jobs.lease import LeaseKeeper, alive, claim, last_lease, this_process
from jobs.process import process_mark, this_host
from jobs.rundir import RunDir
from tests.unit.stores import MemoryStore, lease

HERE = replace(this_process(), host="here/boot/1")
THERE = replace(this_process(), host="there/boot/1")


def a_run(store: MemoryStore | None = None) -> RunDir:
    return RunDir(store or MemoryStore(), "run")


def test_the_first_claim_is_number_one_and_says_who() -> None:
    run = a_run()
    mine = claim(run, now=1000.0, identity=HERE)
    assert (mine.number, mine.pid, mine.beat_at, mine.released) == (1, os.getpid(), 1000.0, False)
    assert last_lease(run) == mine


@pytest.mark.parametrize(
    ("changes", "mark", "now", "expected"),
    [
        ({}, None, 1029.0, True),
        ({}, None, 1030.0, False),
        ({}, None, 900.0, True),
        ({"released": True}, "500", 1000.0, False),
        ({"host": "here/boot/1"}, "500", 9999.0, True),
        ({"host": "here/boot/1"}, None, 1000.0, False),
        ({"host": "here/boot/1"}, "501", 1000.0, False),
        ({"host": "here/boot/2"}, "500", 1031.0, False),
        ({"host": "here/boot/2"}, None, 1001.0, True),
        ({"host": "here/boot/1", "process_mark": ""}, None, 1001.0, True),
        ({"host": "here/boot/1", "pid": os.getpid()}, "500", 1001.0, True),
        ({"host": "here/boot/1", "pid": os.getpid()}, "500", 1031.0, False),
    ],
)
def test_who_is_alive(changes: dict[str, object], mark: str | None, now: float, expected: bool) -> None:
    assert alive(lease(**changes), now, host="here/boot/1", mark_of=lambda pid: mark) is expected


def test_a_live_lease_refuses_and_names_its_holder() -> None:
    run = a_run()
    run.write("leases/0001.json", lease())
    with pytest.raises(NameInUseError, match=r"run run is driven by process 77 on there \(last seen 4 s ago\)"):
        claim(run, now=1004.0, identity=HERE)


def test_a_dead_or_released_lease_is_followed_by_the_next_number() -> None:
    run = a_run()
    run.write("leases/0009.json", lease(number=9, released=True))
    run.write("leases/0010.json", lease(number=10))
    run.store.put("run/leases/.DS_Store", b"")
    assert claim(run, now=1031.0, identity=HERE).number == 11


def test_of_many_claimers_exactly_one_wins(tmp_path: Path) -> None:
    run = RunDir(DiskStore(tmp_path), "run")
    run.write("leases/0001.json", lease())
    barrier = threading.Barrier(8)

    def take(number: int) -> bool:
        barrier.wait()
        try:
            claim(run, now=2000.0, identity=replace(HERE, owner=str(number)))
        except NameInUseError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(8))) == 1
    assert run.numbers("leases/") == [1, 2]


def test_the_loser_of_a_race_is_told() -> None:
    class Raced(MemoryStore):
        def list(self, prefix: str) -> list:  # type: ignore[type-arg]
            return []

    run = a_run(Raced())
    claim(run, now=1.0, identity=THERE)
    with pytest.raises(NameInUseError, match="taken by another driver at this moment"):
        claim(run, now=1.0, identity=HERE)


def test_beats_keep_the_lease_and_a_release_frees_it() -> None:
    run, now = a_run(), [1000.0]
    keeper = LeaseKeeper(run, claim(run, now=now[0], identity=THERE), clock=lambda: now[0])
    now[0] = 1025.0
    keeper.beat()
    with pytest.raises(NameInUseError):
        claim(run, now=1050.0, identity=HERE)
    keeper.release()
    keeper.release()
    keeper.beat()
    assert claim(run, now=1050.0, identity=HERE).number == 2


def test_a_takeover_is_noticed_and_never_written_over() -> None:
    run, now, heard = a_run(), [1000.0], list[str]()
    keeper = LeaseKeeper(run, claim(run, now=now[0], identity=THERE), clock=lambda: now[0], on_lost=heard.append)
    keeper.check()
    now[0] = 1040.0
    claim(run, now=now[0], identity=HERE)
    with pytest.raises(LeaseLostError, match="taken over by another driver"):
        keeper.check()
    keeper.beat()
    keeper.release()
    assert len(heard) == 1
    last = last_lease(run)
    assert last is not None
    assert (last.number, last.host, last.released) == (2, "here/boot/1", False)


def test_a_suspended_driver_that_nobody_replaced_goes_on() -> None:
    run, now = a_run(), [1000.0]
    keeper = LeaseKeeper(run, claim(run, now=now[0], identity=THERE), clock=lambda: now[0])
    now[0] = 5000.0
    keeper.check()
    assert keeper.lease.beat_at == 5000.0


def test_failing_storage_is_tolerated_until_the_lease_is_stale() -> None:
    store, now = MemoryStore(), [1000.0]
    run = a_run(store)
    keeper = LeaseKeeper(run, claim(run, now=now[0], identity=HERE), clock=lambda: now[0])
    store.failing = True
    now[0] = 1029.0
    keeper.beat()
    keeper.check()
    now[0] = 1030.0
    keeper.beat()
    with pytest.raises(LeaseLostError, match="its storage failed for 30 s: memory is told to fail"):
        keeper.check()
    keeper.release()


def test_a_removed_run_is_not_brought_back() -> None:
    store = MemoryStore()
    run = a_run(store)
    keeper = LeaseKeeper(run, claim(run, now=1000.0, identity=HERE), clock=lambda: 1001.0)
    store.objects.clear()
    keeper.beat()
    assert "was removed" in (keeper.lost or "")
    assert store.objects == {}


def test_the_keeper_beats_in_the_background() -> None:
    run = a_run()
    mine = claim(run, now=time.time(), identity=this_process())
    lost = threading.Event()
    with LeaseKeeper(run, mine, beat_s=0.002, on_lost=lambda why: lost.set()) as keeper:
        run.write("leases/0002.json", lease(number=2))
        assert lost.wait(5)
        assert keeper.lost


def test_a_release_that_cannot_be_written_hides_nothing() -> None:
    store = MemoryStore()
    run = a_run(store)
    mine = claim(run, now=time.time(), identity=this_process())

    def fail() -> None:
        with LeaseKeeper(run, mine):
            store.failing = True
            raise KeyError("cause")

    with pytest.raises(KeyError):
        fail()


def test_a_killed_process_is_dead_at_once_even_unreaped() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        mark = process_mark(child.pid)
        assert mark
        held = lease(host=this_host(), pid=child.pid, process_mark=mark, beat_at=time.time())
        assert alive(held, time.time() + 1000)
        child.kill()
        # Not reaped: a parent that never waits leaves a zombie, which drives nothing.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not alive(held, time.time())
    finally:
        child.kill()
        child.communicate()
    assert process_mark(child.pid) is None


def test_this_process_is_described_so_that_others_can_check_it() -> None:
    one, two = this_process(), this_process()
    assert one.owner != two.owner
    assert one.process_mark == process_mark(os.getpid())
    assert time.time() - 3600 * 24 < one.process_started <= time.time() + 1
    if sys.platform.startswith("linux"):
        assert len(one.host.split("/")) == 3
