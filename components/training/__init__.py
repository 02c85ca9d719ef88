"""Training: the network, a step, the loop, and the exported SavedModel. No TFX."""
