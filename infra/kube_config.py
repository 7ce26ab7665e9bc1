"""Which cluster, and as whom: from kubeconfig as kubectl reads it, or from the account of the pod that we run in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.kube_errors import NoContextError

#: The kubernetes client's configuration, which has no types of its own.
Settings = Any
#: Where a pod finds the account that it runs as.
IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def load(context: str | None) -> tuple[Settings, str, str | None]:
    """The client's configuration, what to call the cluster, and the namespace that it names.

    KUBECONFIG or ~/.kube/config comes first, then the pod's account. NoContextError in one sentence if there is none.
    """
    from kubernetes.client import Configuration

    configuration = Configuration()
    files = [one for one in _kubeconfig().split(os.pathsep) if one and Path(one).expanduser().is_file()]
    if files:
        return configuration, *_from_files(configuration, files, context)
    if context is None and (IN_CLUSTER / "token").is_file():
        return configuration, *_from_pod(configuration)
    raise NoContextError(
        f"there is no kubeconfig at {_kubeconfig()}; set KUBECONFIG, or log in to the cluster as for kubectl"
    )


def _kubeconfig() -> str:
    return os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())


def _from_files(configuration: Settings, files: list[str], context: str | None) -> tuple[str, str | None]:
    """Fill the configuration; the context's name and its namespace."""
    from kubernetes.config import kube_config

    reading: Any = kube_config  # it has no types
    joined = os.pathsep.join(files)
    try:
        parts = [reading.KubeConfigMerger(file).config for file in files]
        # Of several files kubectl takes the first that names one; the package would take the last.
        chosen = context or next((name for part in parts if part and (name := part.safe_get("current-context"))), None)
        known = {
            str(one["name"]): one["context"].safe_get("namespace")
            for part in reversed(parts)
            if part
            for one in part.safe_get("contexts") or []
        }
        if chosen is None:
            raise NoContextError(f"{joined} has no current context; choose one of {_names(known)} with --context")
        if chosen not in known:
            raise NoContextError(f"there is no context {chosen} in {joined}; it has {_names(known)}")
        reading.load_kube_config(joined, context=chosen, client_configuration=configuration, persist_config=False)
    except NoContextError:
        raise
    except Exception as error:
        # The package and its YAML reader raise what they like for a broken file.
        raise NoContextError(f"{joined} cannot be used as a kubeconfig: {_sentence(error)}") from error
    return f"context {chosen}", known[chosen]


def _names(known: Mapping[str, object]) -> str:
    return ", ".join(sorted(known)) or "none"


def _from_pod(configuration: Settings) -> tuple[str, str | None]:
    from kubernetes import config
    from kubernetes.config import ConfigException

    loading: Any = config

    try:
        loading.load_incluster_config(client_configuration=configuration)
        return "this cluster", (IN_CLUSTER / "namespace").read_text().strip() or None
    except (ConfigException, OSError) as error:
        raise NoContextError(f"this pod's account cannot be used: {_sentence(error)}") from error


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
