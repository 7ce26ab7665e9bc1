"""Text on its way into a log stream: cut into lines, secrets masked."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import TextIO

from jobs.errors import StorageError
from jobs.streams import StreamWriter

SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN")
MASK = "***"
SHORTEST_SECRET = 4
"""Shorter values are no secrets, and masking them would make a log unreadable."""
LONGEST_LINE = 64 * 1024
"""Text without an end of line is let through beyond this many characters."""
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def secrets_in(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Values that must not be printed, longest first, so that one inside another hides with it."""
    values = {environment.get(name, "").strip() for name in SECRETS}
    return tuple(sorted((one for one in values if len(one) >= SHORTEST_SECRET), key=len, reverse=True))


def mask(text: str, secrets: tuple[str, ...]) -> str:
    """The text with every secret replaced by `***`."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


class LogTee(io.TextIOBase):
    """A text file that writes lines to a stream, secrets masked, and everything to another file as it came.

    The secrets are those of the environment at construction. Safe to use from several threads.
    """

    def __init__(
        self, writer: StreamWriter, also: TextIO | None = None, secrets: tuple[str, ...] | None = None
    ) -> None:
        """`also` is a file such as the real stdout; it is never closed here."""
        self._writer, self._also = writer, also
        self._secrets = secrets_in(os.environ) if secrets is None else secrets
        self._rest = ""
        self._lock = threading.RLock()

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Take text; its whole lines go on at once."""
        if self._also is not None:
            self._also.write(text)
        with self._lock:
            whole, end, self._rest = (self._rest + text).rpartition("\n")
            if end:
                self._emit(mask(whole, self._secrets) + end)
            if len(self._rest) > LONGEST_LINE:
                self._let_through()
        return len(text)

    def _let_through(self) -> None:
        """Make a line of an endless one, but keep back what may be the beginning of a secret."""
        rest = mask(self._rest, self._secrets)
        keep = max((len(one) for one in self._secrets), default=1) - 1
        cut = len(rest) - keep
        self._emit(rest[:cut] + "\n")
        self._rest = rest[cut:]

    def flush(self) -> None:
        """Flush the other file; the stream is flushed by who owns it."""
        if self._also is not None:
            self._also.flush()

    def close(self) -> None:
        """Pass on a last line without an end."""
        with self._lock:
            if self._rest:
                self._emit(mask(self._rest, self._secrets) + "\n")
            self._rest = ""
        super().close()

    def _emit(self, text: str) -> None:
        self._writer.write(text.encode(errors="replace"))


@contextmanager
def handler(tee: LogTee) -> Iterator[None]:
    """Python's logging from INFO on goes to the tee as well, until exit."""
    root = logging.getLogger()
    one = logging.StreamHandler(tee)
    one.setFormatter(logging.Formatter(FORMAT))
    one.setLevel(logging.INFO)
    level = root.level
    root.addHandler(one)
    root.setLevel(min(level, logging.INFO) or logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(one)
        root.setLevel(level)


@contextmanager
def logging_to(writer: StreamWriter) -> Iterator[None]:
    """Every logging record of this process from INFO on also goes to the stream, secrets masked, until exit."""
    tee = LogTee(writer)
    with handler(tee):
        try:
            yield
        finally:
            tee.close()
            # A log that cannot be stored must neither hide why the block ended nor end a run that is done.
            with suppress(StorageError):
                writer.flush()


@contextmanager
def output_to(writer: StreamWriter) -> Iterator[None]:
    """As `logging_to`, and what is printed goes to the stream as well as to where it would have gone."""
    out, err = LogTee(writer, sys.stdout), LogTee(writer, sys.stderr)
    with logging_to(writer), redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        finally:
            out.close()
            err.close()
