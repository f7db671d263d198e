"""Verdicts on a branch: has enough been seen, and does what was said hold? (VTS-V, 2506.07235)

A verifier that asks a model takes it as the keyword `vlm`; a strategy gives it its own model where
nobody gave one (`mm.strategies.verdict`). One layout serves training and use: `verdict_prompt`,
whose answer slot begins the assistant's turn, after any thought that the chat template opens is
closed.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Literal, Protocol, cast, get_args

from mm.answers.extraction import THOUGHT_END
from mm.errors import ModelError, UserError, door
from mm.local.adapters import VERIFIER
from mm.trace import Branch
from mm.types import Conversation, Sampling, Scores, Thinking, assistant, user
from mm.vlm import VLM

ENOUGH = (
    "Is what was seen and said so far enough to answer the question correctly? Answer yes or no."
)
YES, NO = "yes", "no"
CLOSED = f"<think>\n\n{THOUGHT_END}\n\n"
"""What the turn of a model that thinks begins with, so that the verdict comes at once."""

_WORD = re.compile(rf"\s*({YES}|{NO})", re.IGNORECASE)


class Adapted(VLM, Protocol):
    """A VLM with adapters on its weights."""

    adapters: tuple[str, ...]

    def using(self, adapter: str | None) -> Adapted:
        """The same weights, answering with `adapter`; None is the weights alone."""
        ...

    def score_tokens(self, conversation: Conversation, ids: tuple[int, ...]) -> Scores:
        """Log-probabilities of `ids`, once, as the assistant's next tokens."""
        ...

    def next_logprobs(self, conversation: Conversation) -> tuple[float, ...]:
        """Log-probabilities, in float32, of each token of the vocabulary as the next one."""
        ...


Kind = Literal["score", "logratio"]

Tools = Literal["all", "zoom"]
"""What `scale` offers: the actions of `act`, or the zoom tool alone."""

FACTS = "verifier.json"
"""The file, beside a trained verifier's adapter, that says how it is to be used."""


@dataclass(frozen=True)
class Trained:
    """How a trained verifier is used.

    Attributes:
        kind: the verifier of this name reads the adapter.
        threshold: enough from this score on, chosen on a calibration split; None if none was.
        matched: what makes a control say "enough" as often, by the control's name.
        tools: what was on offer where it learnt; None where that was neither, or nobody knows.
    """

    kind: Kind = "score"
    threshold: float | None = None
    matched: Mapping[str, float] = field(default_factory=dict)
    tools: Tools | None = None


def read_verifier(folder: Path) -> Trained:
    """What `folder` says of its verifier; one that says nothing is read by `score`.

    Raises:
        UserError: it holds no adapter, or its facts cannot be read.
    """
    if not (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} holds no verifier: give the folder that `mm train dpo` wrote")
    if not (folder / FACTS).is_file():
        return Trained()
    with door(f"cannot read {folder / FACTS}", UserError):
        said = json.loads((folder / FACTS).read_text())
        kind, threshold = said.get("kind", "score"), said.get("threshold")
        if kind not in get_args(Kind) or not isinstance(threshold, int | float | None):
            raise ValueError(f"expected a kind of score or logratio and a number, found {said}")
        matched = {str(name): float(at) for name, at in said.get("matched", {}).items()}
        tools = said.get("tools")
        if tools not in (*get_args(Tools), None):
            raise ValueError(f"expected tools of all or zoom, found {tools!r}")
        return Trained(kind, threshold, matched, tools)


def write_verifier(folder: Path, trained: Trained) -> None:
    """Keep beside its adapter how the verifier in `folder` is used, as `read_verifier` reads it."""
    facts = {name: value for name, value in asdict(trained).items() if value not in (None, {})}
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def verdict_prompt(branch: Branch) -> Conversation:
    """The conversation whose next word is the verdict: the branch, then the question if it is
    enough."""
    return (*branch.messages, user(ENOUGH))


