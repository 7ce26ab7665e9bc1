"""Runs on Kubernetes: from a spec to the objects that are sent, and their life from afar. No Ray, no torch."""
