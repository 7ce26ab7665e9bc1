"""Waits until a run's RayJob has ended; exit code 0 if it ended well. Arguments: run, namespace, seconds."""

import sys
import time

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

run, namespace, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
config.load_incluster_config()
api, last = client.CustomObjectsApi(), time.monotonic() + seconds
said = None
while time.monotonic() < last:
    try:
        job = api.get_namespaced_custom_object("ray.io", "v1", namespace, "rayjobs", run, _request_timeout=20)
    except ApiException as error:
        if error.status in (401, 403, 404):
            sys.exit(f"RayJob {run} of namespace {namespace} cannot be read ({error.reason}); is it installed?")
        job = {}
    except (OSError, HTTPError):
        job = {}
    status = job.get("status") or {}
    states = status.get("jobStatus") or "", status.get("jobDeploymentStatus") or ""
    if states != said and any(states):
        said = states
        print(f"{run}: {' '.join(states)}", flush=True)  # noqa: T201 - what the test says is read in its log
    if states[0] == "SUCCEEDED":
        sys.exit(0)
    if states[1] in ("Complete", "Failed", "ValidationFailed"):
        sys.exit(f"{run} ended with {' '.join(states)}: {status.get('message') or status.get('reason') or ''}")
    time.sleep(3)
sys.exit(f"{run} has not ended after {seconds:g} seconds")
