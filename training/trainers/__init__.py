"""TRL's trainers over batches of our own."""
