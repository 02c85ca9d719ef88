"""The commands of `python -m serving`. They parse and print; the work is done in the layers below."""
