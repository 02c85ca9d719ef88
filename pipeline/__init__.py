"""Connects the components into one DAG, runs it and reports the result."""
