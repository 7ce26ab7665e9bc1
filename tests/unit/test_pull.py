"""A run is copied whole or not at all, and nothing that is there is lost by it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import BinaryIO

import pytest

from jobs import cli
from jobs.errors import NameInUseError, NotFoundError, StorageError
from jobs.pull import chosen, pull, pull_tar, write_tar
from tests.unit.fakerun import FakeRun


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    made = FakeRun(tmp_path / "source")
    made.dir.write("spec.json", {"task": "language"})
    made.attempt()
    made.steps(1, 3)
    made.dir.store.put("demo/logs/driver/0001-00000.log", b"a\xffb\n")
    for step in (10, 20, 30, 40):
        for part in ("rank-0.pt", "manifest.json"):
            made.dir.store.put(f"demo/checkpoints/{step:08d}-0001/{part}", f"{step}{part}".encode())
    made.dir.store.put("demo/checkpoints/00000050-0001/rank-0.pt", b"torn")
    made.result(best_checkpoint="checkpoints/00000020-0001")
    return made


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def sending(run: FakeRun, file: BinaryIO) -> None:
    write_tar(run.dir, file)


def test_the_best_and_the_last_are_enough(run: FakeRun, tmp_path: Path) -> None:
    folder = pull(run.dir, str(tmp_path / "here"))
    assert folder == tmp_path / "here" / "demo"
    assert checkpoints(folder) == ["00000020-0001", "00000040-0001"]
    source = tree(tmp_path / "source" / "demo")
    copied = tree(folder)
    assert all(source[key] == data for key, data in copied.items())
    assert {key for key in source if not key.startswith("checkpoints")} <= copied.keys()


def test_all_but_what_was_never_committed(run: FakeRun, tmp_path: Path) -> None:
    folder = pull(run.dir, str(tmp_path / "here"), everything=True)
    assert checkpoints(folder) == [f"000000{step}-0001" for step in (10, 20, 30, 40)]


def test_a_tar_brings_the_same(run: FakeRun, tmp_path: Path) -> None:
    pull(run.dir, str(tmp_path / "one"))
    pull_tar("demo", str(tmp_path / "two"), lambda file: sending(run, file))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_again_brings_what_is_new_and_keeps_what_was_there(run: FakeRun, tmp_path: Path) -> None:
    folder = pull(run.dir, str(tmp_path / "here"), everything=True)
    run.steps(4, 9)
    pull(run.dir, str(tmp_path / "here"))
    assert checkpoints(folder)[0] == "00000010-0001"
    assert tree(folder)["metrics/0001-00000.jsonl"].count(b"\n") == 9
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["demo"]


def test_only_a_part(run: FakeRun, tmp_path: Path) -> None:
    folder = pull(run.dir, str(tmp_path / "here"), only=["logs/", "spec.json"])
    assert list(tree(folder)) == ["logs/driver/0001-00000.log", "spec.json"]
    with pytest.raises(NotFoundError, match="at nothing/"):
        pull(run.dir, str(tmp_path / "here"), only=["nothing/"])


def test_another_run_of_that_name_stays(run: FakeRun, tmp_path: Path) -> None:
    other = FakeRun(tmp_path / "here")
    other.dir.write("spec.json", {"task": "image"})
    with pytest.raises(NameInUseError, match="is not this run"):
        pull(run.dir, str(tmp_path / "here"))
    assert list(tree(tmp_path / "here")) == ["demo/spec.json"]
    with pytest.raises(StorageError, match="already"):
        pull(run.dir, str(tmp_path / "source"))


def test_a_copy_that_is_cut_off_leaves_nothing(run: FakeRun, tmp_path: Path) -> None:
    whole = io.BytesIO()
    write_tar(run.dir, whole)

    def torn(file: BinaryIO) -> None:
        file.write(whole.getvalue()[:5000])
        raise StorageError("the connection was cut off")

    def short(file: BinaryIO) -> None:
        file.write(whole.getvalue()[:5000])

    with pytest.raises(StorageError, match="cut off"):
        pull_tar("demo", str(tmp_path / "here"), torn)
    with pytest.raises(StorageError, match="did not come whole"):
        pull_tar("demo", str(tmp_path / "here"), short)
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", ".hw-tmp-x"])
def test_a_pod_cannot_write_elsewhere(tmp_path: Path, name: str) -> None:
    def send(file: BinaryIO) -> None:
        with tarfile.open(fileobj=file, mode="w|") as tar:
            member = tarfile.TarInfo(name)
            tar.addfile(member, io.BytesIO())

    with pytest.raises(StorageError, match="no part of a run"):
        pull_tar("demo", str(tmp_path / "here"), send)
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_a_link_is_no_part_of_a_run(tmp_path: Path) -> None:
    def send(file: BinaryIO) -> None:
        with tarfile.open(fileobj=file, mode="w|") as tar:
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc"
            tar.addfile(link)

    with pytest.raises(StorageError, match="no part of a run"):
        pull_tar("demo", str(tmp_path / "here"), send)


def test_which_keys() -> None:
    keys = ["a", "checkpoints/1-1/x", "checkpoints/11-1/x", "checkpoints/2-1/x"]
    assert chosen(keys, "checkpoints/1-1", None, everything=False) == ["a", "checkpoints/1-1/x"]
    assert chosen(keys, None, None, everything=False) == ["a"]
    assert chosen(keys, None, None, everything=True) == keys


def test_the_verb(run: FakeRun, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    where = [str(tmp_path / "source" / "demo")]
    assert cli.main(["pull", *where, "--to", str(tmp_path / "here")]) == 0
    assert capsysbinary.readouterr().out.decode().strip() == str(tmp_path / "here" / "demo")
    assert cli.main(["pull", *where, "--to", "-", "--only", "spec.json"]) == 0
    with tarfile.open(fileobj=io.BytesIO(capsysbinary.readouterr().out)) as tar:
        assert tar.getnames() == ["spec.json"]
