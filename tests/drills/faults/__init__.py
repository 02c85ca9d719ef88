"""The faults, by kind.

A fault is a function of (product, probe). It returns what happened, in words, and raises DrillFailed if the product did
not do what it should. drill.py checks what must be true after every fault.
"""
