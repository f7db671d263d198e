"""Preference pairs from graded traces: what a verifier learns from (VTS-V, arXiv 2506.07235).

Three kinds. "verdict": the question whether what was seen is enough, asked after an answer and
after the last look before it. "Yes" is chosen over "no" if the answer was right, else "no" over
"yes"; at a look after which a right branch looked on, "no". It is what the verifier `score` reads.
"trajectory": a right branch over a wrong one of the same question, from where the two part. It is
what `logratio` reads, and the paper's own (section 3.4), with wrong branches that really happened.
"step": one step alone over another at the same place (`step_pairs`), which `logratio` reads too.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from mm.errors import UserError
from mm.markup import render_parts
from mm.trace import Branch
from mm.trace_store import load_traces
from mm.types import Image, Message, ToolSpec, assistant
from vision.verifier import NO, YES, verdict_prompt

from .graded_groups import (
    Counts,
    Pair,
    graded_groups,
    is_right,
    wrote_all,
    wrote_answer,
    wrote_steps,
)
from .step_pairs import step_pairs

Kind = Literal["verdict", "trajectory", "step"]

# the sides of a trajectory train all that they say, the others one message that the model wrote
_OWN = {"verdict": wrote_answer, "trajectory": wrote_all, "step": wrote_steps}


def write_pairs(
    traces: Path,
    out: Path,
    *,
    kind: Kind = "verdict",
    per_group: int = 4,
    across: bool = False,
) -> Counts:
    """Write the pairs of the `traces` in a folder to `out`, rows of `mm train dpo`.

    Args:
        per_group: trajectory or step pairs of one question, at most.
        across: a right and a wrong trace of two questions of one task, of as many steps, may make
            verdicts too, where those of one question are used up.

    Raises:
        BadTrace: the folder cannot be read.
        UserError: no pair can be made, or `out` lies where it cannot name the images.
    """
    images = _images_from(traces, out)
    counts, rows = Counts(), []
    groups = graded_groups(load_traces(traces), counts, _OWN[kind])
    for group in groups:
        rows += [_row(*each, images) for each in _made(group, counts, kind, per_group)]
    if across and kind == "verdict":
        for group in _left_over(groups):
            rows += [_row(*each, images) for each in _verdicts(group, counts)]
    if not rows:
        raise UserError("no pair: " + "; ".join(counts.lines()))
    counts.pairs = len(rows)
    part = out.with_name(out.name + ".part")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    part.write_text(lines, encoding="utf-8")
    os.replace(part, out)
    return counts


def _made(group: Sequence[Branch], counts: Counts, kind: Kind, per_group: int) -> Iterator[Pair]:
    if kind == "verdict":
        return _verdicts(group, counts)
    return (_ways if kind == "trajectory" else step_pairs)(group, counts, per_group)


def _images_from(traces: Path, out: Path) -> str:
    """The folder of the traces' images as the rows of `out` name it, with slashes everywhere."""
    try:
        images = Path(os.path.relpath(traces / "images", out.parent)).as_posix()
    except ValueError:  # on another drive of Windows
        images = ".."
    if images.startswith(".."):
        raise UserError(
            f"--out {str(out)!r}: put it beside or above {str(traces)!r}, whose images "
            "its rows name"
        )
    return images


def _verdicts(group: Sequence[Branch], counts: Counts) -> Iterator[Pair]:
    """Verdicts on as many right branches as wrong ones: the question alone tells little."""
    for number, (good, bad) in enumerate(_as_many(group)):
        for branch in (good, bad):
            for at, enough in slots(branch):
                word, other = (YES, NO) if enough else (NO, YES)
                seen = Branch(branch.sample, branch.steps[:at], None)
                name = f"{branch.sample.id}-{number}-{at}-{word}"
                yield name, verdict_prompt(seen), [assistant(word)], [assistant(other)]
        counts.chosen.append(_length(good))
        counts.rejected.append(_length(bad))


