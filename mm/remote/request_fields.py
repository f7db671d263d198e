"""What a request holds besides its messages, and what of that it is sent again without."""

from __future__ import annotations

import re

from mm.types import Sampling

from .responses import OPTIONAL, Json, names

BEGUN = frozenset({"continue_final_message", "add_generation_prompt"})
"""Fields by which vLLM, SGLang and others let the model go on with a turn of its own."""

GO_ON: Json = {"role": "user", "content": "Go on from there, and answer now."}
"""What stands in for `BEGUN` where a server takes no such fields."""

LOST = {
    "seed": "its server takes no seed, so sampled replies vary",
    "temperature": "its server takes no temperature but its own, so greedy replies are sampled too",
    "continue_final_message": "its server does not let a reply go on, so a message asks it to",
}
"""What it means for replies that a field is left out."""

_INSTEAD = re.compile(
    r"unsupported|not support|deprecated|instead|only \S+ is allowed", re.IGNORECASE
)
"""How a server says that it takes no such field, or one value only; else it dislikes the value."""
_USUAL = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Always sent, as vLLM and SGLang else take the checkpoint's own; -1 is all tokens to both."""
_EXTENSIONS = (*_USUAL, "presence_penalty", "frequency_penalty")
_PLAIN = Sampling()


def sampling_fields(sampling: Sampling, left_out: frozenset[str]) -> Json:
    """How to sample, without the fields `left_out` as far as they would change nothing."""
    changed = _changed(sampling)
    body = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
        "logprobs": True,
        **_USUAL,
        **changed,
    }
    if "max_tokens" in left_out:  # OpenAI's newer models know it by another name
        body["max_completion_tokens"] = body["max_tokens"]
    return {k: v for k, v in body.items() if k in changed or k not in left_out}


def refused_fields(reason: str, sampling: Sampling) -> frozenset[str]:
    """The fields that a server refuses, as far as it can be asked without them.

    An option of sampling is none of them where `sampling` gives it a meaning.
    """
    found = {field for field in OPTIONAL if names(reason, field)} - _changed(sampling).keys()
    found |= BEGUN if found & BEGUN else set()
    if found & _USUAL.keys():  # a server that lacks one lacks the others, and names one at a time
        found |= _USUAL.keys() - _changed(sampling).keys()
    if not _INSTEAD.search(reason):
        return frozenset(found - {"temperature"})
    renamed = names(reason, "max_tokens") and names(reason, "max_completion_tokens")
    return frozenset(found | ({"max_tokens"} if renamed else set()))


def _changed(sampling: Sampling) -> Json:
    """Options of sampling that not every server has, where they are not the usual ones."""
    return {k: v for k in _EXTENSIONS if (v := getattr(sampling, k)) != getattr(_PLAIN, k)}