def asked(branch: Branch, *, vlm: VLM | None = None) -> float | None:
    """The probability, from 0 to 1, that the model says its branch is enough.

    P(yes) against P(no) at the answer slot. A server that scores no continuations is asked to write
    the word, and the probability is that of the token that begins it. None where it writes neither,
    or which token that is cannot be told.

    Raises:
        ModelError: the model failed, its server gives no log-probabilities, or lets it think first.
    """
    vlm, prompt = _given(vlm), verdict_prompt(branch)
    try:
        yes, no = map(sum, vlm.score(prompt, [YES, NO]).logprobs)
    except ModelError:
        if hasattr(vlm, "engine") or not hasattr(vlm, "client"):
            raise
        return _written(prompt, vlm)
    return 1 / (1 + math.exp(min(no - yes, 700.0)))


def _written(prompt: Conversation, vlm: VLM) -> float | None:
    """P(yes) by the word that the model writes; one that thinks first begins behind a thought that
    is closed already.

    Raises:
        ModelError: there are no log-probabilities, or it thinks all the same.
    """
    said, thinks = _said(prompt, vlm)
    if said is None and thinks:
        said, thinks = _said((*prompt, assistant(CLOSED)), vlm)
    if said is None and thinks:
        raise ModelError(
            f"{vlm.name} thinks before it says yes or no, and its server lets nobody close the "
            "thought: turn thinking off there (chat_template_kwargs enable_thinking=false), or use "
            "a verifier that asks no model"
        )
    return said


def _said(prompt: Conversation, vlm: VLM) -> tuple[float | None, bool]:
    """P(yes) by the word that the reply gives, None where it gives none; whether it thinks."""
    pieces: list[str] = []
    (reply,) = vlm.generate([prompt], Sampling(max_tokens=8), on_token=pieces.append)
    thinks = any(isinstance(part, Thinking) for part in reply.message.parts)
    if not reply.logprobs:
        raise ModelError(
            f"{vlm.name}: its server gives no log-probabilities, which a verdict is made of; use a "
            "server that does (vLLM, SGLang), or a verifier that asks no model"
        )
    text = "".join(pieces)
    word = _WORD.match(
        text, text.rfind(THOUGHT_END) + len(THOUGHT_END) if THOUGHT_END in text else 0
    )
    logprob = _begins(word.start(1), pieces, reply.logprobs) if word else None
    if word is None or logprob is None:
        return None, thinks
    sure = math.exp(min(logprob, 0.0))
    return (sure if word[1].lower() == YES else 1 - sure), thinks


def _begins(at: int, pieces: Sequence[str], logprobs: Sequence[float]) -> float | None:
    """The log-probability of the token of character `at` in `pieces`; None where it is not known,
    as of a server that sends several tokens in one piece."""
    if at == 0:
        return logprobs[0]
    if len(pieces) != len(logprobs):
        return None
    ends = accumulate(map(len, pieces))
    return next(value for end, value in zip(ends, logprobs, strict=True) if end > at)


def score(branch: Branch, *, vlm: VLM | None = None) -> float | None:
    """As `asked`, by the trained verifier: an adapter on the same weights.

    Raises:
        ModelError: the model has no such adapter.
    """
    return asked(branch, vlm=with_verifier(_given(vlm)))


class _Reward(float):
    """What `logratio` says, with the beta it was made with, which no file keeps."""

    beta: float


