"""`python -m pipeline doctor`: what this machine, its environment and the home lack, each with its fix."""
