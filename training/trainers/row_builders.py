"""What each method can train on: a row's token sequences, or why it has none that it could use.

The one reader behind `mm train` and `mm data check`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

from mm.tokens.builder import TokenBuilder
from training.batching.built_rows import Build, Sides
from training.batching.collator import Collator, PairCollator
from training.data import Row


def build_reply(builder: TokenBuilder) -> Build:
    """A row's whole conversation, of which some must train (SFT)."""
    return partial(_within, builder, partial(_refusing_map, Collator(builder).build))


def build_pair(builder: TokenBuilder) -> Build:
    """Both sides of a pair (DPO)."""
    build = PairCollator(Collator(builder)).build
    return partial(_within, builder, partial(_refusing_map, build))


def build_question(builder: TokenBuilder) -> Build:
    """The prompt of a row, which must say what is right (GRPO); its depth map is the strategy's."""
    return partial(_within, builder, partial(_prompt, builder))


ROW_BUILDERS: Mapping[str, Callable[[TokenBuilder], Build]] = {
    "sft": build_reply,
    "dpo": build_pair,
    "grpo": build_question,
}
"""By method; what each makes raises ValueError for a row that the method cannot train on."""


def purpose_of(row: Row) -> Literal["sft", "dpo", "grpo"]:
    """The method that a row is meant for, where nobody says."""
    if row.chosen:
        return "dpo"
    return "sft" if row.trains else "grpo"


def _prompt(builder: TokenBuilder, row: Row) -> Sides:
    from training.evaluation.questions import target_of

    target_of(row)
    return (builder.build(row.prompt),)


def _refusing_map(build: Build, row: Row) -> Sides:
    """What `build` makes of `row`.

    Raises:
        ValueError: it has a depth map, which would be lost.
    """
    if row.depth:
        raise ValueError(
            "column 'depth' would be lost: mm eval and mm train grpo read it; or --ignore depth"
        )
    return build(row)


def _within(builder: TokenBuilder, build: Build, row: Row) -> Sides:
    """The sequences that `build` makes of `row`, none longer than the model's positions."""
    sides = build(row)
    length = max(len(tokens.ids) for tokens in sides)
    if builder.positions and length > builder.positions:
        raise ValueError(
            f"expected at most {builder.positions:,} tokens, the model's positions, "
            f"found {length:,}: shorten the row or its images"
        )
    return sides
