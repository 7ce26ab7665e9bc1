"""Tables: reading, splitting and preparing them. What is learned from data is learned from training rows alone."""
