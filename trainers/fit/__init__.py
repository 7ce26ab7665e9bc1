"""Fit: the largest batch x bptt that memory, speed and stability allow, found without crashing."""
