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

from PIL import Image as Pil

from mm.origins import FrameOf
from mm.scripted import ScriptedVLM
from mm.session import Strategy, run
from mm.tokens.builder import TokenBuilder
from mm.trace import Sample
from mm.types import Conversation, Image, Message, assistant, message, user
from mm.vlm import Traits
from training.tabletop.clip_questions import CLIP_TASKS, ClipQuestion, ask_clip
from training.tabletop.motion import SECONDS, Motion, across_at, clip, lamp_at, make_motion
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

from .branches import Row, branched, fits, segment_of
from .packing import Segment
from .shards import BOX_GRID, VIEW, crop_windows, overview
from .vocabulary import LAMP

DEPTH_TOKENS, CLIP_TOKENS = 320, 736
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

FLASHING = 0.55
"""The share of clips that are drawn until one flashes once, and asked about it first."""

WHERE = "where "
MOVES = ("order", "direction")
FRAMES = 16
"""`uniform` sees so many; `watch` half of them, and as many again in its look."""

SEEN = partial(uniform, frames=FRAMES)
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
        return segment_of(builder, talk, [overview(image)])
    named = [(scene.things[i].name, scene.things[i].region) for i in about]
    system = message("system", told(noisy_depth(scene, rng), named))
    if not question.looks:
        talk = answered(scene, question, _BLANK, step=BOX_GRID)
        return segment_of(builder, (system, *talk), [overview(image)])
    blanks = [_BLANK] * len(scene.things)
    talk = solved(scene, question, _BLANK, blanks, step=BOX_GRID)
    windows = crop_windows(scene)
    views = [overview(image), *(square_view(image, windows[i], VIEW) for i in question.looks)]
    return segment_of(builder, (system, message("system", ZOOM_TOOL), *talk), views)


def things_of(scene: Scene, question: Question) -> Sequence[int]:
    """The things that a question is about, by number: those it names, else all."""
    unnamed = question.task in ("read_nearest", "search") or not question.about
    return range(len(scene.things)) if unnamed else question.about


def noisy_depth(scene: Scene, rng: random.Random) -> DepthMap:
    """The scene's depth map with an error of its own for each thing."""
    wrong = tuple(replace(t, depth=t.depth * rng.gauss(1, DEPTH_ERROR)) for t in scene.things)
    return as_map(depth_map(replace(scene, things=wrong), SIDE // 4), "metric")


def clip_row(builder: TokenBuilder, rng: random.Random) -> Row:
    """A clip and questions about it: all under `uniform`, or all under `watch`."""
    flashing = rng.random() < FLASHING
    motions = (make_motion(FIRST_SEED + rng.randrange(1 << 24)) for _ in count())
    motion = next(m for m in motions if not flashing or len(m.flashes) == 1)
    shown = Sample("", (user(clip(motion), ""),))
    ask_under = _watched if rng.random() < WATCHED else _seen
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
        if not ask_under(builder, motion, question, _about(shown, question.text), row):
            return row
    if ask_under is _seen:
        for slide in motion.slides:
            asked = _about(shown, track_question(motion, slide.thing))
            talk = _talk(SEEN, asked, [track(motion, slide.thing)])
            _added(builder, talk, (), row, "uniform track", "")
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


def _seen(
    builder: TokenBuilder, motion: Motion, question: ClipQuestion, sample: Sample, row: Row
) -> bool:
    """Whether the question still fits into the row, asked under `uniform`."""
    talk = _talk(SEEN, sample, [question.answer])
    if question.task == "moment" and question.answer not in lamp_states(motion, talk[0]).split():
        return True  # no frame shows it: there is nothing to learn
    asides = () if row[0] else (_lamp_aside(motion, (), talk[0]),)
    return _added(builder, talk, asides, row, f"uniform {question.task}", "uniform lamp")


def _watched(
    builder: TokenBuilder, motion: Motion, question: ClipQuestion, sample: Sample, row: Row
) -> bool:
    """Whether the question still fits into the row, asked under `watch`."""
    start, end = span_to_watch(motion, question)
    asked = f'{{"start_s": {start}, "end_s": {end}}}'
    strategy = partial(watch, frames=FRAMES // 2, look_frames=FRAMES // 2)
    talk = _talk(strategy, sample, [asked, question.answer])
    *before, shown, _ = talk
    asides = [_lamp_aside(motion, before, shown)]
    if not row[0]:
        asides.insert(0, _lamp_aside(motion, (), talk[0]))
    return _added(builder, talk, asides, row, f"watch {question.task}", "watch lamp")


def _lamp_aside(motion: Motion, before: Sequence[Message], shown: Message) -> Conversation:
    """Behind the frames of `shown`, the question what the lamp shows in each, and the answer."""
    asked = user(*shown.parts[:-1], LAMP)  # in place of the text behind the frames
    return (*before, asked, assistant(lamp_states(motion, shown)))


def lamp_states(motion: Motion, shown: Message) -> str:
    """What the lamp shows in each frame of `shown`."""
    times = [i.origin.time_s for i in shown.images if isinstance(i.origin, FrameOf)]
    return " ".join(lamp_at(motion, time) for time in times)


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


def _added(
    builder: TokenBuilder,
    talk: Conversation,
    asides: Sequence[Conversation],
    row: Row,
    kind: str,
    aside_kind: str,
) -> bool:
    """Whether the conversation still fits behind those of `row`, all about one clip."""
    frames = user(*talk[0].parts[:-1])  # the question comes last
    prefix = row[0][0] if row[0] else segment_of(builder, (frames,))
    if not row[0]:
        row[0].append(prefix)
        row[1].append("")
    pieces, others = branched(builder, talk, asides, prefix=prefix, number=len(row[0]))
    kinds = [kind] * len(pieces) + [aside_kind] * len(others)
    return fits(row, [*pieces, *others], kinds, tokens=CLIP_TOKENS, views=CLIP_VIEWS)


def _drawn(rng: random.Random, shares: Sequence[tuple[Any, float]]) -> Any:
    (drawn,) = rng.choices([each for each, _ in shares], [share for _, share in shares])
    return drawn
