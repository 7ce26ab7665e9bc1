"""Opens the store that a URI names, and finds out early whether it can be used."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from urllib.parse import unquote, urlsplit

from infra.disk import DiskStore
from infra.keys import key_problem
from infra.s3 import S3Store
from jobs.errors import ExistsError, StorageError
from jobs.rundir import ObjectStore

__all__ = ["DiskStore", "S3Store", "check", "is_local", "open_store"]

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
ALLOWED = "give a folder, file:///folder or s3://bucket/prefix"


def open_store(uri: str, endpoint: str | None = None) -> ObjectStore:
    """The store at `uri`: a folder (relative, `~`, absolute, file://) or `s3://bucket[/prefix]`.

    Nothing is read or written yet. `endpoint` is the address of an S3 server that is not AWS's; without
    it, AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL. StorageError if the address cannot be one.
    """
    scheme = SCHEME.match(uri)
    if scheme is None and not re.match(r"(s3|file):", uri, re.IGNORECASE):
        return DiskStore(_folder(uri))
    match scheme and scheme[1].lower():
        case "s3":
            return _s3(uri[len("s3://") :], uri, endpoint)
        case "file":
            return DiskStore(_file_uri(uri))
        case _:
            raise StorageError(f"{uri!r} is not a storage that is known here; {ALLOWED}")


def is_local(uri: str) -> bool:
    """Whether the storage is a folder, which other machines may not see."""
    return not uri.lower().startswith("s3://")


def _folder(text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise StorageError(f"{text!r} cannot be a storage folder; {ALLOWED}")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise StorageError(f"{text!r} names the home of a user who does not exist here; {ALLOWED}") from error


def _file_uri(uri: str) -> Path:
    rest = unquote(uri[len("file://") :])
    path = rest.removeprefix("localhost")
    if not path.startswith("/"):
        raise StorageError(f"{uri!r} names a machine or a relative folder; write file:///folder for a local one")
    return _folder(path)


def _s3(rest: str, uri: str, endpoint: str | None) -> S3Store:
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if not BUCKET.fullmatch(bucket):
        raise StorageError(
            f"{uri!r} has no valid bucket name: 3 to 63 lowercase letters, digits, dots and hyphens; {ALLOWED}"
        )
    problem = key_problem(prefix) if prefix else None
    if problem or "?" in rest or "#" in rest:
        raise StorageError(f"{uri!r} cannot be a storage: {problem or '`?` and `#` are not allowed in it'}; {ALLOWED}")
    return S3Store(bucket, prefix, _endpoint(endpoint))


def _endpoint(endpoint: str | None) -> str | None:
    if not endpoint:
        return None
    parts = urlsplit(endpoint)
    if parts.username or parts.password:
        raise StorageError("the storage endpoint has a user or password in it; set them as AWS_ACCESS_KEY_ID instead")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StorageError(f"{endpoint!r} is not the address of an S3 server; write http(s)://host:port")
    return endpoint


def check(store: ObjectStore) -> None:
    """StorageError, in one sentence, unless the store can write, read, list and delete, and create exclusively.

    Leaves nothing behind. Costs six small requests, so ask it once, before any worker starts.
    """
    key = f".highwater-probe/{secrets.token_hex(8)}"
    data = key.encode()
    store.put(key, data)
    try:
        _probe(store, key, data)
    finally:
        store.delete([key])


def _probe(store: ObjectStore, key: str, data: bytes) -> None:
    if store.get(key) != data:
        raise StorageError(f"{store.uri} does not give back what was written to it; choose another --storage")
    if [entry.key for entry in store.list(key)] != [key]:
        raise StorageError(f"{store.uri} does not list what was just written to it; choose a consistent --storage")
    try:
        store.put(key, data, if_absent=True)
    except ExistsError:
        return
    raise StorageError(
        f"{store.uri} ignores If-None-Match, which keeps two runs from one name; use a newer S3 server for --storage"
    )
