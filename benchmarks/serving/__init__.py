"""Speed and behaviour of a server on a pushed model."""
