"""What went wrong with Kubernetes, as one sentence and a class that tells the cause. Never prints a token."""

from __future__ import annotations

import json
from typing import Any

from jobs.errors import HighwaterError, Reason

HOW_TO_INSTALL_KUBERAY = (
    "install the KubeRay operator (its chart kuberay-operator, 1.6 or later), or ask whoever runs the cluster"
)
#: Causes of an invalid object that are told; more would hide the first.
SHOWN = 3
#: Letters of a server's own words that are shown.
LONGEST = 600


class KubeError(HighwaterError):
    """Kubernetes cannot be used, or refuses what was asked."""

    reason = Reason.BAD_SPEC


class NoContextError(KubeError):
    """No kubeconfig, no such context in it, or credentials in it that cannot be made."""


class UnauthorizedError(KubeError):
    """The cluster does not accept the credentials (401)."""


class ForbiddenError(KubeError):
    """The person or service account may not do it, or a policy of the cluster refuses the object (403)."""


class NotFoundInKubeError(KubeError):
    """There is no such object (404)."""


class KubeRayMissingError(KubeError):
    """The cluster does not know KubeRay's kinds (404 on ray.io)."""


class ConflictError(KubeError):
    """The object exists and is another one, or has changed meanwhile (409)."""

    reason = Reason.NAME_IN_USE


class InvalidError(KubeError):
    """The server does not take the object as it is (400, 422)."""


class ThrottledError(KubeError):
    """The server asks to come back later, and did so too often (429)."""

    reason = Reason.RAY_UNREACHABLE


class UnreachableError(KubeError):
    """Nothing answered, or the server failed (5xx)."""

    reason = Reason.RAY_UNREACHABLE


#: Trouble that may be over in a moment: a watcher asks again.
PASSING = (UnreachableError, ThrottledError)


def explain(status: int, data: bytes, what: str, where: str, *, ray: bool = False) -> KubeError:
    """The error of an answer with this HTTP status. Pure.

    `what` is the request as a person would say it ("create rayjobs demo"), `where` context and namespace; `ray`
    says that the kind is KubeRay's.
    """
    said = _status(data)
    words = _words(said, data)
    if status == 401:
        return UnauthorizedError(
            f"{where} does not accept the credentials of your kubeconfig (401); log in to it again"
        )
    if status == 403:
        return _forbidden(words, what, where)
    if status == 404:
        return _not_found(said, what, where, ray=ray)
    if status == 409:
        return ConflictError(f"cannot {what} in {where}: {words or 'it exists already, or has changed meanwhile'}")
    if status in (400, 422):
        return InvalidError(f"cannot {what} in {where}: the server does not take it: {_causes(said) or words}")
    if status == 429:
        return ThrottledError(f"cannot {what} in {where}: the server has too many requests (429); try again later")
    return UnreachableError(
        f"cannot {what} in {where}: the server failed (HTTP {status}: {words or 'no reason given'})"
    )


def unreachable(what: str, where: str, address: str, cause: str) -> UnreachableError:
    """The error of a request that nobody answered. Pure."""
    return UnreachableError(
        f"cannot {what} in {where}: nothing answers at {address} ({cause}); "
        "check that the cluster runs, and the network or VPN to it"
    )


def _forbidden(words: str, what: str, where: str) -> ForbiddenError:
    if " cannot " in words and " resource " in words:
        # The server's own sentence names user, verb, resource and namespace.
        return ForbiddenError(
            f"you may not {what} in {where}: {words}; ask for the role highwater-user in that namespace"
        )
    if "exceeded quota" in words:
        return ForbiddenError(f"cannot {what} in {where}: {words}; free some of it, or ask for less")
    return ForbiddenError(f"cannot {what} in {where}: a policy of the cluster refuses it: {words or 'no reason given'}")


def _not_found(said: dict[str, Any], what: str, where: str, *, ray: bool) -> KubeError:
    details = said.get("details") or {}
    if details.get("kind") == "namespaces":
        name = details.get("name")
        return NotFoundInKubeError(
            f"cannot {what} in {where}: there is no namespace {name}; make it with: kubectl create namespace {name}"
        )
    if ray and not details.get("name"):
        return KubeRayMissingError(
            f"cannot {what} in {where}: KubeRay is not installed there; {HOW_TO_INSTALL_KUBERAY}"
        )
    return NotFoundInKubeError(f"cannot {what} in {where}: there is none")


def _status(data: bytes) -> dict[str, Any]:
    """The `Status` object of an error answer; empty if it is none."""
    try:
        document = json.loads(data)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _words(said: dict[str, Any], data: bytes) -> str:
    text = str(said["message"]) if said.get("message") else data.decode("utf-8", "replace")
    text = " ".join(text.split())
    return "" if text.startswith("<") else text[:LONGEST]


def _causes(said: dict[str, Any]) -> str:
    causes = (said.get("details") or {}).get("causes") or []
    told = [f"{one.get('field', '')}: {one.get('message', '')}".strip(": ") for one in causes if isinstance(one, dict)]
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return ("; ".join(told[:SHOWN]) + more)[:LONGEST]
