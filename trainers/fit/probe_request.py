"""What a probe's process is asked to do. Plain data that travels as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from trainers.fit.sizes import Size

Purpose = Literal["probe", "meter", "soak"]
"""Run a few steps as training does; run them under the CPU's meter; run every kind of shape, and for longer."""


@dataclass(frozen=True)
class Request:
    """One size on one rank, in one fresh process."""

    purpose: Purpose
    spec: dict[str, Any]
    """The spec in JSON, batch, bptt and learning_rate in numbers."""
    data: str
    """Folder of the prepared data."""
    rank: int
    workers: int
    device: str
    budget: int | None
    """Bytes that the process may use for training; None: no limit."""
    timeout_s: float
    steps: int | None = None
    """Soak: so many ordinary steps, however long they take."""
    passes: int | None = None
    """Soak: all distinct shapes this often, each time in another random order."""

    @property
    def size(self) -> Size:
        """The size that is tried."""
        return Size(self.spec["batch"], self.spec.get("bptt"))

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """From `to_json`."""
        return cls(**document)
