"""What went wrong with S3, as one sentence. Never prints a secret key."""

from __future__ import annotations

import os
from dataclasses import dataclass

from jobs.errors import NoBucketError, NotFoundError, StorageError

KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

BAD_KEYS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "InvalidSecurity",
    "AuthFailure",
    "UnrecognizedClientException",
}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
DENIED = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden", "403", "401"}
WRONG_REGION = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "TemporaryRedirect",
    "301",
}
FULL = {"XMinioStorageFull", "InsufficientStorage", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "507"}


@dataclass(frozen=True)
class Place:
    """Where a request went, for the messages."""

    address: str
    bucket: str
    region: str

    @property
    def where(self) -> str:
        """The bucket and the server."""
        return f"s3://{self.bucket} at {self.address}"


def error_code(error: Exception) -> str:
    """S3's code for the error, or an empty string if no server answered."""
    return str(_detail(error, "Code"))


def status_code(error: Exception) -> int:
    """HTTP status of the answer, or 0 if there was none."""
    response = getattr(error, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def explain(error: Exception, place: Place, action: str, key: str = "") -> StorageError:
    """The StorageError of a botocore error; `action` is a verb such as `write`."""
    what = f"cannot {action} {key + ' in ' if key else ''}{place.where}"
    if not getattr(error, "response", None):
        return StorageError(_without_secrets(_unanswered(error, place, what)))
    code, detail = error_code(error), str(_detail(error, "Message"))
    if code in ("NoSuchKey", "404") and key:
        return NotFoundError(f"{key} does not exist in {place.where}")
    kind = NoBucketError if code == "NoSuchBucket" else StorageError
    return kind(_without_secrets(_answered(code, detail, place, what)))


def _answered(code: str, detail: str, place: Place, what: str) -> str:
    """The sentence for an error that the server told."""
    said = f"{code}: {detail}".strip(": .") or "no reason given"
    if code in ("NoSuchBucket", "404"):
        return f"bucket {place.bucket} does not exist at {place.address}; create it, or name another in --storage"
    if code in EXPIRED:
        return f"the credentials for {place.where} have expired ({said}); renew them and set {KEYS} again"
    if code in BAD_KEYS:
        return f"{_access_key()} is not accepted by {place.address}: {said}; set {KEYS} to keys of that server"
    if code in DENIED:
        return f"{what}: access is denied to {_access_key()} ({said}); grant it read, write, list and delete there"
    if code in WRONG_REGION:
        return f"{place.where} is not in region {place.region} ({said}); set AWS_REGION to the bucket's region"
    if code == "RequestTimeTooSkewed":
        return f"{what}: this machine's clock is wrong ({said}); set it"
    if code in FULL:
        return f"{what}: no space is left there ({said}); free some, or choose another --storage"
    return f"{what}: {said}"


def _unanswered(error: Exception, place: Place, what: str) -> str:
    """The sentence for an error without an answer, by the name of botocore's class."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"}:
        return f"{what}: there are no complete credentials; set {KEYS}, or a profile in AWS_PROFILE"
    if "SSLError" in names:
        return f"{what}: TLS failed ({error}); use http:// for a server without TLS, or set AWS_CA_BUNDLE"
    if names & {"EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError"}:
        return f"{what}: no S3 server answers there; check --storage-endpoint, AWS_ENDPOINT_URL and the network"
    if names & {"ReadTimeoutError", "ConnectionClosedError", "HTTPClientError"}:
        return f"{what}: the connection broke ({error}); check that {place.address} is an S3 server"
    if "ResponseParserError" in names:
        return f"{what}: what answers at {place.address} is not an S3 server; check --storage-endpoint"
    return f"{what}: {error}"


def _detail(error: Exception, name: str) -> object:
    response = getattr(error, "response", None) or {}
    return response.get("Error", {}).get(name, "")


def _access_key() -> str:
    """The access key id, cut short: people paste a secret in its place."""
    value = os.environ.get("AWS_ACCESS_KEY_ID", "")
    return f"AWS_ACCESS_KEY_ID {value[:4]}..." if value else "the access key of the AWS profile"


def _without_secrets(text: str) -> str:
    text = " ".join(text.split())
    for name in SECRETS:
        value = os.environ.get(name)
        # A shorter value is no secret, and masking it would make the sentence unreadable.
        if value and len(value) >= 4:
            text = text.replace(value, "***")
    return text
