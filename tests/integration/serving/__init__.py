"""The serving protocol, against whichever backend SERVING_BACKEND names."""
