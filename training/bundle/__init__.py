"""Makes the bundled models from nothing: `python -m training.bundle`."""
