"""Tests on a real Kubernetes. They run only where HIGHWATER_TEST_CONTEXT names kubectl's current context."""
