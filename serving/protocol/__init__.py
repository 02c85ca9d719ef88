"""Messages and tensors in TensorFlow Serving's wire format, for client and server. Imports no TensorFlow."""
