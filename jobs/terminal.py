"""Picks the display that a stream can show. Rich is loaded only for a terminal."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TextIO

from jobs.display import Display, Plain


def display_for(stream: TextIO, environ: Mapping[str, str] | None = None) -> Display:
    """The live picture if the stream is a terminal that can draw, else plain lines."""
    environ = os.environ if environ is None else environ
    if stream.isatty() and environ.get("TERM", "") not in ("", "dumb"):
        from jobs.live import Live

        return Live(stream)
    return Plain(lambda text: _write_line(stream, text))


def _write_line(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()
