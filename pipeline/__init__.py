"""Wires the components into one DAG, runs it and explains what happened."""
