"""The commands of `python -m serving`: parse arguments, call the layers below and print results."""
