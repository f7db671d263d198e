"""Data, rewards, fine-tuning, evaluation, and how the bundled models are made."""
