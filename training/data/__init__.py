"""A person's own data: read, checked, shown, and turned into rows that train."""

from .row import Row

__all__ = ["Row"]
