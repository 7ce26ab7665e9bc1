"""Objects in S3, AWS's or any server that speaks it (conditional writes included)."""

from __future__ import annotations

import builtins
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.files import explained, replacing
from infra.keys import check_key, check_prefix, key_problem
from infra.s3_errors import Place, error_code, explain, status_code
from jobs.errors import ExistsError, NotFoundError, StorageError
from jobs.rundir import Entry

DELETE_BATCH = 1000
"""Keys that S3 deletes in one request at most."""
CONFLICT_TRIES = 5
"""S3 answers 409 to a conditional write that meets another one in flight; it is then asked again."""


class S3Store:
    """An `ObjectStore` over a bucket, or over a prefix in it; safe to share between threads and to pickle.

    Credentials come from the environment (or AWS's files) of each process, and never travel. Requests
    give up after 3 attempts of 3 s to connect and 30 s to answer.
    """

    def __init__(self, bucket: str, prefix: str = "", endpoint: str | None = None) -> None:
        """No request is made yet; StorageError if the settings cannot make one."""
        self.bucket = bucket
        self.prefix = prefix
        self.endpoint = endpoint
        self._client = _connect(endpoint, bucket)
        self._place = Place(self._client.meta.endpoint_url, bucket, str(self._client.meta.region_name))

    def __reduce__(self) -> tuple[type[S3Store], tuple[str, str, str | None]]:
        return S3Store, (self.bucket, self.prefix, self.endpoint)

    @property
    def uri(self) -> str:
        """`s3://bucket` or `s3://bucket/prefix`."""
        return f"s3://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")

    @property
    def flush_s(self) -> float:
        """Ten seconds: every put is a request that is paid for."""
        return 10.0

    def get(self, key: str) -> bytes:
        """The object's bytes."""
        with self._explained("read", key):
            answer = self._client.get_object(Bucket=self.bucket, Key=self._full(key))
            data: bytes = answer["Body"].read()
        return data

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Create or replace the object; with `if_absent`, exactly one of many writers wins."""
        full = self._full(key)
        with self._explained("write", key):
            if if_absent:
                self._create(full, key, data)
            else:
                self._client.put_object(Bucket=self.bucket, Key=full, Body=data)

    def _create(self, full: str, key: str, data: bytes) -> None:
        from botocore.exceptions import ClientError

        for attempt in range(CONFLICT_TRIES):
            try:
                self._client.put_object(Bucket=self.bucket, Key=full, Body=data, IfNoneMatch="*")
            except ClientError as error:
                if status_code(error) == 409 and attempt + 1 < CONFLICT_TRIES:
                    time.sleep(0.1 * 2**attempt)
                elif error_code(error) in ("PreconditionFailed", "412"):
                    # A write whose answer was lost is repeated by boto3 and then meets itself.
                    if _was_repeated(error) and self.get(key) == data:
                        return
                    raise ExistsError(f"{key} exists already in {self._place.where}") from error
                else:
                    raise
            else:
                return

    def get_file(self, key: str, path: Path) -> None:
        """Copy the object, in parallel parts if it is large; `path` is replaced atomically."""
        full = self._full(key)
        with explained("write", path), replacing(path) as file, self._explained("read", key):
            self._client.download_fileobj(self.bucket, full, file)

    def put_file(self, key: str, path: Path) -> None:
        """Create or replace the object from a file, in parallel parts if it is large."""
        full = self._full(key)
        with explained("read", path), open(path, "rb") as file, self._explained("write", key):
            self._client.upload_fileobj(file, self.bucket, full)

    def list(self, prefix: str) -> list[Entry]:
        """All objects whose key begins with `prefix`, sorted by key."""
        pages = self._pages(Prefix=self._full_prefix(check_prefix(prefix)))
        entries = [self._entry(item) for page in pages for item in page.get("Contents", [])]
        return sorted((one for one in entries if not key_problem(one.key)), key=lambda entry: entry.key)

    def names(self) -> builtins.list[str]:
        """First components of the keys that have more than one, sorted."""
        top = self._full_prefix("")
        pages = self._pages(Prefix=top, Delimiter="/")
        names = [item["Prefix"][len(top) : -1] for page in pages for item in page.get("CommonPrefixes", [])]
        return sorted(name for name in names if not key_problem(name))

    def delete(self, keys: builtins.list[str]) -> None:
        """Remove objects, a thousand in one request; those that are not there are fine."""
        full = [self._full(key) for key in keys]
        for start in range(0, len(full), DELETE_BATCH):
            batch = {"Objects": [{"Key": key} for key in full[start : start + DELETE_BATCH]], "Quiet": True}
            with self._explained("delete", ""):
                answer = self._client.delete_objects(Bucket=self.bucket, Delete=batch)
            for failure in answer.get("Errors", []):
                raise StorageError(
                    f"cannot delete {failure.get('Key')} in {self._place.where}: "
                    f"{failure.get('Code')}: {failure.get('Message')}"
                )

    def _pages(self, **request: str) -> builtins.list[dict[str, Any]]:
        with self._explained("list", ""):
            return [*self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, **request)]

    def _entry(self, item: dict[str, Any]) -> Entry:
        key = item["Key"].removeprefix(self._full_prefix(""))
        return Entry(key, item["Size"], item["LastModified"].timestamp())

    def _full(self, key: str) -> str:
        return self._full_prefix(check_key(key))

    def _full_prefix(self, prefix: str) -> str:
        return f"{self.prefix}/{prefix}" if self.prefix else prefix

    @contextmanager
    def _explained(self, action: str, key: str) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except RecursionError as error:
            # boto3 follows a redirect that names no region to itself until the stack is full.
            raise StorageError(
                f"cannot {action} {key or 'objects'} in {self._place.where}: it redirects elsewhere; "
                "check that --storage-endpoint begins with the right one of http:// and https://"
            ) from error
        except (BotoCoreError, ClientError, Boto3Error) as error:
            told = explain(error, self._place, action, key)
            if isinstance(told, NotFoundError) and action != "read":
                told = StorageError(told.message)
            raise told from error


def _was_repeated(error: Exception) -> bool:
    response = getattr(error, "response", None) or {}
    return bool(response.get("ResponseMetadata", {}).get("RetryAttempts", 0))


def _connect(endpoint: str | None, bucket: str) -> Any:  # noqa: ANN401 - boto3 has no types of its own
    """A client of its own session (boto3's default session is not safe between threads)."""
    from boto3.session import Session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    address = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
    # Servers that are not AWS's rarely have a name for each bucket, nor know the newest checksums.
    other: dict[str, Any] = {"s3": {"addressing_style": "path"}} if address else {}
    config = Config(
        connect_timeout=3,
        read_timeout=30,
        retries={"total_max_attempts": 3, "mode": "standard"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        **other,
    )
    try:
        session = Session()
        region = os.environ.get("AWS_REGION") or session.region_name or ("us-east-1" if address else None)
        return session.client("s3", endpoint_url=address, region_name=region, config=config)
    except (BotoCoreError, ValueError) as error:
        raise StorageError(f"cannot use s3://{bucket} at {address or 'AWS'}: {error}") from error
