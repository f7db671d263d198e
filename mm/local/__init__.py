"""Models whose weights are here."""

from .load import load
