"""A person's own data: read, checked, shown, and turned into rows that train."""

from .dataset import DataSet, read_data, refuse, split_names
from .images import Access
from .readers import SUFFIXES, BadData, is_data
from .row import Row

__all__ = [
    "SUFFIXES",
    "Access",
    "BadData",
    "DataSet",
    "Row",
    "is_data",
    "read_data",
    "refuse",
    "split_names",
]
