"""Pushed versions: publishing, manifests, weight hashes, and which version is served. No TensorFlow, no TFX."""
