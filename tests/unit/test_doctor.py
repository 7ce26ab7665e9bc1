"""The doctor's checks against machines that do not exist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import doctor
from jobs.doctor import Diagnosis, diagnose
from jobs.doctor_machine import check_clock, check_disk, check_memory, check_storage, check_threads, memory_limit
from jobs.doctor_software import check_bytecode, check_gpu, check_packages, check_ray_environment
from jobs.errors import StorageError
from jobs.findings import Check, Facts


def facts(tmp_path: Path, **changes: object) -> Facts:
    values: dict[str, object] = {"storage": str(tmp_path / "runs"), "environ": {}, "root": tmp_path, "home": tmp_path}
    return Facts(**(values | changes))  # type: ignore[arg-type]


def versions(known: dict[str, str]) -> Callable[[str], str | None]:
    return known.get


def named(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_whatever_is_wrong_comes_with_a_remedy(tmp_path: Path) -> None:
    for check in diagnose(facts(tmp_path)).checks:
        assert check.message
        assert check.state == "ok" or check.fix


def test_a_check_that_breaks_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_moon(_: Facts) -> list[Check]:
        raise StorageError("the moon is out of reach")

    monkeypatch.setattr(doctor, "CHECKS", (check_moon,))
    (check,) = diagnose(facts(tmp_path)).checks
    assert (check.name, check.state) == ("moon", "warn")
    assert "out of reach" in check.message


def test_only_a_failure_fails() -> None:
    assert not Diagnosis(checks=[Check(name="a", state="warn", message="m")]).failed
    assert Diagnosis(checks=[Check(name="a", state="fail", message="m")]).failed


def test_a_light_install_is_no_failure(tmp_path: Path) -> None:
    found = check_packages(facts(tmp_path, version=versions({"highwater": "1"})))
    assert [check.state for check in found] == ["ok", "warn", "warn"]
    assert "pip install" in named(found, "ray").fix


@pytest.mark.parametrize(
    ("torch", "vision", "wants", "state"),
    [
        ("2.15.0", "0.29.2", ["torch==2.15.0", "numpy"], "ok"),
        ("2.13.0+cpu", "0.28.0", ["torch==2.13.0"], "fail"),
        ("2.13.0+cpu", "0.28.0+cpu", ["torch==2.13.0"], "ok"),
        ("2.14.0", "0.28.0", ["torch (==2.13.0)"], "fail"),
        ("2.14.0", "0.28.0", [], "ok"),
    ],
)
def test_torch_and_torchvision_must_be_a_pair(
    tmp_path: Path, torch: str, vision: str, wants: list[str], state: str
) -> None:
    known = versions({"torch": torch, "torchvision": vision})
    found = check_packages(facts(tmp_path, version=known, requires=lambda name: wants))
    assert named(found, "torchvision").state == state


def fake_smi(folder: Path, script: str) -> dict[str, str]:
    smi = folder / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\n{script}\n")
    smi.chmod(0o755)
    return {"PATH": str(folder)}


def test_gpus(tmp_path: Path) -> None:
    assert check_gpu(facts(tmp_path, environ={"PATH": ""}))[0].state == "ok"
    good = fake_smi(tmp_path, "echo 'A100, 40536 MiB, 570.1'; echo 'A100, 40536 MiB, 570.1'")
    assert [check.message for check in check_gpu(facts(tmp_path, environ=good))] == ["A100, 40536 MiB, 570.1"] * 2
    bad = fake_smi(tmp_path, "echo 'Driver/library version mismatch'; exit 18")
    assert check_gpu(facts(tmp_path, environ=bad))[0].state == "fail"


def test_missing_byte_code_is_a_trap_that_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.doctor_software._compiled", lambda name: name != "torch")
    (check,) = check_bytecode(facts(tmp_path, environ={"PYTHONDONTWRITEBYTECODE": "1"}))
    assert check.state == "warn"
    assert "PYTHONDONTWRITEBYTECODE" in check.message
    assert "compileall" in check.fix


def test_the_control_group_limits_memory(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    assert memory_limit(tmp_path) == 16 * 2**30
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert memory_limit(tmp_path) == 16 * 2**30
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{2 * 2**30}\n")
    assert check_memory(facts(tmp_path))[0].state == "warn"


def test_little_room_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("usage", (), {"free": 2**30, "total": 2**26})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert {check.state for check in check_disk(facts(tmp_path))} == {"warn"}


def test_threads(tmp_path: Path) -> None:
    assert check_threads(facts(tmp_path, cpus=2, environ={"OMP_NUM_THREADS": "8"}))[0].state == "warn"
    assert check_threads(facts(tmp_path, cpus=2, environ={"OMP_NUM_THREADS": "x"}))[0].state == "ok"


def test_ray_traps(tmp_path: Path) -> None:
    assert [check.state for check in check_ray_environment(facts(tmp_path))] == ["ok"]
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("t")
    found = check_ray_environment(facts(tmp_path, environ={"RAY_ADDRESS": "head:6379", "RAY_TMPDIR": ""}))
    assert [(check.name, check.state) for check in found] == [
        ("RAY_ADDRESS", "warn"),
        ("RAY_AUTH_MODE", "warn"),
        ("RAY_TMPDIR", "fail"),
    ]
    assert check_ray_environment(facts(tmp_path, environ={"RAY_AUTH_MODE": "disabled"}))[0].state == "ok"


def test_storage_that_cannot_be_used_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert check_storage(facts(tmp_path))[0].state == "ok"
    assert check_storage(facts(tmp_path, storage=str(tmp_path / "file/runs")))[0].state == "fail"
    assert check_storage(facts(tmp_path, storage="gs://b"))[0].state == "fail"


def test_a_clock_of_1970_fails(tmp_path: Path) -> None:
    assert check_clock(facts(tmp_path, now=lambda: 1000.0))[0].state == "fail"
    assert check_clock(facts(tmp_path, now=lambda: 1.8e9))[0].state == "ok"


@pytest.mark.parametrize(("ahead", "state"), [(0.0, "ok"), (-120.0, "warn"), (3600.0, "fail")])
def test_a_clock_that_differs_from_the_storages(
    tmp_path: Path, ahead: float, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.doctor_machine.clock_skew", lambda address, now: ahead)
    assert check_clock(facts(tmp_path, storage="s3://bucket/runs"))[0].state == state
