"""What the benchmarks share: a verdict."""

from __future__ import annotations


def exit_code(met: bool) -> int:
    """0 if the goal is met; says so."""
    print("goal met" if met else "GOAL MISSED", flush=True)
    return 0 if met else 1
