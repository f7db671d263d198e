"""Training rows of the extend stage: whether what was seen and said so far is enough.

The conversations are those of `scale` with a reasoner that errs: it passes things over, answers
before it has seen what it must, or looks on for nothing. Verdicts stand beside them, where `scale`
asks for them. What the reasoner says trains only from where it was told to go on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image as Pil

from mm.tokens.builder import TokenBuilder
from mm.types import Conversation, Image, Message, assistant, message, user
from training.tabletop.questions import Question, ask
from training.tabletop.scene import Scene
from training.tabletop.traces import look_call
from vision.look_loop import GO_ON
from vision.verifier import ENOUGH, NO, YES
from vision.zoom_tool import ZOOM_TOOL

from .branches import Row, branched, fits, segment_of
from .shards import BOX_GRID, Views

VERDICT_TOKENS, VERDICT_VIEWS = 448, 13
"""The length of these rows, and at most so many views in one."""

MIX = (("search", 0.7), ("same", 0.08), ("read", 0.08), ("colour", 0.05), ("count", 0.09))
"""What is asked, with its share."""

CARELESS, PASSED_OVER, LOOKS_ON, SLIPS = 0.6, 0.3, 0.15, 0.2
"""How often the reasoner passes things over, and how often each; how often it looks on after it
has seen enough; how often it answers wrong although it has."""

AGAIN = 0.55
"""How often it errs once more after it was told to go on: not all is right that comes then."""

WHICH = "Which letters?"
"""Asks for the letters that were seen, in order: what verdicts are made from."""


@dataclass
class _Talk:
    """A conversation as it grows, with the verdicts, and the letters seen, after so many of its
    messages."""

    said: list[Message]
    verdicts: list[tuple[int, bool]]
    letters: list[tuple[int, str]]

    def look(self, call: Message, crop: Image, enough: bool, letters: str) -> None:
        self.said += [call, Message("tool", (crop,))]
        self.verdicts.append((len(self.said), enough))
        self.letters.append((len(self.said), letters))

    def answer(self, text: str, right: bool) -> None:
        self.said.append(assistant(text))
        self.verdicts.append((len(self.said), right))

    @property
    def asides(self) -> list[Conversation]:
        """The conversations that end with each verdict, then those that end with letters."""
        verdicts = [(at, ENOUGH, YES if enough else NO) for at, enough in self.verdicts]
        letters = [(at, WHICH, said) for at, said in self.letters]
        return [
            (*self.said[:at], user(question), assistant(answer))
            for at, question, answer in [*verdicts, *letters]
        ]

    @property
    def kinds(self) -> list[str]:
        """What each aside asks, without the task."""
        return ["verdict"] * len(self.verdicts) + ["letters"] * len(self.letters)


def verdict_row(builder: TokenBuilder, views: Views, rng: random.Random) -> Row:
    """Conversations about one scene, with their verdicts."""
    image = Image(Pil.fromarray(views.overview))
    system = message("system", ZOOM_TOOL)
    prefix = segment_of(builder, (system, user(image)))
    row: Row = ([prefix], [""])
    names, shares = [name for name, _ in MIX], [share for _, share in MIX]
    misses = 0
    while misses < 8:
        (task,) = rng.choices(names, shares)
        question = ask(task, views.scene, rng)
        if question is None:
            misses += 1
            continue
        talk, silent = _talk([system, user(image, question.text)], views, question, rng)
        number = len(row[0])
        pieces, asides = branched(
            builder, tuple(talk.said), talk.asides, prefix=prefix, number=number, silent=silent
        )
        kinds = ["again"] * len(pieces) + [_kind(each, task) for each in talk.kinds]
        added = fits(row, [*pieces, *asides], kinds, tokens=VERDICT_TOKENS, views=VERDICT_VIEWS)
        misses += not added
    return row


def _kind(asked: str, task: str) -> str:
    return asked if asked == "letters" else f"{asked} {task}"


def _talk(
    opening: Sequence[Message], views: Views, question: Question, rng: random.Random
) -> tuple[_Talk, int]:
    """The conversation, and the index of the verdict from which on the reasoner trains."""
    talk = _Talk(list(opening), [], [])
    seen: list[int] = []
    for said, thing in _said_before(views.scene, _erring(views.scene, question, rng)):
        seen.append(thing)
        _look(talk, views, question, thing, said, seen)
    right = _answered(talk, views.scene, question, seen, rng)
    silent = len(talk.verdicts) - 1
    for last in _rounds(right, rng):
        silent = len(talk.verdicts) - 1
        talk.said.append(GO_ON)
        missing = [thing for thing in question.looks if thing not in seen]
        if not last:
            missing = missing[: rng.randint(0, len(missing))]
        for said, thing in _said_before(views.scene, missing):
            seen.append(thing)
            _look(talk, views, question, thing, said, seen)
        if last:
            _answer(talk, views.scene, question, missing, question.answer, True)
        elif _answered(talk, views.scene, question, seen, rng):
            break
    return talk, silent


def _rounds(right: bool, rng: random.Random) -> Iterator[bool]:
    """For each time that the reasoner is told to go on, whether it is the last."""
    if right:
        return
    while rng.random() < AGAIN:
        yield False
    yield True


def _answered(
    talk: _Talk, scene: Scene, question: Question, seen: Sequence[int], rng: random.Random
) -> bool:
    """Let the reasoner answer from what it saw; whether that is right."""
    right = _enough(question, seen) and rng.random() >= SLIPS
    _answer(talk, scene, question, seen, _right_or_wrong(question, right, rng), right)
    return right


def _erring(scene: Scene, question: Question, rng: random.Random) -> list[int]:
    """What the reasoner looks at before it answers."""
    if question.task == "read":
        wrong = [i for i in range(len(scene.things)) if i not in question.looks]
        first = [rng.choice(wrong)] if wrong and rng.random() < CARELESS else []
        return first if first and rng.random() < 0.5 else [*first, *question.looks]
    if question.task == "same":
        return list(question.looks[: 1 if rng.random() < PASSED_OVER else 2])
    if question.task != "search":
        return []
    rate = PASSED_OVER if rng.random() < CARELESS else 0.0
    kept = [i for i in question.looks if rng.random() >= rate]
    beyond = range(question.looks[-1] + 1, len(scene.things))
    if rng.random() < LOOKS_ON or question.looks[-1] not in kept:
        kept += beyond[: rng.randint(0, 2)]
    return kept if rng.random() >= PASSED_OVER / 2 else kept[: rng.randint(0, len(kept))]


def _said_before(scene: Scene, things: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Each thing that is looked at, and what is said first: the letter that was read last."""
    said = ""
    for thing in things:
        yield said, thing
        said = f"{scene.things[thing].letter}."


def _look(
    talk: _Talk, views: Views, question: Question, thing: int, said: str, seen: Sequence[int]
) -> None:
    call = look_call(views.scene, thing, BOX_GRID)
    crop = Image(Pil.fromarray(views.crops[thing]))
    before = (f"{said}\n",) if said else ()
    letters = " ".join(views.scene.things[each].letter for each in seen)
    talk.look(assistant(*before, call), crop, _enough(question, seen), letters)


def _enough(question: Question, seen: Sequence[int]) -> bool:
    """Whether what an answer needs was among what was seen."""
    needed = question.about if question.task == "search" else question.looks
    return set(needed) <= set(seen)


def _answer(
    talk: _Talk, scene: Scene, question: Question, seen: Sequence[int], answer: str, right: bool
) -> None:
    if question.task in ("same", "search") and seen:
        answer = f"{scene.things[seen[-1]].letter}.\n<answer>{answer}</answer>"
    talk.answer(answer, right)


def _right_or_wrong(question: Question, right: bool, rng: random.Random) -> str:
    if right:
        return question.answer
    if question.task == "count":
        return str(abs(int(question.answer) + rng.choice((-1, 1))))
    return rng.choice([choice for choice in question.choices if choice != question.answer])
