"""One set of weights that serves any number of conversations at once."""

from .engine import Engine, RequestOptions
