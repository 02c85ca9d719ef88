"""Speed and behaviour of a server with a pushed model."""
