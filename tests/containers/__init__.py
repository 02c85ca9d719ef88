"""The product with a real container engine: `python -m tests.containers` (`make test-containers`)."""
