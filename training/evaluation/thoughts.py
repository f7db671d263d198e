"""Thoughts for rows of clips or images, written in four steps (VideoRFT, arXiv 2505.12434, 3.1).

What the frames show is described; a writer that sees the description alone thinks and answers; a
model that sees the frames mends the thought; what ends in a wrong answer is left out. The writer
may be any model, over a server too. Every step of every row is kept, and a run that was stopped
goes on behind the last step it kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from mm.answers.extraction import extract_answer
from mm.answers.matching import judge, kind_of
from mm.answers.rouge import rouge
from mm.errors import ModelError, ModelUnavailable, door, first_line
from mm.markup import render_parts
from mm.parallel import in_order
from mm.trace import Sample
from mm.types import Conversation, Message, Part, Sampling, Text, Thinking, ToolCall, user
from mm.vlm import VLM, Cancelled
from video.context import Showing, with_frames
from video.frames import BadVideo
from video.search import tokens_of

from .resume import PLACE, differing, whole_lines
from .tasks import BadTarget, Item, digest_of

FACTS, STEPS = "thoughts.json", "steps.jsonl"

UNSAID = ("adapter", "dtype", "budgets", "writer_url")
"""What folders of earlier versions do not say, besides the place."""

GONE = "max_tokens"
"""A fact of earlier folders that is no longer compared: a text that it cut is not kept."""

DESCRIBE = """\
Describe what is shown, for somebody who cannot see it. First one or two sentences on the whole. \
Then a JSON list with one object for each frame or image:
{"time": "...", "caption": "two or three sentences", "key_elements": {"objects": [], \
"actions": [], "scene": "", "notable_features": [], "spatial_relations": [], \
"potential_interactions": []}}
Say where an action goes on from before. Write [Uncertain] behind what is hardly visible."""

THINK = """\
You watch what is described below as if you saw it yourself. Answer the question about it: \
understand what it wants, find the parts that matter, reason over what is seen there, check \
yourself where you doubt. Never mention a description, text or data: say what you see. Name times \
in words such as "at first" or "near the end". Think inside <think></think>, then give the answer \
inside <answer></answer>{how}.

{description}

Question: {question}"""

REVISE = """\
Here is a thought about this question: {question}

<think>{thought}</think>

