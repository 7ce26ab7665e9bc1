"""What a key may be, the same for every store, so that a run can move between disk and S3."""

from __future__ import annotations

from jobs.errors import StorageError

#: Names that begin so are files being written (or left by a killed writer); they are never objects.
TEMP_PREFIX = ".hw-tmp-"


def key_problem(key: str) -> str | None:
    """Why this cannot be a key, or None if it can."""
    parts = key.split("/")
    if "" in parts:
        return "it is empty, or has an empty part"
    if "." in parts or ".." in parts:
        return "`.` and `..` are not allowed in it"
    if any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in key):
        return "it has control characters"
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in key):
        return "it is not valid Unicode"
    if any(part.startswith(TEMP_PREFIX) for part in parts):
        return f"names that begin with {TEMP_PREFIX} are kept for files being written"
    return None


def check_key(key: str) -> str:
    """The key itself; StorageError if it could leave the store or cannot be stored everywhere."""
    problem = key_problem(key)
    if problem:
        raise StorageError(f"{key!r} cannot be the key of a stored object: {problem}; use another name")
    return key


def check_prefix(prefix: str) -> str:
    """The prefix itself; StorageError if no key can begin with it."""
    if prefix:
        # A prefix may end in the middle of a part, or just behind a slash.
        check_key(prefix.removesuffix("/") if prefix.endswith("/") else prefix)
    return prefix
