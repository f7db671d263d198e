"""Preference pairs from graded traces: what a verifier learns from (VTS-V, arXiv 2506.07235).

Two kinds. "verdict": the question whether what was seen is enough, asked after an answer and after
the last look before it. "Yes" is chosen over "no" if the answer was right, else "no" over "yes"; at
a look after which a right branch looked on, "no". It is what the verifier `score` reads.
"trajectory": a right branch over a wrong one of the same question, from where the two part. It is
what `logratio` reads, and the paper's own (section 3.4), with wrong branches that really happened.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mm.errors import UserError
from mm.markup import render_parts
from mm.strategies.single import was_chosen
from mm.trace import Branch, Trace
from mm.trace_store import load_traces
from mm.types import Clip, Image, Message, ToolSpec, Visual, assistant
from vision.look_loop import SPENT
from vision.verifier import NO, YES, verdict_prompt

from .collect import RIGHT

Kind = Literal["verdict", "trajectory"]


@dataclass
class Counts:
    """What became of the groups, one a question, and how long both sides are, in tokens."""

    pairs: int = 0
    mixed: int = 0
    all_right: int = 0
    all_wrong: int = 0
    tied: int = 0
    left_out: int = 0
    forced: int = 0
    unnamed: int = 0
    chosen: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people."""
        groups = f"{self.mixed} mixed, {self.all_right} all right, {self.all_wrong} all wrong"
        reasons = {
            "budget spent, reply cut, no grade, or images inside a reply": self.left_out,
            "not all of it the model's own words, such as a choice made for it": self.forced,
            "clips, images from memory: no row can name them": self.unnamed,
        }
        out = [f"{count} traces left out ({why})" for why, count in reasons.items() if count]
        tied = f"{self.tied} pairs tied (one side is how the other begins)"
        return [
            f"{self.pairs:,} pairs from questions: {groups}",
            *(out or ["0 traces left out"]),
            *([tied] if self.tied else []),
            f"tokens written, mean: chosen {_mean(self.chosen)}, rejected {_mean(self.rejected)}",
        ]


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
        per_group: trajectory pairs of one question, at most.
        across: a right and a wrong trace of two questions of one task, of as many steps, may make
            verdicts too, where those of one question are used up.

    Raises:
        BadTrace: the folder cannot be read.
        UserError: no pair can be made, or `out` lies where it cannot name the images.
    """
    images = _images_from(traces, out)
    counts, rows = Counts(), []
    own = wrote_answer if kind == "verdict" else _wrote_all
    groups = _groups(load_traces(traces), counts, own)
    for group in groups:
        _count_group(group, counts)
        made = _verdicts(group, counts) if kind == "verdict" else _ways(group, counts, per_group)
        rows += [_row(*each, images) for each in made]
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


Pair = tuple[str, Sequence[Message], Sequence[Message], Sequence[Message]]
"""A name, what both sides share, the chosen side, the rejected one."""


def _groups(
    traces: Iterable[Trace], counts: Counts, own: Callable[[Branch], bool]
) -> list[list[Branch]]:
    groups: dict[str, list[Branch]] = defaultdict(list)
    for trace in traces:
        branch = trace.best
        known = branch.steps and RIGHT in branch.steps[-1].scores
        spent = branch.finish == "length" or any(SPENT in step.scores for step in branch.steps)
        inside = any(m.visuals for m in branch.messages if m.role == "assistant")
        if not known or spent or inside:
            counts.left_out += 1
        elif not own(branch):
            counts.forced += 1
        elif not all(map(_can_be_named, branch.messages)):
            counts.unnamed += 1
        else:
            groups[trace.sample.id].append(branch)
    return list(groups.values())


def wrote_answer(branch: Branch) -> bool:
    """Whether the model wrote the answer, and no choice was made for it (`insist`)."""
    return not was_chosen(branch)


def _wrote_all(branch: Branch) -> bool:
    """Whether the model wrote all that the assistant says."""
    return all(step.sampled for step in branch.steps if step.message.role == "assistant")


def _can_be_named(message: Message) -> bool:
    """Whether a row has a way to write all that the message shows."""
    shown = [part for part in message.parts if isinstance(part, Visual | Clip)]
    return all(isinstance(part, Image) for part in shown)


def _count_group(group: Sequence[Branch], counts: Counts) -> None:
    right = sum(map(is_right, group))
    counts.mixed += 0 < right < len(group)
    counts.all_right += right == len(group)
    counts.all_wrong += right == 0


def is_right(branch: Branch) -> bool:
    """Whether the branch's answer was graded as right."""
    return branch.steps[-1].scores.get(RIGHT) == 1.0


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


def _mean(lengths: Sequence[int]) -> str:
    return f"{sum(lengths) / len(lengths):.1f}" if lengths else "none"
