"""Measures how often strategies are right, beside controls, and with what certainty."""
