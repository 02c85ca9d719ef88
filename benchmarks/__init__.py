"""Measurements. `make bench` runs them and writes the numbers into README.md and docs/benchmarks.md."""
