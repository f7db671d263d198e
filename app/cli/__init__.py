"""The `mm` command."""

from .main import cli, main, run
