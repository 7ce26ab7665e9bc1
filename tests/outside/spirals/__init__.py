"""Two spirals, and a network that tells them apart."""
