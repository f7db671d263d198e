"""The page: drop an image, ask, and see where the model looked."""
