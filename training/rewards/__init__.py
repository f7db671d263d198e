"""Rewards as named terms with weights and gates."""
