"""Decides which version is served, records who decided it, and applies it to a running server."""
