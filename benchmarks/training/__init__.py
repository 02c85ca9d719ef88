"""Speed, memory, scores and resuming of the training."""
