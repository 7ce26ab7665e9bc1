"""Documents in, split by document: every place and form that a corpus may come in."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import zlib
from dataclasses import dataclass

from jobs.errors import DataError
from trainers.sources import Kind, files

#: The split's own seed: runs with other seeds are measured on the same documents.
SPLIT_SEED = 0
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_TEXTS = Kind(
    noun="corpus",
    sample=".jsonl.gz",
    single=(".txt", ".jsonl", ".jsonl.gz"),
    inside=(".txt",),
    forms="a .txt, .jsonl or .jsonl.gz file, or a folder of .txt files",
)


@dataclass(frozen=True)
class Corpus:
    """Documents that hold something, in a fixed order, and what they were read from."""

    source: str
    documents: tuple[str, ...]
    sha256: str
    """Of the bytes that were read; for a folder, of names and contents in order."""


@dataclass(frozen=True)
class Split:
    """Documents for training and for validation."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    by_document: bool
    """False where the corpus is a single document, which was cut once, near its end."""


def read(source: str, endpoint: str | None = None) -> Corpus:
    """All documents of a source, as the spec's `data.source` describes it.

    Raises DataError (missing, not UTF-8, a line without `text`, nothing but white space) or
    StorageError, each with one sentence.
    """
    digest = hashlib.sha256()
    documents: list[str] = []
    count = 0
    for name, content in files(source, _TEXTS, endpoint):
        count += 1
        digest.update(b"" if name == source else f"{name}\0{len(content)}\0".encode())
        digest.update(content)
        documents += _documents(name, content)
    if count == 0:
        raise DataError(f"{source} has no .txt files; data.source must be {_TEXTS.forms}")
    if not documents:
        raise DataError(f"{source} holds no text, only white space; put text into it or change data.source")
    return Corpus(source, tuple(documents), digest.hexdigest())


def split(documents: tuple[str, ...], validation_share: float) -> Split:
    """Documents shuffled by a fixed seed, the first share for validation, at least one on each side.

    A document is never divided, except where there is only one: that is cut once, after white space
    near the share's beginning, so that validation is the later text.
    """
    if len(documents) == 1:
        text = documents[0]
        cut = round(len(text) * (1 - validation_share))
        space = next((i for i in range(cut, max(0, cut - 1000), -1) if text[i - 1].isspace()), cut)
        return Split((text[:space],), (text[space:],), by_document=False)
    shuffled = list(documents)
    random.Random(SPLIT_SEED).shuffle(shuffled)
    count = min(max(1, round(len(shuffled) * validation_share)), len(shuffled) - 1)
    return Split(tuple(shuffled[count:]), tuple(shuffled[:count]), by_document=True)


def _documents(name: str, content: bytes) -> list[str]:
    """The documents of one file, without those that hold only white space."""
    if name.startswith(("bundled:", "cache:")) or name.endswith(".jsonl.gz"):
        texts = _json_lines(name, _decode(name, _unzip(name, content)))
    elif name.endswith(".jsonl"):
        texts = _json_lines(name, _decode(name, content))
    elif name.endswith(".txt"):
        texts = [_decode(name, content)]
    else:
        raise DataError(f"{name} is of no known form; data.source must be {_TEXTS.forms}")
    return [text for text in texts if text and not text.isspace()]


def _unzip(name: str, content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} is not a whole gzip file ({error}); write it again") from error


def _decode(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig" if content.startswith(b"\xef\xbb\xbf") else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 at byte {error.start}; convert it to UTF-8") from error


def _json_lines(name: str, content: str) -> list[str]:
    texts: list[str] = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name}, line {number} is not JSON ({error}); each line must be an object") from error
        text = row.get("text") if isinstance(row, dict) else None
        if not isinstance(text, str):
            raise DataError(f"{name}, line {number} has no text under the key `text`; each line must have one")
        if _HALF_PAIR.search(text):
            raise DataError(f"{name}, line {number} has half of a surrogate pair in its text; write it as UTF-8")
        texts.append(text)
    return texts
