"""What is particular about each model family."""

from .registry import FAMILIES, Family, family_of
