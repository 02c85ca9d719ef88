"""Faults injected into a home that is being served: what happens, and which version is served before and after."""
