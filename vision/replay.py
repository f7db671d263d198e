"""Look again from memory: regions of what was already encoded are put into the context (VGR).

The image is encoded once, at full resolution; an overview of it enters the context, and each
region that the model asks for follows from memory. No look costs the vision encoder anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from mm.answers.extraction import THOUGHT_END
from mm.errors import ModelError, UserError
from mm.geometry import WHOLE, BoxFormat, Region
from mm.session import Session
from mm.strategies.forced_answer import open_answer
from mm.strategies.single import direct
from mm.trace import Branch
from mm.types import (
    Conversation,
    Features,
    Generation,
    Image,
    Message,
    Part,
    Text,
    Thinking,
    assistant,
    user,
)
from mm.vlm import Memory, tokens_of

from .ask_region import Ground, ask_where
from .look_loop import Limits, look
from .regions import copy_of
from .zoom import ChooseRegion, Shoot, by_calls, two_steps
from .zoom_tool import BadCall, RegionCall

Protocol = Literal["tool", "sot"]

SOT, EOT = "<sot>", "<eot>"
SIGNAL = BoxFormat(key="", frame=(1, 1), decimals=2)
"""How VGR's policy writes a box: fractions of the image with two decimals."""

INSTRUCTION = (
    "\nThink step by step. Whenever your reasoning relies on a part of the picture, point at it "
    f"with {SOT}[x1, y1, x2, y2]{EOT}, in fractions of the picture, and you will see it again. "
    'End with a line that begins with "Final answer:".'
)
ANSWER = "\nFinal answer:"
"""Starts the model's answer for it, between the signals, when it may look no more."""
ANSWER_AFTER_THOUGHT = f"\n{THOUGHT_END}{ANSWER}"
"""The same where a thought is open: what stands in one answers nothing."""

MAX_TOKENS = 576
"""What one look may cost."""

_COARSEST = 1 << 20  # whatever the region, one visual token a side

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?|-?\.\d+")


@dataclass(frozen=True)
class Recollection:
    """How a region that was asked for becomes what is replayed.

    Attributes:
        pool: each square of `pool` x `pool` visual tokens becomes one; None as the model was
            trained.
        max_tokens: what one look may cost; a larger region is pooled until it costs no more.
        choose_region: None shows what was asked for.
    """

    pool: int | None = None
    max_tokens: int = MAX_TOKENS
    choose_region: ChooseRegion | None = None

    def recall(self, session: Session, asked: RegionCall) -> Features:
        """The visual tokens that `asked` asks for.

        Raises:
            BadCall: they were shown before.
        """
        region = asked.region
        if self.choose_region:
            region = self.choose_region(session.sample, region)
        pool = self.pool or memory_of(session).replay
        images = session.sample.images
        copy = copy_of(images, asked.index)
        found = Features(images[asked.index], region, pool, copy=copy)
        found = within(found, self.max_tokens, partial(tokens_of, session.vlm))
        if found in session.branch.looks:
            raise BadCall("This region was already shown above. Choose another, or answer.")
        return found


def replay(
    session: Session,
    *,
    max_looks: int = 6,
    protocol: Protocol = "tool",
    pool: int | None = None,
    max_tokens: int = MAX_TOKENS,
    full: bool = False,
    ground: Ground = ask_where,
    choose_region: ChooseRegion | None = None,
    look_tokens: int | None = None,
) -> Branch:
    """Let the model look at regions of its images again, from memory, until it answers.

    Args:
        max_looks: signals that are answered, wrong ones included; then it must answer.
        protocol: "tool" answers calls of `image_zoom_in_tool`, or asks a model that calls no tools
            where to look; "sot" is VGR's own, `<sot>[x1, y1, x2, y2]<eot>` within one turn.
        pool, max_tokens: as in `Recollection`.
        full: put the whole memory into the context, unpooled, and let it answer: a control.
        ground: where to look, for a model that calls no tools.
        choose_region: replaces each region asked for, for controls.
        look_tokens: no more looks once what was replayed costs this much.

    Raises:
        UserError: a number is out of its bounds.
        ModelError: the model failed, or remembers no images.
    """
    if max_tokens < 1 or (pool is not None and pool < 1):
        raise UserError(f"max_tokens and pool must be 1 or more, got {max_tokens} and {pool}")
    memory = memory_of(session)
    if session.sample.images:
        session.reword(remembered(session.sample.prompt, memory, full=full))
    if full or not session.sample.images:
        return direct(session)
    recall = Recollection(pool, max_tokens, choose_region).recall
    limits = Limits(max_looks, look_tokens)
    if protocol == "sot":
        return _by_signals(session, recall, limits)
    if not session.vlm.traits.calls_tools:
        return two_steps(session, recall, limits, ground)
    return by_calls(session, recall, limits)


