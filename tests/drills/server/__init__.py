"""Attacks on the embedded server, and what it did."""
