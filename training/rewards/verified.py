"""What a trained verifier says of an attempt, as a reward (VTS-V, arXiv 2506.07235)."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from threading import Lock

import mm
from mm.local.adapters import base_of
from mm.vlm import VLM
from training.data import BadData
from vision.verifier import read_verifier, score

from .terms import Attempt, Term

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


def paying(folder: str) -> Term:
    """The term that asks the verifier in `folder`.

    Raises:
        BadData: it is read by `logratio`, which compares with weights that GRPO changes.
        UserError: `folder` holds no verifier.
    """
    if read_verifier(Path(folder)).kind != "score":
        raise BadData(
            f"--verifier {folder} was trained on pairs of --kind trajectory or step: give one that "
            "was on pairs of --kind verdict"
        )
    return partial(verified, verifier=folder)


def _loaded(folder: str) -> VLM:
    with _loading:
        return _cached(folder)


@lru_cache(1)
def _cached(folder: str) -> VLM:
    return mm.load(base_of(Path(folder)), verifier=folder)