def slots(branch: Branch) -> Iterator[tuple[int, bool]]:
    """After how many steps it is asked whether that is enough, and whether it is; the last first.

    A right way that went on from a look had not seen enough; where a wrong one could have turned is
    not known.
    """
    right = is_right(branch)
    looks = [at for at, step in enumerate(branch.steps, 1) if step.message.images]
    yield len(branch.steps), right
    if looks:
        yield looks[-1], right
    if right and len(looks) > 1:
        yield looks[-2], False


def _left_over(groups: Sequence[Sequence[Branch]]) -> list[list[Branch]]:
    """Branches that make no pair within their own group, by task and number of steps."""
    alike: dict[tuple[object, int], list[Branch]] = defaultdict(list)
    for group in groups:
        used = {id(branch) for pair in _as_many(group) for branch in pair}
        for branch in group:
            if id(branch) not in used:
                alike[branch.sample.tags.get("task"), len(branch.steps)].append(branch)
    return list(alike.values())


def _as_many(group: Sequence[Branch]) -> list[tuple[Branch, Branch]]:
    right = [branch for branch in group if is_right(branch)]
    wrong = [branch for branch in group if not is_right(branch)]
    return _matched(right, wrong, min(len(right), len(wrong)))


def _ways(group: Sequence[Branch], counts: Counts, per_group: int) -> Iterator[Pair]:
    """Right ways over wrong ones, from the step at which they part."""
    right = [branch for branch in group if is_right(branch)]
    wrong = [branch for branch in group if not is_right(branch)]
    for number, (good, bad) in enumerate(_matched(right, wrong, per_group)):
        shared = 0
        for a, b in zip(good.messages, bad.messages, strict=False):
            if a != b:
                break
            shared += 1
        chosen, rejected = good.messages[shared:], bad.messages[shared:]
        if chosen and rejected:
            counts.chosen.append(_length(good))
            counts.rejected.append(_length(bad))
            yield f"{good.sample.id}-{number}", good.messages[:shared], chosen, rejected
        else:
            counts.tied += 1


def _matched(
    right: Sequence[Branch], wrong: Sequence[Branch], most: int
) -> list[tuple[Branch, Branch]]:
    """Pairs of a right and a wrong branch, the most alike in length first, each used once."""
    apart = sorted(
        (abs(_length(good) - _length(bad)), i, j)
        for i, good in enumerate(right)
        for j, bad in enumerate(wrong)
    )
    found: list[tuple[Branch, Branch]] = []
    used: set[tuple[bool, int]] = set()
    for _, i, j in apart:
        if len(found) < most and not {(True, i), (False, j)} & used:
            used |= {(True, i), (False, j)}
            found.append((right[i], wrong[j]))
    return found


def _length(branch: Branch) -> int:
    """In tokens, which servers count too."""
    return sum(step.cost.generated_tokens for step in branch.steps if step.sampled)


def _row(
    name: str,
    shared: Sequence[Message],
    chosen: Sequence[Message],
    rejected: Sequence[Message],
    images: str,
) -> dict[str, Any]:
    row: dict[str, Any] = {"id": name}
    tools = [part.json for m in shared for part in m.parts if isinstance(part, ToolSpec)]
    if tools:
        row["tools"] = tools
    for key, column, said in (
        ("prompt", "images", shared),
        ("chosen", "chosen_images", chosen),
        ("rejected", "rejected_images", rejected),
    ):
        messages = [_native(message) for message in said if not _offers(message)]
        row[key] = messages
        shown = [image.id for message in said for image in message.images]
        if shown:
            row[column] = [f"{images}/{id}.png" for id in shown]
    return row


def _offers(message: Message) -> bool:
    return bool(message.parts) and all(isinstance(part, ToolSpec) for part in message.parts)


def _native(message: Message) -> dict[str, Any]:
    content = []
    for part in message.parts:
        if isinstance(part, Image):
            content.append({"type": "image"})
        else:
            content.append({"type": "text", "text": render_parts([part])})
    return {"role": message.role, "content": content}
