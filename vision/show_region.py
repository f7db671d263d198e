"""Shows a model a region that it did not ask for, in the form it knows best."""

from __future__ import annotations

from collections.abc import Mapping

from mm.geometry import Region
from mm.session import Session
from mm.strategies.forced_answer import force_answer
from mm.trace import Branch
from mm.types import Cost, Image, ToolCall, assistant, message

from .ask_region import show, where
from .grounding import format_box
from .look_loop import REFUSED
from .zoom import offer_zoom
from .zoom_tool import ZOOM, RegionCall, tool_calls

_STEPS = 50


def present(session: Session, asked: RegionCall, made: Image, *, cost: Cost = Cost()) -> None:
    """Say where `asked` is and show `made`, its crop; neither counts as the policy's.

    A model that calls tools gets it as the answer to a call of its own; any other as the answer to
    the question where to look. The box is written to a fiftieth of the image, about as exactly as
    a model points. `cost` is what finding the region took.
    """
    box_format = session.vlm.traits.box_format
    image = session.images[asked.index]
    seen = session.vlm.seen_size(image.size, image.kind)
    region = _coarse(asked.region)
    if not session.vlm.traits.calls_tools:
        session.say(where(box_format, len(session.images)))
        session.say(assistant(format_box(region, box_format, seen)))
        session.say(show(made), cost=cost)
        return
    offer_zoom(session)
    box = box_format.write(region, seen)
    arguments: Mapping[str, object] = {"label": "object", box_format.key: box}
    if asked.index:
        arguments = {**arguments, "img_idx": asked.index}
    session.say(assistant(ToolCall(ZOOM, arguments)))
    session.say(message("tool", made), cost=cost)


def answer(session: Session) -> Branch:
    """Let the model answer; one that would rather look again is told, once, that it cannot."""
    reply = session.generate()
    if reply.finish != "cancelled" and (calls := tool_calls(session, reply)):
        for _ in calls:
            session.say(REFUSED)
        session.generate()
    return force_answer(session)


def _coarse(region: Region) -> Region:
    low = [round(v * _STEPS) / _STEPS for v in (region.x0, region.y0)]
    high = [round(v * _STEPS) / _STEPS for v in (region.x1, region.y1)]
    x0, y0 = (min(v, 1 - 1 / _STEPS) for v in low)
    x1, y1 = (max(v, w + 1 / _STEPS) for v, w in zip(high, (x0, y0), strict=True))
    return Region(x0, y0, min(x1, 1.0), min(y1, 1.0))
