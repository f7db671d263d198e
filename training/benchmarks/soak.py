"""A shared engine under rough treatment: nothing gets lost, nothing wrong, nothing grows.

Conversations of all kinds run at once, some cancelled, late, too long or forked, each drawn from a
seed. Then every reply is computed again, alone, on an engine that knows nothing of the others.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Lost
from dataclasses import dataclass, field, replace
from itertools import count

from mm.engine.engine import Engine, RequestOptions
from mm.errors import ModelError
from mm.local.hf_vlm import HFVLM
from mm.types import Conversation, Generation, Image, Message, Sampling, user
from mm.vlm import Cancelled

from .measure import Measured

KINDS = ("answer", "answer", "fork", "cancel", "deadline", "oversize")
TIE = 1e-4
"""Of two tokens whose logits are nearer than this, another batch may write the other."""

PATIENCE_S = 300.0
"""After so long a conversation counts as lost."""

Draw = Callable[[int], Image]
"""The image of some number."""


@dataclass(frozen=True)
class Said:
    """A reply and what it was asked with."""

    conversation: Conversation
    sampling: Sampling
    reply: Generation

    @property
    def ids(self) -> tuple[int, ...]:
        """The reply's token ids."""
        return self.reply.message.tokens or ()

    @property
    def cut(self) -> bool:
        """Whether the reply was cancelled on the way."""
        return self.reply.finish == "cancelled"


@dataclass(frozen=True)
class Ended:
    """One conversation: how it ended ("answer", "cancelled", or an error's name), and its replies.

    `lost` ones ended in nothing.
    """

    kind: str
    end: str
    said: tuple[Said, ...] = ()
    lost: bool = False


@dataclass
class Soaked:
    """What came of all conversations so far."""

    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[Said] = field(default_factory=list)
    lost: int = 0
    checked: int = 0

    def measures(self) -> Iterator[Measured]:
        """What a table shows: how many there were, and the shares that ended and were right."""
        whole = float(self.ends.total())
        yield Measured("soak, conversations", "count", (whole,))
        ended = (whole - self.lost) / max(whole, 1.0)
        yield Measured("soak, ended in an answer or a named error", "fraction", (ended,))
        right = 1 - len(self.wrong) / max(self.checked, 1)
        yield Measured("soak, answers as computed alone", "fraction", (right,))


def soak(
    vlm: HFVLM,
    draw: Draw,
    *,
    minutes: float,
    conversations: int = 200,
    clients: int = 16,
    seed: int = 0,
    tell: Callable[[Soaked], object] = id,
) -> Soaked:
    """Rounds of `conversations` until the time is over, at least one; `tell` hears of each."""
    until, found = time.monotonic() + 60 * minutes, Soaked()
    for number in count():
        numbers = range(number * conversations, (number + 1) * conversations)
        ends = _together(vlm, draw, [f"{seed} {n}" for n in numbers], clients)
        alone = HFVLM(
            Engine(vlm.engine.model, vlm.builder), options=RequestOptions(adapter=vlm.adapter)
        )
        for ended in ends:
            found.ends[f"{ended.kind}: {ended.end}"] += 1
            found.lost += ended.lost
            found.checked += len(ended.said)
            found.wrong += [said for said in ended.said if not as_alone(said, alone)]
        tell(found)
        if time.monotonic() >= until:
            break
    return found


def as_alone(said: Said, vlm: HFVLM) -> bool:
    """Whether `vlm`, its caches empty, replies the same, or starts the same where it was cut."""
    vlm.engine.clear_caches()
    (again,) = vlm.generate([said.conversation], said.sampling)
    wanted = again.message.tokens or ()
    if said.cut:
        wanted = wanted[: len(said.ids)]
    return said.ids == wanted or _tied(said, wanted, vlm)


def _tied(said: Said, wanted: tuple[int, ...], vlm: HFVLM) -> bool:
    """Whether they first differ where two greedy choices were equally good."""
    pairs = enumerate(zip(said.ids, wanted, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), None)
    if at is None or said.sampling.temperature:
        return False
    tokens = vlm.builder.build(said.conversation)
    logits = vlm.engine.next_logits(replace(tokens, ids=(*tokens.ids, *wanted[:at])))
    return abs(float(logits[said.ids[at]] - logits[wanted[at]])) < TIE


def _together(vlm: HFVLM, draw: Draw, seeds: Sequence[str], clients: int) -> list[Ended]:
    pool = ThreadPoolExecutor(clients)
    running = [pool.submit(_converse, vlm, draw, random.Random(seed)) for seed in seeds]
    ends = [_ended(future) for future in running]
    pool.shutdown(wait=not any(ended.lost for ended in ends), cancel_futures=True)
    return ends


def _ended(future: Future[Ended]) -> Ended:
    try:
        return future.result(timeout=PATIENCE_S)
    except Lost:
        return Ended("?", "nothing", lost=True)
    except Exception as error:  # a named error is a ModelError, and was caught
        return Ended("?", type(error).__name__, lost=True)


def _converse(vlm: HFVLM, draw: Draw, rng: random.Random) -> Ended:
    kind, said = rng.choice(KINDS), []
    try:
        for part in _turns(vlm, draw, rng, kind):
            said.append(part)
        return Ended(kind, "cancelled" if said[-1].cut else "answer", tuple(said))
    except ModelError as error:
        return Ended(kind, type(error).__name__, tuple(said))


def _turns(vlm: HFVLM, draw: Draw, rng: random.Random, kind: str) -> Iterator[Said]:
    """One to three turns, each with another look; the last one as its `kind` says."""
    conversation: Conversation = ()
    for _ in range(rng.randrange(3)):
        conversation = (*conversation, _question(draw, rng))
        (said,) = _say(vlm, [conversation], _sampling(rng))
        yield said
        conversation = (*conversation, said.reply.message)
    if kind == "oversize":
        conversation = (*conversation, user("x " * vlm.engine.limit))
    forks = [(*conversation, _question(draw, rng)) for _ in range(3 if kind == "fork" else 1)]
    deadline = rng.choice((0.0, rng.uniform(0.0, 0.2)))  # one that cannot be met, or may be
    asking = vlm.asking(deadline=deadline) if kind == "deadline" else vlm
    calls, stop = count(), rng.randrange(8)
    cancel = (lambda: next(calls) >= stop) if kind == "cancel" else None
    yield from _say(asking, forks, _sampling(rng), cancel)


def _say(
    vlm: HFVLM,
    conversations: Sequence[Conversation],
    sampling: Sampling,
    cancel: Cancelled | None = None,
) -> list[Said]:
    replies = vlm.generate(conversations, sampling, cancel=cancel)
    return [Said(c, sampling, r) for c, r in zip(conversations, replies, strict=True)]


def _question(draw: Draw, rng: random.Random) -> Message:
    """About an image that others may ask about too, in more or fewer words."""
    return user("so, " * rng.randrange(6), draw(rng.randrange(24)), "what is here?")


def _sampling(rng: random.Random) -> Sampling:
    return Sampling(
        max_tokens=rng.randrange(1, 24),
        temperature=rng.choice((0.0, 1.0)),
        top_p=rng.choice((0.9, 1.0)),
        seed=rng.randrange(1000),
    )
