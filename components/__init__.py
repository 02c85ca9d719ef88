"""The components of the pipeline. Imports neither pipeline/ nor serving/."""
