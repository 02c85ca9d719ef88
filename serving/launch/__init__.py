"""Starts and stops the server of a home: a container, a binary or the embedded server."""
