"""What one worker may use, the limit that holds it to that, and the error when it runs out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jobs.errors import Reason
from trainers import memory
from trainers.failures import is_out_of_memory
from trainers.memory import MIB, Mapped, budget_bytes, lift_limit, limit_memory, machine_free, shortage

CPU = torch.device("cpu")
CPU_WORDS = "[enforce fail at alloc_cpu.cpp:128] err == 0. DefaultCPUAllocator: can't allocate memory: "
CUDA_WORDS = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 15.77 GiB of which 1.1 GiB"


def group(folder: Path, limit: str, used: str, cache: str = "inactive_file 0") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(limit)
    (folder / "memory.current").write_text(used)
    (folder / "memory.stat").write_text(f"anon 5\n{cache}\n")
    return folder


def test_a_container_has_what_its_group_leaves_with_cached_files_given_back(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/pod/container\n")
    root = tmp_path / "fs"
    group(root / "pod" / "container", str(300 * MIB), str(100 * MIB), f"inactive_file {20 * MIB}")
    assert machine_free(root, membership) == 220 * MIB
    group(root / "pod", str(210 * MIB), str(110 * MIB))
    assert machine_free(root, membership) == 100 * MIB, "the parent's limit holds, too"
    group(root / "pod", "max", str(110 * MIB))
    assert machine_free(root, membership) == 220 * MIB
    group(root / "pod" / "container", str(50 * MIB), str(100 * MIB))
    assert machine_free(root, membership) == 0


def test_an_older_kernel_keeps_the_numbers_elsewhere(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("3:cpu,memory:/box\n")
    folder = tmp_path / "fs" / "memory" / "box"
    folder.mkdir(parents=True)
    for name, text in (("limit_in_bytes", 90 * MIB), ("usage_in_bytes", 40 * MIB), ("stat", "total_inactive_file 0")):
        (folder / f"memory.{name}").write_text(str(text))
    assert machine_free(tmp_path / "fs", membership) == 50 * MIB


def test_the_machine_without_groups_has_what_is_available(tmp_path: Path) -> None:
    assert machine_free(tmp_path, tmp_path / "none") > 0


def test_the_budget_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "machine_free", lambda: 1000 * MIB)
    assert budget_bytes(CPU, 512, 1) == (512 * MIB, "memory_limit_mib")
    assert budget_bytes(CPU, None, 1) == (900 * MIB, "free memory of this machine, less a tenth")
    share, source = budget_bytes(CPU, None, 4)
    assert share == 225 * MIB
    assert source == "free memory of this machine, shared by 4 workers, less a tenth"


def test_a_limit_above_what_is_free_is_lowered_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "machine_free", lambda: 1000 * MIB)
    count, source = budget_bytes(CPU, 512, 2)
    assert count == 500 * MIB
    assert "less than memory_limit_mib 512" in source


@pytest.mark.skipif(not Mapped.now().data, reason="needs Linux's /proc")
def test_a_limit_makes_the_allocator_fail_with_all_facts() -> None:
    # In a process of its own: the heap of this one may hold enough released memory to need no more.
    script = "from tests.unit.test_memory import fail_at_a_limit; fail_at_a_limit()"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_small_blocks_come_from_memory_that_is_mapped_already() -> None:
    grow = """
import sys
from trainers.memory import MIB, Mapped, pool_small_blocks, settle
settle()
if sys.argv[1] == "pool":
    pool_small_blocks()
before = Mapped.now()
held = [bytearray(1000) for _ in range(5000)]
del held
held = [bytearray(2000) for _ in range(3000)]
print(Mapped.now().highest_since(before) / MIB)
"""
    grown = [
        float(subprocess.run([sys.executable, "-c", grow, how], capture_output=True, text=True, check=True).stdout)
        for how in ("pool", "none")
    ]
    assert grown[0] < 1.5 < 3 < grown[1]


def fail_at_a_limit() -> None:
    assert limit_memory(64 * MIB)
    try:
        held = torch.empty(20 * MIB, dtype=torch.uint8)
        with pytest.raises(RuntimeError) as caught:
            torch.empty(60 * MIB, dtype=torch.uint8)
        error = shortage(caught.value, CPU, batch=8, bptt=16, rank=1, step=3)
    finally:
        lift_limit()
    assert held.numel() == 20 * MIB
    assert is_out_of_memory(caught.value)
    assert error.reason is Reason.OUT_OF_MEMORY
    facts = error.facts
    assert (facts.asked, facts.batch, facts.bptt, facts.rank, facts.step) == (60 * MIB, 8, 16, 1, 3)
    assert facts.limit == 64 * MIB
    assert facts.used is not None
    assert 20 * MIB <= facts.used < 64 * MIB
    assert facts.free == facts.limit - facts.used
    assert "batch 8 x bptt 16 ran out of memory on the CPU: 60.0 MiB more were asked for" in error.message
    assert "a limit of 64.0 MiB" in error.message
    torch.empty(60 * MIB, dtype=torch.uint8)  # The limit is lifted.


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (RuntimeError(CPU_WORDS + "you tried to allocate 47600000 bytes. Error code 12"), 47_600_000),
        (torch.OutOfMemoryError(CUDA_WORDS), int(2.5 * 2**30)),
        (MemoryError(), None),
        (RuntimeError("could not create a primitive"), None),
        (RuntimeError("std::bad_alloc"), None),
    ],
)
def test_every_allocator_s_words_become_one_error(error: BaseException, asked: int | None) -> None:
    assert is_out_of_memory(error)
    assert shortage(error, CPU).facts.asked == asked


def test_other_errors_are_no_shortage() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.skipif(not Mapped.now().data, reason="needs Linux's /proc")
def test_the_highest_count_is_seen_after_it_is_over() -> None:
    # In a forked process the kernel counts the peak anew.
    read, write = os.pipe()
    if os.fork() == 0:
        base = Mapped.now()
        large = torch.empty(300 * MIB, dtype=torch.uint8)
        del large
        os.write(write, str(Mapped.now().highest_since(base) // MIB).encode())
        os._exit(0)
    os.wait()
    assert 300 <= int(os.read(read, 100)) <= 302
