"""What each method can train on: how many tokens a row takes of it, or why it cannot.

The one reader behind `mm train` and `mm data check`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from mm.tokens.builder import TokenBuilder
from training.batching.collator import Collator, PairCollator
from training.data import Row
from training.evaluation.questions import truth

Length = Callable[[Row], int]


def length_of_reply(builder: TokenBuilder) -> Length:
    """The tokens of a row's whole conversation, of which some must train (SFT)."""
    measure = Collator(builder).length
    return lambda row: _within(builder, measure(row))


def length_of_pair(builder: TokenBuilder) -> Length:
    """The tokens of both sides, padded to the longer one (DPO)."""
    measure = PairCollator(Collator(builder)).length

    def length(row: Row) -> int:
        found = measure(row)
        _within(builder, found // 2)
        return found

    return length


def length_of_question(builder: TokenBuilder) -> Length:
    """The tokens of what a row asks, which must say what is right (GRPO)."""

    def length(row: Row) -> int:
        truth(row)
        return _within(builder, len(builder.build(row.prompt).ids))

    return length


LENGTHS: Mapping[str, Callable[[TokenBuilder], Length]] = {
    "sft": length_of_reply,
    "dpo": length_of_pair,
    "grpo": length_of_question,
}
"""By method; each raises ValueError for a row that it cannot train on."""


def purpose_of(row: Row) -> Literal["sft", "dpo", "grpo"]:
    """The method that a row is meant for, where nobody says."""
    if row.chosen:
        return "dpo"
    trains = any(
        message.role == "assistant" and at not in row.untrained
        for at, message in enumerate(row.messages)
    )
    return "sft" if trains else "grpo"


def _within(builder: TokenBuilder, length: int) -> int:
    if builder.positions and length > builder.positions:
        raise ValueError(
            f"expected at most {builder.positions:,} tokens, the model's positions, "
            f"found {length:,}: shorten the row or its images"
        )
    return length
