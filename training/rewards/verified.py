"""What a trained verifier says of an attempt, as a reward (VTS-V, arXiv 2506.07235)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from threading import Lock

import mm
from mm.local.adapters import base_of
from mm.vlm import VLM
from vision.verifier import score

from .terms import Attempt

_loading = Lock()
"""Answers are rewarded by many threads: the first loads, which `lru_cache` would let all do."""


def verified(attempt: Attempt, *, verifier: str) -> float:
    """The probability, from 0 to 1, that what was seen and said is enough, by a trained verifier.

    It is asked of its own base model, which is loaded once more and does not learn; 0 where it
    cannot tell.

    Args:
        verifier: the folder that `mm train dpo vts-v-verifier` wrote.

    Raises:
        ModelUnavailable: the folder holds no adapter, or its base model cannot be loaded.
    """
    return score(attempt.branch, vlm=_loaded(verifier)) or 0.0


def _loaded(folder: str) -> VLM:
    with _loading:
        return _kept(folder)


@lru_cache(1)
def _kept(folder: str) -> VLM:
    return mm.load(base_of(Path(folder)), verifier=folder)
