"""Reads rewards as recipes and flags write them, and names the sums that papers use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from mm.errors import UserError
from mm.own_functions import is_own, own_function
from training.data import BadData

from .terms import (
    R_GRPO,
    R_GRPO_CODE,
    TERMS,
    Mix,
    Term,
    WeightedTerm,
    accuracy,
    looked,
    thought_and_answer,
)
from .verified import paying
from .video_rft import consistency, regression, rouge, transcription, typed_accuracy

VIDEO_TERMS: Mapping[str, Term] = {
    "typed_accuracy": typed_accuracy,
    "regression": regression,
    "transcription": transcription,
    "rouge": rouge,
}
"""Terms of VideoRFT that need no checkpoint."""

VERIFIER = "verifier"
"""The term that asks a trained verifier, whose folder is named apart."""

ANSWER_ONLY: Mix = (WeightedTerm("accuracy", accuracy),)

NO_GATE: Mix = (*R_GRPO[:-1], WeightedTerm("region", looked, weight=0.5))
"""R_GRPO that pays for looking even where the answer is wrong: a control."""

REASON_RFT: Mix = (
    WeightedTerm("accuracy", accuracy),
    WeightedTerm("format", thought_and_answer),
)
"""Reason-RFT (2503.20752), its default sum."""

VIDEO_RFT = ("video-rft", "video-rft-no-gate", "video-rft-code")
"""Names of VideoRFT's sums, made for a SigLIP checkpoint."""

MIXES: Mapping[str, Mix] = {
    "accuracy": ANSWER_ONLY,
    "r-grpo": R_GRPO,
    "r-grpo-code": R_GRPO_CODE,
    "r-grpo-no-gate": NO_GATE,
    "reason-rft": REASON_RFT,
}

CONSISTENCY = "consistency"
"""The term that compares thoughts with frames, by a SigLIP checkpoint that is named apart. Its gate
is open from any number above 0 on, as in VideoRFT's sums."""

_KEYS = {"term", "weight", "gate"}
"""What a mapping may say of a term."""


def video_rft(name: str, siglip: str | None) -> Mix:
    """VideoRFT (2505.12434): format, accuracy by the item's type, and consistency with the frames,
    which counts where the accuracy is above 0; `name` is one of `VIDEO_RFT`.

    Raises:
        BadData: no SigLIP checkpoint is named.
    """
    if not siglip:
        raise BadData(f"rewards {name!r} compare thoughts with frames: give --siglip, a checkpoint")
    released = name.endswith("code")
    gate = None if name.endswith("no-gate") else "accuracy"
    right = partial(typed_accuracy, released=released)
    fits = partial(consistency, siglip=siglip, released=released)
    return (
        WeightedTerm("accuracy", right),
        WeightedTerm("format", partial(thought_and_answer, released=released)),
        WeightedTerm("consistency", fits, gate=gate, part=True),
    )


def read_mixes(
    rewards: object,
    by_source: Mapping[str, object] | None = None,
    *,
    siglip: str | None = None,
    verifier: str | None = None,
) -> dict[str, Mix]:
    """Mixes by a row's source, `rewards` under "" for all other sources.

    `siglip` is a checkpoint for those of VideoRFT, `verifier` the folder of one for that term.

    Raises:
        BadData: one of them is no mix.
    """
    named = dict(by_source or {})
    read = partial(read_mix, siglip=siglip, verifier=verifier)
    mixes = {str(source): read(value) for source, value in named.items()}
    return {**mixes, "": read(rewards)} if rewards else mixes


def read_mix(written: object, *, siglip: str | None = None, verifier: str | None = None) -> Mix:
    """The mix that a recipe or a flag writes.

    The name of one of `MIXES`; or a mapping from names to weights, or to mappings of `term` (the
    name itself by default), `weight` and `gate`; or the same as a sum, such as
    "accuracy + 0.5*looked@accuracy", whose gate stands after the @. A term is one of `TERMS`,
    "verifier" (what the trained one in the folder `verifier` says), "consistency" (by `siglip`), or
    `package.module:function`, whose module may lie in the current folder.

    Raises:
        BadData: it is none of these; the message says what was found, and what there is.
    """
    if isinstance(written, str) and written in VIDEO_RFT:
        return video_rft(written, siglip)
    if isinstance(written, str) and written in MIXES:
        return MIXES[written]
    terms = written if isinstance(written, Mapping) else _terms_of_sum(str(written))
    own: dict[str, Term] = {VERIFIER: paying(verifier)} if verifier else {}
    if siglip:
        own[CONSISTENCY] = partial(consistency, siglip=siglip)
    return _gated(tuple(_weighted(str(name), value, own) for name, value in terms.items()))


def _terms_of_sum(text: str) -> dict[str, dict[str, Any]]:
    """A sum as the mapping that it stands for."""
    terms: dict[str, dict[str, Any]] = {}
    for summand in text.split("+"):
        product, _, gate = summand.partition("@")
        weight, star, name = product.rpartition("*")
        if name.strip() in terms:
            raise BadData(f"rewards {text!r}: {name.strip()} stands twice; give one weight to each")
        terms[name.strip()] = {"weight": weight if star else 1.0, "gate": gate.strip() or None}
    return terms


def _weighted(name: str, value: Any, own: Mapping[str, Term]) -> WeightedTerm:
    if isinstance(value, Mapping) and set(value) <= _KEYS:
        named = str(value.get("term", name))
        weight, part = _weight(value.get("weight", 1.0)), named == CONSISTENCY
        return WeightedTerm(name, _term(named, own), weight, value.get("gate"), part)
    return WeightedTerm(name, _term(name, own), _weight(value))


def _weight(value: Any) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError):
        raise BadData(f"expected a reward's weight as a number, found {value!r}") from None
    if not math.isfinite(weight):
        raise BadData(f"expected a reward's weight as a finite number, found {value!r}")
    return weight


def _term(name: str, own: Mapping[str, Term]) -> Term:
    known = {**TERMS, **VIDEO_TERMS, **own}
    if name in known:
        return known[name]
    if name == VERIFIER:
        raise BadData(f"reward {name!r} asks a trained one: give --verifier, its folder")
    if name == CONSISTENCY:
        raise BadData(f"reward {name!r} compares thoughts with frames: give --siglip, a checkpoint")
    if is_own(name):
        try:
            return own_function(name, "--reward")
        except UserError as error:
            raise BadData(f"no reward {name!r}: {error}") from None
    names = ", ".join([*MIXES, *VIDEO_RFT, *TERMS, *VIDEO_TERMS, CONSISTENCY, VERIFIER])
    raise BadData(f"no reward {name!r}: give one of {names}, or package.module:function")


def _gated(mix: Mix) -> Mix:
    for at, each in enumerate(mix):
        if each.gate and each.gate not in [earlier.name for earlier in mix[:at]]:
            raise BadData(f"reward {each.name!r}: its gate {each.gate!r} names no reward before it")
    return mix
