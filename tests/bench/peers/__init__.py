"""The finders of other packages, each driven in its own environment on our model and step."""
