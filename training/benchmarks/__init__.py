"""Measuring what the engine, replay and training are worth."""
