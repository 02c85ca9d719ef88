"""Injects faults into a home that is being served, and checks which version is served before and after."""
