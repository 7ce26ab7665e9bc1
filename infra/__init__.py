"""The edges: object stores, Kubernetes, metrics and logs, each behind a small Protocol."""
