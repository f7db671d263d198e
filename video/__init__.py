"""Looking again in time."""
