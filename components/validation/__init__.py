"""Validation of a model: verdicts, the predictions of the evaluation, and a temporary server. No TFX."""
