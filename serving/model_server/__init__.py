"""A stand-in for tensorflow_model_server where no container engine answers."""
