"""Which version is served, who decided it, and applying that to a running server."""