def within(features: Features, most: int, cost: Callable[[Features], int]) -> Features:
    """`features`, pooled until they cost at most `most`, or as little as pooling can do."""
    least = cost(replace(features, pool=_COARSEST))
    while cost(features) > max(most, least):
        features = replace(features, pool=features.pool + 1)
    return features


def memory_of(session: Session) -> Memory:
    """How the session's model remembers images.

    Raises:
        ModelError: it does not.
    """
    memory = session.vlm.traits.memory
    if memory is None:
        raise ModelError(
            f"{session.vlm.name or 'this model'} cannot replay what it saw: its features are no "
            "grid, or it is remote; use zoom or attend"
        )
    return memory


def remembered(prompt: Conversation, memory: Memory, *, full: bool = False) -> Conversation:
    """`prompt` with an overview from memory in place of each image."""
    show = partial(overview, memory=memory, full=full)
    return tuple(
        replace(m, parts=tuple(s for p in m.parts for s in _shown(p, show))) for m in prompt
    )


def overview(image: Image, *, memory: Memory, full: bool = False) -> tuple[Part, ...]:
    """What of `image` enters the context before any look; `full` adds all of its memory."""
    parts: list[Part] = []
    if memory.snapshot:
        parts.append(Features(image, WHOLE, memory.snapshot, snapshot=True))
    if memory.local and not full:
        parts.append(Features(image, WHOLE, memory.local))
    if not (memory.snapshot or memory.local):
        parts.append(image)
    return (*parts, Features(image)) if full else tuple(parts)


def _shown(part: Part, show: partial[tuple[Part, ...]]) -> tuple[Part, ...]:
    return show(part) if isinstance(part, Image) else (part,)


def _by_signals(session: Session, recall: Shoot, limits: Limits) -> Branch:
    session.say(user(INSTRUCTION))
    sampling = replace(session.sampling, stop=(*session.sampling.stop, EOT))
    return look(
        session,
        parse=signals,
        observe=partial(_answer_signal, recall=recall),
        close=_open_answer,
        limits=limits,
        write=partial(Session.generate, sampling=sampling),
    )


def signals(session: Session, reply: Generation) -> Sequence[Region | None]:
    """The box of the signal that a reply ends with, for `look`; None when it cannot be read."""
    said = [p.text for p in reply.message.parts if isinstance(p, Text | Thinking)]
    text = "".join(said).rstrip()
    return (read_signal(text),) if text.endswith(EOT) else ()


def read_signal(text: str) -> Region | None:
    """The region in the last `<sot>[x1, y1, x2, y2]<eot>` of `text`; None when there is none.

    The numbers are clipped to the image; also read is the object with which VGR's data began,
    `<sot>{"bbox_2d": [...], "label": ...}<eot>`. Corners must stand in order, unlike in a call: a
    signal that makes no box shows nothing, where the model is run as where it is trained.
    """
    inside = text.removesuffix(EOT).rpartition(SOT)[2]
    found = _NUMBER.findall(inside.partition("[")[2].partition("]")[0])
    if SOT not in text or len(found) != 4:
        return None
    a, b, c, d = map(float, found)
    try:
        return SIGNAL.read((a, b, c, d), (1, 1)) if a < c and b < d else None
    except ValueError:
        return None


def _answer_signal(session: Session, region: Region | None, *, recall: Shoot) -> Message | None:
    """What was pointed at; nothing for a signal that cannot be read, as in the paper."""
    try:
        return assistant(recall(session, RegionCall(0, region))) if region else None
    except BadCall:
        return None


def _open_answer(session: Session, observation: Message | None) -> Message:
    opened = Text(ANSWER_AFTER_THOUGHT if _in_thought(session.branch) else ANSWER)
    return Message("assistant", (*(observation.parts if observation else ()), opened))


def _in_thought(branch: Branch) -> bool:
    """Whether the last turn of `branch` ends inside a thought, which an answer must close."""
    return THOUGHT_END in open_answer(branch).text
