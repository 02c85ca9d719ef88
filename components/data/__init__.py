"""Raw data: IDX files, and where the real MNIST can be downloaded. No TensorFlow, no TFX."""
