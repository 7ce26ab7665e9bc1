"""What a verb prints: text for people or one JSON document on stdout, complaints on stderr."""

from __future__ import annotations

import json
import sys
from typing import Any


def say(text: str) -> None:
    """A line on stdout, at once: some verbs say one now and the next in an hour."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    """A line on stderr."""
    sys.stderr.write(text + "\n")


def write(data: bytes) -> None:
    """Bytes on stdout, at once."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def print_json(document: Any) -> None:  # noqa: ANN401 - any JSON
    """One document on stdout."""
    say(json.dumps(document, indent=1, ensure_ascii=False))
