"""Traces on disk: a JSON line each in traces.jsonl, and the pictures as PNGs named by their ids."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .trace import Trace


def save_traces(traces: Iterable[Trace], folder: str | Path) -> None:
    raise NotImplementedError


def load_traces(folder: str | Path) -> list[Trace]:
    raise NotImplementedError
