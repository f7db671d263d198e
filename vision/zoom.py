"""The strategy `zoom`: the model asks for a region, sees it enlarged, and goes on (VLM-R3)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from typing import Any, Literal, Protocol

from mm.geometry import Region, Size
from mm.markup import render_parts
from mm.origins import Cropped
from mm.session import Session
from mm.strategies.forced_answer import open_answer
from mm.strategies.single import direct
from mm.trace import Branch, Sample
from mm.types import (
    Features,
    Generation,
    Image,
    Message,
    Text,
    Thinking,
    ToolCall,
    assistant,
    message,
    user,
)
from mm.vlm import CropRule

from .ask_region import NOT_SHOWN, Ground, ask_where, show
from .crop import crop
from .look_loop import Enough, Limits, Spent, look, unasked
from .regions import copy_of, original
from .zoom_tool import BadCall, RegionCall, read_arguments, read_zoom_call, tool_calls, zoom_tool

Layout = Literal["tool", "inline"]

ChooseRegion = Callable[[Sample, Region], Region]
"""The region really shown for the one asked for; both are regions of the original image."""

PAUSES = ("]}", "]\n}", "] }")
"""Where VLM-R3's policy may ask for a crop."""

STOPS = (*PAUSES, "</answer>")
"""Where VLM-R3's policy pauses, or is done."""

Shoot = Callable[[Session, RegionCall], Image | Features]
"""What is shown of a region that was asked for; raises `BadCall` where nothing can be."""


class Cut(Protocol):
    """Cuts a region out of an image: `crop`, or a `partial` of it."""

    def __call__(self, image: Image, region: Region, *, rule: CropRule) -> Image: ...


@dataclass(frozen=True)
class Camera:
    """How a region that was asked for becomes the crop that is shown.

    Attributes:
        rule: None for the rule that the model was trained on.
        choose_region: None shows what was asked for.
    """

    rule: CropRule | None = None
    cut: Cut = crop
    choose_region: ChooseRegion | None = None

    def shoot(self, session: Session, asked: RegionCall) -> Image:
        """The crop that `asked` asks for, always cut from the original image.

        Raises:
            BadCall: it was shown before, or the region lies wholly in the grey padding of a crop.
        """
        images = session.images
        rule = self.rule or session.vlm.traits.crop_rule
        try:
            source, region = original(images, images[asked.index], asked.region, rule)
        except ValueError:
            raise BadCall("The box lies outside the picture. Choose another.") from None
        if self.choose_region:
            region = self.choose_region(session.sample, region)
        made = _copied(self.cut(source, region, rule=rule), copy_of(images, asked.index))
        if any(_alike(made, image, source.size) for image in images):
            raise BadCall("This region was already shown above. Choose another, or answer.")
        return made


def _copied(made: Image, copy: int) -> Image:
    """`made`, cut from that copy of several images of the same pixels."""
    if not copy or not isinstance(made.origin, Cropped):
        return made
    return replace(made, origin=replace(made.origin, copy=copy))


def _alike(a: Image, b: Image, size: Size) -> bool:
    """Whether two crops of one image of `size` show the same, up to the pixel at each edge by
    which a crop of a whole crop grows."""
    if not (isinstance(a.origin, Cropped) and isinstance(b.origin, Cropped)):
        return False
    if (a.origin.parent, a.origin.copy) != (b.origin.parent, b.origin.copy):
        return False
    edges = zip(a.origin.region.to_pixels(size), b.origin.region.to_pixels(size), strict=True)
    return all(abs(x - y) <= 1 for x, y in edges)


def zoom(
    session: Session,
    *,
    max_looks: int = 6,
    layout: Layout = "tool",
    rule: CropRule | None = None,
    offer: bool = True,
    force: bool = False,
    ground: Ground = ask_where,
    choose_region: ChooseRegion | None = None,
    cut: Cut = crop,
    look_tokens: int | None = None,
) -> Branch:
    """Let the model look at regions of its images, enlarged, until it answers.

    Args:
        max_looks: calls that are carried out, wrong ones included; then it must answer.
        layout: "tool" offers `image_zoom_in_tool`; "inline" is VLM-R3's own, boxes and crops within
            one assistant turn.
        rule: how a crop is cut; None for the rule the model was trained on.
        offer: False when the prompt itself offers the tool, or gives the inline instruction.
        force: a model that answers at once is still asked where to look.
        ground: where to look, for a model that calls no tools, or is forced.
        choose_region: replaces each region asked for, for controls.
        cut: `crop` with other options, such as a pixel budget.
        look_tokens: no more looks once the crops cost this many.

    Raises:
        ModelError: the model failed.
    """
    camera = Camera(rule, cut, choose_region)
    limits = Limits(max_looks, look_tokens)
    if layout == "inline":
        return _inline(session, camera, limits, offer)
    if not session.vlm.traits.calls_tools:
        return two_steps(session, camera.shoot, limits, ground)
    branch = by_calls(session, camera.shoot, limits, offer=offer)
    asked = any(step.message.role == "tool" for step in branch.steps)
    return branch if asked or not force else two_steps(session, camera.shoot, limits, ground)


