"""An answer, told to a person or to a program."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

import mm

Pixels = tuple[int, int, int, int]


@dataclass(frozen=True)
class Look:
    """Where the model looked: xyxy in pixels of the question's picture number `image`, from 0."""

    image: int
    xyxy: Pixels


def looks(trace: mm.Trace) -> list[Look]:
    """What the chosen answer looked at again, in order."""
    from vision import regions_of

    sizes = [picture.size for picture in trace.sample.images]
    return [Look(i, region.to_pixels(sizes[i])) for i, region in regions_of(trace.best)]


def as_json(trace: mm.Trace) -> dict[str, object]:
    """The contract of `--json`: answer, regions, cost, error."""
    return {
        "answer": trace.answer,
        "regions": [asdict(look) for look in looks(trace)],
        "cost": asdict(trace.cost),
        "error": trace.error,
    }


def failure_json(error: Exception) -> dict[str, object]:
    """What `as_json` says when there was not even a trace."""
    return {"answer": None, "regions": [], "cost": asdict(mm.Cost()), "error": str(error)}


def as_text(trace: mm.Trace, names: list[str]) -> str:
    """The answer, where it looked (`names` are the pictures'), and what it cost, a line each."""
    looked = [f"looked at  {names[look.image]} {list(look.xyxy)}" for look in looks(trace)]
    answer = printable(trace.answer or "") or "(no answer)"
    return "\n".join([answer, "", *looked, f"cost       {cost_line(trace.cost)}"])


def cost_line(cost: mm.Cost) -> str:
    """What an answer cost, in one line."""
    return (
        f"{cost.visual_tokens} visual tokens, {cost.computed_tokens} prompt tokens computed "
        f"and {cost.reused_tokens} reused, {cost.generated_tokens} generated, {cost.seconds:.1f} s"
    )


def printable(text: str) -> str:
    """`text` without the control characters that could steer a terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text).strip()
