"""Measuring whether looking again helps."""

from .command import run_cli as run_cli
