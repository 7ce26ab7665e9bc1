"""Tests of the charts: rendered by Helm, with no cluster."""
