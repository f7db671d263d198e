"""Looking again at a picture."""