Compare it with what you see. Change only steps that conflict with it, and put what is seen in the \
place of what was read. Keep its logic and its conclusion. Reply with <think></think> alone."""

LEAST_LIKE = 0.3
"""How much like the right one a free answer must be, by ROUGE, to be kept."""


@dataclass(frozen=True)
class Steps:
    """What was written for one row; None for what is not yet. `asked` tells questions apart.

    `failed` says why the next step could not be taken when it was last tried.
    """

    id: str
    asked: str = ""
    description: str | None = None
    thought: str | None = None
    answer: str | None = None
    revised: str | None = None
    failed: str | None = None

    @property
    def done(self) -> bool:
        """Whether every step was taken, and there is a thought."""
        return bool(self.revised)


@dataclass(frozen=True)
class Counts:
    """How many rows have thoughts, were left out as wrong, and failed; `why` the first one did."""

    kept: int = 0
    wrong: int = 0
    failed: int = 0
    why: str = ""


@dataclass(frozen=True)
class Writers:
    """Who writes.

    Attributes:
        seeing: sees the frames: describes and mends.
        thinking: reads the description alone.
    """

    seeing: VLM
    thinking: VLM
    sampling: Sampling = Sampling(max_tokens=2048)
    frames: int = 16


class Unwritten(ModelError):
    """A model wrote nothing to go on with; one line says why."""


def open_thoughts(folder: Path, facts: Mapping[str, Any]) -> dict[str, Steps]:
    """The steps that `folder` holds already, by row; it is made where there is none.

    Raises:
        BadTarget: it holds those of something else.
    """
    facts = json.loads(json.dumps(facts))
    known = folder / FACTS
    if known.is_file():
        before = _known(known)
        if other := differing(before, facts, (*PLACE, *UNSAID)):
            raise BadTarget(
                f"{str(folder)!r} holds thoughts that differ in {', '.join(other)}: "
                "give another --out"
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadTarget(f"{str(folder)!r} is not empty: give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    known.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    _cut(folder / STEPS)
    return {each.id: each for each in _read(folder / STEPS)}


def _known(file: Path) -> dict[str, Any]:
    remedy = "remove it, and the same command goes on"
    with door(f"{str(file)!r} is spoilt", BadTarget, remedy):
        said = json.loads(file.read_text(encoding="utf-8"))
        return {name: fact for name, fact in said.items() if name != GONE}


def _cut(file: Path) -> None:
    """Remove a last line that a death cut off."""
    if file.exists():
        os.truncate(file, len(whole_lines(file)))


def _read(file: Path) -> Iterator[Steps]:
    """What was written; a later line of a row comes after its earlier ones."""
    if not file.exists():
        return
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            with door(f"{str(file)!r}, line {number}", BadTarget, "remove that line"):
                read = Steps(**json.loads(line))
            yield read


def write_thoughts(
    items: Iterable[Item],
    fields: Callable[[Item], Mapping[str, Any]],
    writers: Writers,
    folder: Path,
    out: Path,
    *,
    done: Mapping[str, Steps],
    threads: int = 4,
    tell: Callable[[Counts], None] = lambda _: None,
) -> Counts:
    """Write thoughts for `items`, but for steps that are `done`, and the rows that pass to `out`.

    Args:
        folder: has every step.
        fields: of a row, its images or clips among them, as they go into the rows that are kept.

    Raises:
        ModelUnavailable: a model is gone: every other row would fail too.
    """
    so_far, lock = Counts(), Lock()
    keep = partial(_append, folder / STEPS, lock)
    work = partial(_steps, writers, done, keep)
    rows = out.with_name(f"{out.name}.part")
    results = closing(in_order(work, items, threads))
    with results as found, rows.open("w", encoding="utf-8") as file:
        for item, steps in found:
            if not steps.done:
                why = so_far.why or (f"{steps.id}: {steps.failed}" if steps.failed else "")
                so_far = replace(so_far, failed=so_far.failed + 1, why=why)
            elif is_right(steps, item.sample):
                row = {**fields(item), "id": steps.id, "messages": _talk(steps, item.sample)}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                so_far = replace(so_far, kept=so_far.kept + 1)
            else:
                so_far = replace(so_far, wrong=so_far.wrong + 1)
            tell(so_far)
    rows.replace(out)
    return so_far


def is_right(steps: Steps, sample: Sample) -> bool:
    """Whether a thought ends in the right answer, by the judge; in free text, in one like it."""
    said, right = steps.answer or "", sample.target or ""
    if sample.choices or kind_of(right) != "words":
        return judge(said, right, choices=sample.choices) is True
    return judge(said, right) is True or rouge(said, right) >= LEAST_LIKE


def _steps(
    writers: Writers,
    done: Mapping[str, Steps],
    keep: Callable[[Steps], None],
    item: Item,
    cancelled: Cancelled,
) -> tuple[Item, Steps]:
    begun = Steps(item.sample.id, digest_of(item.sample))
    steps = done.get(item.sample.id, begun)
    if steps.asked not in ("", begun.asked):  # the row was changed
        steps = begun
    try:
        for step in (_described, _thought, _revised):
            if not cancelled() and (made := step(steps, item.sample, writers)) is not None:
                steps = replace(made, failed=None)
                keep(steps)
    except ModelUnavailable:
        raise
    except (ModelError, BadVideo) as error:  # tried again by the next run
        steps = replace(steps, failed=first_line(error))
        keep(steps)
    return item, steps


def _described(steps: Steps, sample: Sample, writers: Writers) -> Steps | None:
    if steps.description:
        return None
    said = _reply(writers.seeing, _shown(sample, writers, DESCRIBE), writers.sampling)
    return replace(steps, description=_written(said.text, "description"))


def _thought(steps: Steps, sample: Sample, writers: Writers) -> Steps | None:
    if steps.thought:
        return None
    asked = THINK.format(
        how=_how(sample), description=steps.description, question=_question(sample)
    )
    said = _reply(writers.thinking, (user(asked),), writers.sampling)
    answer = extract_answer(said.text) or ""
    return replace(steps, thought=_thinking(said, "thought"), answer=answer.strip())


def _revised(steps: Steps, sample: Sample, writers: Writers) -> Steps | None:
    if steps.revised:
        return None
    asked = REVISE.format(question=_question(sample), thought=steps.thought)
    said = _reply(writers.seeing, _shown(sample, writers, asked), writers.sampling)
    return replace(steps, revised=_thinking(said, "mended thought"))


def _thinking(said: Message, what: str) -> str:
    """What stands within the tags of a thought: without them, a remark on it would become one."""
    thoughts = [part.text for part in said.parts if isinstance(part, Thinking)]
    return _written(" ".join(thoughts), f"{what} within <think></think>")


def _written(text: str, what: str) -> str:
    if not text.strip():
        raise Unwritten(f"the model wrote no {what}")
    return text.strip()


def _shown(sample: Sample, writers: Writers, asked: str) -> Conversation:
    """The images, and the frames of the clips with their times, and then what is `asked`."""
    showing = Showing(frames=writers.frames)
    seen = [part for said in sample.prompt if said.role == "user" for part in _visual(said)]
    (shown,) = with_frames((user(*seen),), showing, tokens_of(writers.seeing))
    return (user(*shown.parts, asked),)


def _visual(said: Message) -> list[Part]:
    """What a message shows, wherever its words stand."""
    return [part for part in said.parts if not isinstance(part, Text)]


def _reply(vlm: VLM, asked: Conversation, sampling: Sampling) -> Message:
    (reply,) = vlm.generate([asked], sampling)
    if reply.finish == "length":  # half a thought would be learnt as a whole one
        most = sampling.max_tokens
        raise Unwritten(f"a text was cut off at {most} tokens: give more, --max-tokens")
    return reply.message


def _question(sample: Sample) -> str:
    """What is asked, behind what was said before it, and the choices."""
    talk = [(said.role, said.text.strip()) for said in sample.prompt if said.role != "system"]
    talk = [(role, text) for role, text in talk if text]
    alone = len(talk) == 1
    lines = [text if alone else f"{role}: {text}" for role, text in talk]
    return "\n".join([*lines, *_untold(sample)])


def _untold(sample: Sample) -> list[str]:
    """The choices that no line of the question tells already."""
    told = {line.strip() for said in sample.prompt for line in said.text.splitlines()}
    return [choice for choice in sample.choices if choice not in told]


def _how(sample: Sample) -> str:
    return ": one of the choices alone" if sample.choices else ""


def _talk(steps: Steps, sample: Sample) -> list[dict[str, Any]]:
    """The row's conversation; images and clips stand before the words of their message, and earlier
    replies do not train."""
    talk = [{"role": said.role, "content": _tagged(said)} for said in sample.prompt]
    talk = [{**said, "loss": False} if said["role"] == "assistant" else said for said in talk]
    talk = [said for said in talk if said["content"]]  # tools on offer are no words
    talk[-1]["content"] = "\n".join([talk[-1]["content"], *_untold(sample)])
    said = f"<think>{steps.revised}</think>\n<answer>{steps.answer}</answer>"
    return [*talk, {"role": "assistant", "content": said}]


def _tagged(said: Message) -> str:
    words = [part for part in said.parts if isinstance(part, Text | Thinking | ToolCall)]
    tags = "<image>" * len(said.images) + "<video>" * len(said.clips)
    return tags + render_parts(words).strip()


def _append(file: Path, lock: Lock, steps: Steps) -> None:
    with lock, file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(vars(steps), ensure_ascii=False) + "\n")
