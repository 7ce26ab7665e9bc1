"""Numbers as people read them. Pure."""

from __future__ import annotations

import math


def duration(seconds: float) -> str:
    """`4.2 s`, `1:05`, `2:00:07` or `3 d 4 h`; a dash for what is not a number."""
    if not math.isfinite(seconds):
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{min(seconds, 59):.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def quantity(value: float) -> str:
    """Three or four digits that count, with k, M or G: `987`, `12.3k`, `4.56M`."""
    if not math.isfinite(value):
        return str(value)
    for least, divisor, suffix in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / divisor:.3g}{suffix}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def size(count: float) -> str:
    """Bytes in binary units: `12.5 MiB`."""
    for suffix in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if suffix == "B" else f"{count:.1f} {suffix}"
        count /= 1024
    return f"{count:.1f} TiB"


def rate(value: float) -> str:
    """A learning rate: `3.00e-03`."""
    return f"{value:.2e}"
