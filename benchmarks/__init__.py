"""Measurements behind the README's numbers: `make bench` runs them and writes the numbers there."""
