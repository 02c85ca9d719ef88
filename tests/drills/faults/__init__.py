"""The faults, by kind.

A fault is a function of (product, probe). It returns a description of what happened, and raises DrillFailed if the
product did not behave as required. drill.py checks the conditions that must hold after every fault.
"""
