"""Strategies that tell the model what a depth map shows (SSR, arXiv 2505.12448, as text)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from mm.errors import ModelError, UserError
from mm.geometry import Region
from mm.local.checkpoints import bundled_latents, find
from mm.local.fingerprint import fingerprint
from mm.session import Session, Strategy
from mm.strategies.single import direct
from mm.trace import Branch
from mm.types import Conversation, Image, Latents, Message, Sampling, Text, message, user
from mm.vlm import VLM

from .depth import BadDepth, DepthMap
from .depth_source import DepthSource, Estimate, check_default
from .grounding import parse_grounding
from .rationale import placed, rationale, whole_view
from .zoom import zoom

Named = Callable[[Session, Image], Sequence[tuple[str, Region]]]
"""The things in an image whose depth is told, by name."""

ReadLatents = Callable[[VLM, Image, DepthMap, str], Latents | None]
"""Latents for a model, of an image, its depth and a question; None for none."""

NOTE = "depth"
"""The trace's setting that says what was told."""

WHERE = (
    "Do not answer yet. Locate each object that this question is about: {question} "
    "Reply with boxes only, as JSON with {key} and label."
)
TOLD = "What a depth map of the image shows:\n"

NO_MIDI = (
    "depth-latent needs the module that reads depth: depth-latent(midi=FOLDER), where FOLDER is "
    "what `mm train depth` wrote"
)

_LOCATE = Sampling(max_tokens=256)


def depth_text(
    session: Session,
    *,
    depth: Estimate = DepthSource(),
    things: Named | None = None,
    strategy: Strategy = direct,
) -> Branch:
    """Answer with a rationale of depth before the question: distances, order, relations.

    Args:
        depth: gives the map of the question's first image.
        things: what is told of; None asks the model, beside the branch, where the things that the
            question names are, and tells of nine parts of the image where it names none.
        strategy: answers then.

    Raises:
        ModelError: the model failed, the question has no image, or its map cannot be had.
    """
    image, shown = _seen(session, depth)
    if shown is None:
        return strategy(session)
    named = list((things or own_things)(session, image)) or whole_view()
    words = told(shown, named)
    session.note(NOTE, _facts(shown, named, words))
    session.say(message("system", words))
    return strategy(session)


def depth_zoom(
    session: Session, *, depth: Estimate = DepthSource(), things: Named | None = None
) -> Branch:
    """`depth_text`, then the zoom loop: to know what is near, and to see it enlarged."""
    return depth_text(session, depth=depth, things=things, strategy=zoom)


def depth_latent(
    session: Session,
    *,
    depth: Estimate = DepthSource(),
    midi: str | ReadLatents | None = None,
    strategy: Strategy = direct,
) -> Branch:
    """Answer with latents of the image and its depth in the context, before the question (SSR).

    Args:
        depth: gives the map of the question's first image.
        midi: what reads it: a folder that `mm train depth` wrote, or a function; None is the one
            that comes along with `tiny`. Where stage 2 trained it, its adapter answers.
        strategy: answers then.

    Raises:
        ModelError: the model failed or is over a server, the question has no image, or its map
            cannot be had.
        ModelUnavailable: the module of the latents cannot be loaded.
    """
    image, shown = _seen(session, depth)
    read, answering = _reader(session, midi)
    session.hand_to(answering(session.vlm))
    if shown is None:
        return strategy(session)
    latents = read(session.vlm, image, shown, _question(session))
    if latents is not None:
        session.reword(with_latents(session.sample.prompt, latents))
    known = {"kind": shown.kind, "source": shown.source, "regions": []}
    session.note(NOTE, {**known, "latents": latents is not None})
    return strategy(session)


def _reader(
    session: Session, midi: str | ReadLatents | None
) -> tuple[ReadLatents, Callable[[VLM], VLM]]:
    """What reads, and the model as it answers behind what was read."""
    if callable(midi):
        return midi, lambda vlm: vlm
    folder = midi or bundled_latents(session.vlm.name)
    if folder is None:
        raise ModelError(NO_MIDI)
    from .latent_reader import load_reader

    reader = load_reader(str(folder))
    return reader, reader.answering


