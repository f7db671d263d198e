"""Models behind an OpenAI-compatible server."""

from .connect import connect
