"""Fine-tuning on a person's own rows: `mm train`."""
