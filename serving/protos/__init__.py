"""Wire-compatible messages: serving.proto and what `make protos` generates from it."""
