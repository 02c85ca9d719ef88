"""Validation of a model: verdicts, the predictions of the evaluation, and a server on trial. No TFX."""
