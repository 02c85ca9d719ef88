"""Messages and tensors in TensorFlow Serving's wire format, shared by client and server. Imports no TensorFlow."""
