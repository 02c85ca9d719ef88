"""The commands of `python -m serving`. They parse arguments and print results; the layers below do the work."""
