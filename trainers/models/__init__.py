"""Networks, as plain `torch.nn` modules that know nothing of specs, runs or Ray."""
