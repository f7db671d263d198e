"""Rows to batches, through the one token builder."""