def by_calls(
    session: Session,
    shoot: Shoot,
    limits: Limits,
    *,
    offer: bool = True,
    enough: Enough = unasked,
    spent: Spent | None = None,
) -> Branch:
    """Let the model call for regions of its images until it answers, or `enough` ends it.

    `spent` is as `look` has it.
    """
    if offer:
        offer_zoom(session)
    return look(
        session,
        parse=tool_calls,
        observe=partial(answer_call, shoot=shoot),
        limits=limits,
        enough=enough,
        spent=spent,
    )


def two_steps(session: Session, shoot: Shoot, limits: Limits, ground: Ground = ask_where) -> Branch:
    """Ask where, show it unless no look is allowed, ask again; a question without images is only
    asked."""
    if session.images:
        asked = ground(session)
        granted = asked if limits.looks else None
        session.say(NOT_SHOWN if granted is None else _shown(session, shoot, granted))
    return direct(session)


def offer_zoom(session: Session) -> None:
    """Put the zoom tool on offer, as the model's family writes boxes."""
    session.say(Message("system", (zoom_tool(session.vlm.traits.box_format),)))


def inline_instruction(
    key: str, order: Literal["xyxy", "yxyx"] = "xyxy", frame: Size | None = None
) -> str:
    """What VLM-R3's user says after the question, to a model that writes boxes so.

    A `frame` of None is the paper's, pixels of the image, which its words do not name.
    """
    corners = "x1, y1, x2, y2" if order == "xyxy" else "y1, x1, y2, x2"
    within = f" in 0 to {frame[0]} across and 0 to {frame[1]} down the image" if frame else ""
    return (
        "\nFirst think, then answer. While thinking, look closely at key areas: call the "
        f'"crop" tool with {{"{key}": [{corners}]}}{within}. '
        "Write the thoughts within <think> </think> and the answer within <answer> </answer>."
    )


def answer_call(session: Session, call: ToolCall | None, *, shoot: Shoot) -> Message:
    """What `call` asks to see, or what is wrong with it, for `look`."""
    try:
        return message("tool", shoot(session, read_zoom_call(call, session.images, session.vlm)))
    except BadCall as error:
        return message("tool", str(error))


def _shown(session: Session, shoot: Shoot, asked: RegionCall) -> Message:
    try:
        return show(shoot(session, asked))
    except BadCall:
        return NOT_SHOWN


def _inline(session: Session, camera: Camera, limits: Limits, offer: bool) -> Branch:
    if offer:
        boxes = session.vlm.traits.box_format
        frame = None if boxes.order == "xyxy" else boxes.frame  # else the words that are trained on
        session.say(user(inline_instruction(boxes.key, boxes.order, frame)))
    return look(
        session,
        parse=_inline_boxes,
        observe=partial(_answer_inline, camera=camera),
        close=_open_inline,
        limits=limits,
        write=_write_inline,
    )


def _write_inline(session: Session) -> Generation:
    """The policy's text up to a box, its answer or its end.

    A pause that asks for nothing is gone on with, within the tokens of one reply.
    """
    sampling = session.sampling
    stops, left = (*sampling.stop, *STOPS), sampling.max_tokens
    while True:
        reply = session.generate(replace(sampling, stop=stops, max_tokens=left))
        left -= max(reply.cost.generated_tokens, 1)
        if not _paused_for_nothing(session, reply):
            return reply
        if left <= 0:
            return replace(reply, finish="length")


def _paused_for_nothing(session: Session, reply: Generation) -> bool:
    text = render_parts(reply.message.parts)
    paused = reply.finish == "stop" and text.endswith(PAUSES)
    wanted = any(text.endswith(stop) for stop in session.sampling.stop)
    return paused and not wanted and not _inline_boxes(session, reply)


def _inline_boxes(session: Session, reply: Generation) -> tuple[Mapping[str, Any] | None, ...]:
    """The last JSON object since the last look that names a box; None when it cannot be read."""
    key = f'"{session.vlm.traits.box_format.key}"'
    written = takewhile(lambda step: step.sampled, reversed(session.branch.steps))
    text = "".join(reversed([render_parts(step.message.parts) for step in written]))
    if key not in text or "<answer>" in _turn(session):
        return ()
    objects = [*re.finditer(r"\{[^{}]*\}", text)]
    if named := [found[0] for found in objects if key in found[0]]:
        return (_read_object(named[-1]),)
    mentioned = objects and objects[-1].start() > text.rindex(key)
    return () if mentioned else (None,)


def _read_object(text: str) -> Mapping[str, Any] | None:
    try:
        return json.loads(text, strict=False)  # a raw line break in a label can be read
    except (ValueError, RecursionError):
        return None


def _turn(session: Session) -> str:
    """All the assistant wrote in its open turn, thoughts included."""
    said = []
    for step in reversed(session.branch.steps):
        if step.message.role != "assistant":
            break
        said += [p.text for p in step.message.parts if isinstance(p, Text | Thinking)]
    return "".join(said)


def _answer_inline(
    session: Session, arguments: Mapping[str, Any] | None, *, camera: Camera
) -> Message:
    try:
        if arguments is None:
            raise BadCall("Invalid operation! The box is not a JSON object.")
        made = camera.shoot(session, read_arguments(arguments, session.images, session.vlm))
        return assistant("\n", made, "\n")
    except BadCall as error:
        return assistant(f"\n{error}\n")


def _open_inline(session: Session, observation: Message | None) -> Message:
    opened = open_answer(session.branch)
    if observation is None:
        return opened
    return Message("assistant", (*observation.parts, *opened.parts))
