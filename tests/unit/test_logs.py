"""The logs of a run are read as they grow, in order, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import cli
from jobs.errors import NotFoundError, SpecError, StorageError
from jobs.logs import LogReader, show, stream_of
from tests.unit.fakerun import FakeRun


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    made = FakeRun(tmp_path)
    made.dir.write("spec.json", {})
    return made


def log(run: FakeRun, stream: str, data: bytes, attempt: int = 1, segment: int = 0) -> None:
    run.dir.store.put(f"demo/logs/{stream}/{attempt:04d}-{segment:05d}.log", data)


def test_streams() -> None:
    assert (stream_of(None), stream_of(3)) == ("logs/driver", "logs/rank-3")
    with pytest.raises(SpecError, match="counted from 0"):
        stream_of(-1)


def test_only_what_is_new_is_read(run: FakeRun) -> None:
    reader = LogReader(run.dir, "logs/driver")
    assert reader.poll() == b"" and not reader.found
    log(run, "driver", b"one\n")
    assert reader.poll() == b"one\n"
    assert reader.poll() == b""
    log(run, "driver", b"one\ntwo\n")
    log(run, "driver", b"three\n", segment=1)
    log(run, "driver", b"four\n", attempt=2)
    assert reader.poll() == b"two\nthree\nfour\n"


def test_what_was_seen_before_is_skipped(run: FakeRun) -> None:
    reader = LogReader(run.dir, "logs/driver", skip=6)
    log(run, "driver", b"one\n")
    assert reader.poll() == b""
    log(run, "driver", b"one\ntwo\n")
    assert reader.poll() == b"o\n"


def test_following_ends_with_the_run(run: FakeRun) -> None:
    seen: list[bytes] = []
    lives = [True, True, False]
    log(run, "rank-0", b"a\n")

    def pause(_: float) -> None:
        log(run, "rank-0", b"a\n" + b"b\n" * (3 - len(lives)))

    show(run.dir, "logs/rank-0", seen.append, follow=True, living=lambda: lives.pop(0), pause=pause)
    assert b"".join(seen) == b"a\nb\nb\n"


def test_storage_that_fails_for_a_while_is_asked_again(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    log(run, "driver", b"a\n")
    seen: list[bytes] = []
    real, failures = run.dir.store.list, [True] * 5

    def fails(self: object, prefix: str) -> object:
        if failures and failures.pop():
            raise StorageError("away")
        return real(prefix)

    monkeypatch.setattr(type(run.dir.store), "list", fails)
    show(run.dir, "logs/driver", seen.append, follow=True, living=lambda: False, pause=lambda _: None)
    assert seen == [b"a\n"]
    failures += [True] * 50
    with pytest.raises(StorageError, match="away"):
        show(run.dir, "logs/driver", seen.append, follow=True, living=lambda: True, pause=lambda _: None)


def test_what_is_missing_is_told_with_what_is_there(run: FakeRun) -> None:
    with pytest.raises(NotFoundError, match="no log of driver: there is none of it yet"):
        show(run.dir, "logs/driver", print)
    for rank in (0, 10, 2):
        log(run, f"rank-{rank}", b"x\n")
    with pytest.raises(NotFoundError, match="no log of rank 7: there is that of rank 0, rank 2, rank 10"):
        show(run.dir, "logs/rank-7", print)


def test_the_verb(run: FakeRun, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    log(run, "driver", b"caf\xc3\xa9 \xff\n")
    assert cli.main(["logs", str(tmp_path / "demo")]) == 0
    assert capsysbinary.readouterr().out == b"caf\xc3\xa9 \xff\n"
    assert cli.main(["logs", "demo", "--storage", str(tmp_path), "--rank", "1"]) == 2
    assert b"no log of rank 1" in capsysbinary.readouterr().err
    assert cli.main(["logs", "demo", "--storage", str(tmp_path), "--rank", "one"]) == 2
