"""How others write rows, and what is read of them."""

from .registry import FORMATS, WRITABLE, from_native, recognise, to_native

__all__ = ["FORMATS", "WRITABLE", "from_native", "recognise", "to_native"]
