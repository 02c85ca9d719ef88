"""What each stage of the pipeline does. Imports neither pipeline/ nor serving/."""