def logratio(branch: Branch, *, vlm: VLM | None = None, beta: float = 0.1) -> float | None:
    """The implicit reward of what the policy wrote: beta times the sum of log(pi / pi_ref).

    pi has the verifier's adapter, and pi_ref is the policy as it wrote (paper, section 3.1); only
    the assistant's tokens count. A branch whose earlier step has this score, made with the same
    beta, computes the steps after it alone. 0 before the policy wrote anything; None where no token
    of what it wrote is known.

    Raises:
        ModelError: the model has no verifier's adapter, or one of its own besides, or its tokens
            are not known here.
    """
    verifier = with_verifier(_given(vlm))
    if set(verifier.adapters) - {VERIFIER}:
        raise ModelError(
            "logratio compares with the model as it was trained on, and the reasoner's own adapter "
            "is beside it: give a whole model, or a verifier of `mm data pairs --kind verdict`"
        )
    first, total = _remembered(branch, beta)
    known = first > 0 or not any(step.sampled for step in branch.steps)
    for at, step in enumerate(branch.steps[first:], first):
        ids = step.message.tokens
        if step.sampled and ids and step.logprobs:
            before = Branch(branch.sample, branch.steps[:at], None).messages
            reward = sum(verifier.score_tokens(before, ids).logprobs[0]) - sum(step.logprobs)
            total, known = total + beta * reward, True
    made = _Reward(total)
    made.beta = beta
    return made if known else None


def _remembered(branch: Branch, beta: float) -> tuple[int, float]:
    """The step behind the last but the leaf that has this score, made with `beta`, and the score.

    One from before the policy wrote is passed over: it says nothing of what is known.
    """
    for at in range(len(branch.steps) - 2, -1, -1):
        earlier = branch.steps[at].scores.get("logratio")
        if isinstance(earlier, _Reward) and earlier.beta == beta:
            wrote = any(step.sampled for step in branch.steps[: at + 1])
            return (at + 1, earlier) if wrote else (0, 0.0)
    return 0, 0.0


def vocab_l2(branch: Branch, *, vlm: VLM | None = None) -> float | None:
    """Minus how far the verifier moved in the last step, over the whole vocabulary.

    The released code's rule: the distance between log(pi / pi_ref) of every token at the answer
    slot after the last step and before it. Its scripts stop at `threshold=-600`, with a vocabulary
    of 152 064; the distance grows with the root of the vocabulary's size.

    Raises:
        ModelError: the model has no verifier's adapter.
    """
    verifier = with_verifier(_given(vlm))
    sampled = [at for at, step in enumerate(branch.steps) if step.sampled]
    if not sampled:
        return None
    before = Branch(branch.sample, branch.steps[: sampled[-1]], None)
    now, then = (_moved(verdict_prompt(each), verifier) for each in (branch, before))
    return -math.dist(now, then)


def _moved(prompt: Conversation, verifier: Adapted) -> list[float]:
    """log(pi / pi_ref) of every token as the next one."""
    reference = verifier.using(None)
    both = (each.next_logprobs(prompt) for each in (verifier, reference))
    return [with_it - without for with_it, without in zip(*both, strict=True)]


def _given(vlm: VLM | None) -> VLM:
    if vlm is None:
        raise ModelError("this verifier asks a model: bind one, as partial(asked, vlm=model)")
    return vlm


def with_verifier(vlm: VLM) -> Adapted:
    """`vlm` as its verifier's adapter has it.

    Raises:
        ModelError: there is none.
    """
    if VERIFIER not in getattr(vlm, "adapters", ()):
        raise ModelError(
            f"{vlm.name} has no trained verifier: give its folder (--verifier FOLDER, or "
            'mm.load(verifier="FOLDER")), or use the verifier `asked`'
        )
    return cast(Adapted, vlm).using(VERIFIER)


def always(branch: Branch) -> float:
    """1 for every branch: always enough, a control."""
    return 1.0


def never(branch: Branch) -> float:
    """0 for every branch: never enough, a control."""
    return 0.0


def random_stop(branch: Branch, *, rate: float = 0.5, seed: int = 0) -> float:
    """1 at the given rate, else 0, by chance alone: a control.

    The same sample at the same step always gets the same number.
    """
    drawn = random.Random(f"{seed} {branch.sample.id} {len(branch.steps)}").random()
    return 1.0 if drawn < rate else 0.0