def make_ready(strategy: Strategy, model: str) -> dict[str, str]:
    """Load what `strategy`, or one inside it, reads depth for `model` with, before the first
    question is asked.

    Returns:
        By the folder of each module of latents, what tells its weights from others.

    Raises:
        UserError: depth-latent has no module.
        ModelUnavailable: the module, or the depth model that was named, cannot be loaded.
    """
    options = inspect.signature(strategy).parameters
    bound: dict[str, Any] = {name: option.default for name, option in options.items()}
    source, midi = bound.get("depth"), bound.get("midi", "")
    modules = _loaded(midi or bundled_latents(model)) if midi != "" else {}
    if isinstance(source, DepthSource) and source.model:
        source.loaded()
    if bound.get("strategy") not in (None, inspect.Parameter.empty):
        modules |= make_ready(bound["strategy"], model)
    return modules


def _loaded(midi: object) -> dict[str, str]:
    if callable(midi):
        return {}
    if midi is None:
        raise UserError(NO_MIDI)
    from .latent_reader import load_reader

    load_reader(str(midi))
    return {str(midi): fingerprint(find(str(midi)))}


def with_latents(prompt: Conversation, latents: Latents) -> Conversation:
    """`prompt` with the latents behind its first image, on a line of their own, once."""
    if any(latents in said.parts for said in prompt):  # another draw of the question put them there
        return prompt
    for number, said in enumerate(prompt):
        if latents.image in said.parts:
            at = said.parts.index(latents.image) + 1
            parts = (*said.parts[:at], latents, Text("\n"), *said.parts[at:])
            return (*prompt[:number], replace(said, parts=parts), *prompt[number + 1 :])
    return prompt


def _seen(session: Session, depth: Estimate) -> tuple[Image, DepthMap | None]:
    """The question's first image and its depth; None where it is not to be told."""
    if not session.sample.images:
        raise ModelError("depth needs an image, and the question has none")
    image = session.sample.images[0]
    try:
        found = depth(session.sample, image)
        if found is not None:
            check_default(depth, found, session.vlm.name)
        return image, found
    except BadDepth as error:  # this question's alone, of many that may be asked
        raise ModelError(str(error)) from error


def told(depth: DepthMap, named: Sequence[tuple[str, Region]]) -> str:
    """The rationale as the model gets it, before the question."""
    return TOLD + rationale(depth, named)


def own_things(session: Session, image: Image) -> list[tuple[str, Region]]:
    """The things that the question names, where the model itself sees them, by one side question.

    A thing that is named twice is numbered.
    """
    asked = _question(session)
    where = user(where_asked(asked, session.vlm.traits.box_format.key))
    if len(session.sample.images) > 1:
        parts = _asked_alone(session, user(image, asked), where).parts
    else:
        aside = session.at(None)
        aside.say(where)
        parts = aside.generate(_LOCATE).message.parts
    text = "".join(part.text for part in parts if isinstance(part, Text))
    seen = session.vlm.seen_size(image.size, image.kind)
    found = parse_grounding(text, session.vlm.traits.box_format, seen)
    return _numbered([(each.label or "object", each.region) for each in found])


def _asked_alone(session: Session, *prompt: Message) -> Message:
    """The reply to a prompt of its own: of several images' boxes nobody knows which image they lie
    in. What was said stands beside the branch, with its cost."""
    (reply,) = session.vlm.generate([prompt], _LOCATE, cancel=session.cancel)
    aside = session.at(None)
    for said in prompt:
        aside.say(said)
    aside.say(reply.message, cost=reply.cost)
    return reply.message


def where_asked(question: str, key: str) -> str:
    """The words that ask where the things are that a question names; `key` names a box."""
    return WHERE.format(question=question, key=key)


def _question(session: Session) -> str:
    said = [m.text for m in session.sample.prompt if m.role == "user"]
    return " ".join(said[-1].split()) if said else ""


def _numbered(found: Sequence[tuple[str, Region]]) -> list[tuple[str, Region]]:
    labels = [label for label, _ in found]
    named, counts = [], dict.fromkeys(labels, 0)
    for label, region in found:
        counts[label] += 1
        more = f" {counts[label]}" if labels.count(label) > 1 else ""
        named.append((label + more, region))
    return named


def _facts(depth: DepthMap, named: Sequence[tuple[str, Region]], words: str) -> dict[str, object]:
    """The map, its regions, and the `words` the model was told, for `--json` and traces."""
    things = [
        {
            "name": thing.name,
            "region": [round(v, 4) for v in asdict(thing.region).values()],
            "depth": None if thing.depth is None else round(thing.depth.median, 4),
        }
        for thing in placed(depth, named)
    ]
    lines = words.removeprefix(TOLD).split("\n")
    return {"kind": depth.kind, "source": depth.source, "regions": things, "told": lines}
