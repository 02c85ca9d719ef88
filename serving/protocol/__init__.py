"""TensorFlow Serving's messages and tensors on the wire, shared by client and server. No TensorFlow import."""
