"""Training rows of the extend stage: what depth maps tell, and clips.

The conversations are those that the strategies `depth`, `depth-zoom`, `uniform` and `watch` have
with a perfect reasoner; a row is one clip with several questions, or several conversations that
do not see each other.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import numpy as np
from PIL import Image as Pil

from mm.scripted import ScriptedVLM
from mm.session import Strategy, run
from mm.tokens.builder import TokenBuilder
from mm.trace import Sample
from mm.types import Conversation, Image, Message, assistant, message, user
from mm.vlm import Traits
from training.tabletop.clip_questions import CLIP_TASKS, ClipQuestion, ask_clip
from training.tabletop.motion import SECONDS, Motion, across_at, clip, make_motion
from training.tabletop.questions import Question, ask, box_text
from training.tabletop.render import depth_map, render
from training.tabletop.scene import SIDE, Level, Scene, make_scene
from training.tabletop.traces import answered, solved
from video.search import uniform, watch
from vision.crop import square_view
from vision.depth import DepthMap
from vision.depth import depth_map as as_map
from vision.depth_strategies import told, where_asked
from vision.zoom_tool import ZOOM_TOOL

from .rows import Segment
from .shards import BOX_GRID, VIEW, crop_windows, overview

DEPTH_TOKENS, CLIP_TOKENS = 320, 672
"""The length of rows about depth, and about clips."""

DEPTH_VIEWS, CLIP_VIEWS = 4, 24
"""At most so many views in a row."""

FIRST_SEED = 1 << 30
"""Scenes and clips of this stage have seeds from here on: no other stage sees them."""

LEVELS = ((Level.GRAIN, 0.6), (Level.PERSPECTIVE, 0.25), (Level.TABLE, 0.15))
DEPTH_MIX = (
    *(("where nearer", 0.1), ("where read_nearest", 0.1), ("where ", 0.08)),
    *(("nearer", 0.3), ("read_nearest", 0.2), ("colour", 0.05), ("count", 0.07)),
    *(("read", 0.06), ("same", 0.04)),
)
"""What is asked where a depth map was told of: where things are, or a task."""

DEPTH_ERROR = 0.03
"""How wrong the depths are that are told, as a share of them: depth models err too."""

WATCHED = 0.5
"""The share of clips asked about under `watch`."""

FLASHING = 0.4
"""The share of clips that are drawn until one flashes once, and asked about it first."""

WHERE = "where "
MOVES = ("order", "direction")
FRAMES = 16
"""`uniform` sees so many; `watch` half of them, and as many again in its look."""

SEEN = partial(uniform, frames=FRAMES)
Row = tuple[list[Segment], list[str]]
"""Prefix and branches, and what each asks."""

_NOTHING = Segment((), (), ())
_BLANK = Image(Pil.new("RGB", (VIEW, VIEW)))


def depth_row(builder: TokenBuilder, rng: random.Random) -> Row:
    """Conversations about depth that fit into `DEPTH_TOKENS`, about one scene after another."""
    segments, kinds, used, misses = [_NOTHING], [""], 0, 0
    while misses < 2:
        scene = make_scene(FIRST_SEED + rng.randrange(1 << 24), _drawn(rng, LEVELS))
        image = render(scene)
        for _ in range(2):
            kind = _drawn(rng, DEPTH_MIX)
            made = _depth_segment(builder, scene, image, kind, rng)
            if made is None:
                continue
            views = sum(len(each.views) for each in [*segments, made])
            if used + len(made.ids) > DEPTH_TOKENS or views > DEPTH_VIEWS:
                misses += 1
                continue
            segments.append(made)
            kinds.append(f"depth {kind.split()[0]}")
            used += len(made.ids)
    return segments, kinds


def _depth_segment(
    builder: TokenBuilder, scene: Scene, image: Pil.Image, kind: str, rng: random.Random
) -> Segment | None:
    where, task = kind.startswith(WHERE), kind.removeprefix(WHERE)
    question = ask(task or rng.choice(("read", "same", "colour", "count")), scene, rng)
    if question is None:
        return None
    about = things_of(scene, question)
    if where:
        boxes = ", ".join(box_text(scene, i, BOX_GRID) for i in about)
        asked = user(where_asked(question.text, builder.traits.box_format.key))
        talk = (user(_BLANK, question.text), asked, assistant(f"[{boxes}]"))
        return _segment(builder, talk, [overview(image)])
    named = [(scene.things[i].name, scene.things[i].region) for i in about]
    system = message("system", told(noisy_depth(scene, rng), named))
    if not question.looks:
        talk = answered(scene, question, _BLANK, step=BOX_GRID)
        return _segment(builder, (system, *talk), [overview(image)])
    blanks = [_BLANK] * len(scene.things)
    talk = solved(scene, question, _BLANK, blanks, step=BOX_GRID)
    windows = crop_windows(scene)
    views = [overview(image), *(square_view(image, windows[i], VIEW) for i in question.looks)]
    return _segment(builder, (system, message("system", ZOOM_TOOL), *talk), views)


def things_of(scene: Scene, question: Question) -> Sequence[int]:
    """The things that a question is about, by number: those it names, else all."""
    unnamed = question.task in ("read_nearest", "search") or not question.about
    return range(len(scene.things)) if unnamed else question.about


def noisy_depth(scene: Scene, rng: random.Random) -> DepthMap:
    """The scene's depth map with an error of its own for each thing."""
    wrong = tuple(replace(t, depth=t.depth * rng.gauss(1, DEPTH_ERROR)) for t in scene.things)
    return as_map(depth_map(replace(scene, things=wrong), SIDE // 4), "metric")


def clip_row(builder: TokenBuilder, rng: random.Random) -> Row:
    """A clip and questions about it: all under `uniform`, or some under `watch`."""
    flashing = rng.random() < FLASHING
    motions = (make_motion(FIRST_SEED + rng.randrange(1 << 24)) for _ in count())
    motion = next(m for m in motions if not flashing or len(m.flashes) == 1)
    shown = Sample("", (user(clip(motion), ""),))
    watching = rng.random() < WATCHED
    tasks = [*CLIP_TASKS, *MOVES]
    rng.shuffle(tasks)
    if flashing:
        tasks.insert(0, "moment")
    row: Row = ([], [])
    said: set[str] = set()
    for task in tasks:
        question = ask_clip(task, motion, rng)
        if question is None or question.text in said:
            continue
        said.add(question.text)
        sample = _about(shown, question.text)
        if watching:
            talk = _watched(motion, question, sample)
        else:
            talk = _talk(SEEN, sample, [question.answer])
        if not _added(builder, talk, row, f"{'watch' if watching else 'uniform'} {task}"):
            return row
    if not watching:
        for slide in motion.slides:
            talk = _talk(
                SEEN,
                _about(shown, track_question(motion, slide.thing)),
                [track(motion, slide.thing)],
            )
            _added(builder, talk, row, "uniform track")
    return row


def _about(shown: Sample, text: str) -> Sample:
    return replace(shown, prompt=(user(*shown.clips, text),))


def track_question(motion: Motion, thing: int) -> str:
    """Asks where a thing is in every frame: no task, but what the others are answered from."""
    return f"Where is the {motion.scene.things[thing].name} in each frame?"


def track(motion: Motion, thing: int) -> str:
    """How far across it is, in thousandths, in each frame that `uniform` shows."""
    step = SECONDS / FRAMES
    across = [across_at(motion, (n + 0.5) * step)[thing] for n in range(FRAMES)]
    return " ".join(str(BOX_GRID * round(x * 1000 / BOX_GRID)) for x in across)


def _watched(motion: Motion, question: ClipQuestion, sample: Sample) -> Conversation:
    start, end = span_to_watch(motion, question)
    asked = f'{{"start_s": {start}, "end_s": {end}}}'
    strategy = partial(watch, frames=FRAMES // 2, look_frames=FRAMES // 2)
    return _talk(strategy, sample, [asked, question.answer])


def span_to_watch(motion: Motion, question: ClipQuestion) -> tuple[float, float]:
    """What a perfect reasoner asks for, in seconds, from what few frames show.

    For `moment` that is from the last frame before the lamp is lit to the first that shows it lit;
    else the whole clip.
    """
    if question.task != "moment":
        return 0.0, SECONDS
    step = SECONDS / (FRAMES // 2)
    (flash,) = motion.flashes
    number = max(math.ceil((flash.start_s - step / 2) / step), 0)
    end = min((number + 0.5) * step, SECONDS)
    return max(end - step, 0.0), end if number < FRAMES // 2 else SECONDS


def _talk(strategy: Strategy, sample: Sample, replies: Sequence[str]) -> Conversation:
    """What a model that gives `replies` sees and says."""
    vlm = ScriptedVLM(replies, traits=Traits(calls_tools=False))
    trace = run(strategy, sample, vlm)
    assert trace.error is None, trace.error
    said = (*vlm.conversations[-1], assistant(replies[-1]))
    return tuple(replace(m, tokens=None) for m in said)  # those are the script's own


def _added(builder: TokenBuilder, talk: Conversation, row: Row, kind: str) -> bool:
    """Whether the conversation still fits behind those of `row`, all about one clip."""
    segments, kinds = row
    first = talk[0]
    frames = user(*first.parts[:-1])  # the question comes last
    prefix = _segment(builder, (frames,), _views(frames))
    whole = _segment(builder, talk, [view for said in talk for view in _views(said)])
    branch = _behind(prefix, whole)
    if not segments:
        segments.append(prefix)
        kinds.append("")
    if sum(len(s.ids) for s in segments) + len(branch.ids) > CLIP_TOKENS:
        return False
    segments.append(branch)
    kinds.append(kind)
    return True


def _behind(prefix: Segment, whole: Segment) -> Segment:
    """`whole` without the prefix it begins with."""
    start = len(prefix.ids)
    assert whole.ids[:start] == prefix.ids
    views = tuple((at - start, view) for at, view in whole.views if at >= start)
    return Segment(whole.ids[start:], whole.trained[start:], views)


def _segment(builder: TokenBuilder, talk: Conversation, views: Sequence[Pil.Image]) -> Segment:
    """The tokens of a conversation up to the last that trains, or the last image of a prefix."""
    tokens = builder.build(talk, open_turn=False)
    trains = [i for i, trained in enumerate(tokens.trained) if trained]
    stop = trains[-1] + 1 if trains else tokens.images[-1].stop + 1
    shown = zip([span.start for span in tokens.images], map(np.asarray, views), strict=True)
    return Segment(tokens.ids[:stop], tokens.trained[:stop], tuple(shown))


def _views(said: Message) -> list[Pil.Image]:
    return [overview(part.pixels) for part in said.parts if isinstance(part, Image)]


def _drawn(rng: random.Random, shares: Sequence[tuple[Any, float]]) -> Any:
    (drawn,) = rng.choices([each for each, _ in shares], [share for _, share in shares])
    return drawn
