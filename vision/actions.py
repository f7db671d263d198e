"""What a model may do with its images besides looking: typed functions, made tools by their types.

Each returns images and text, is deterministic, and its images say where they came from. A box
always lies in the original image. To add an action, write a function and pass it:
`partial(act, actions=(*ACTIONS, mine))`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Literal

from mm.errors import CannotScore, quote
from mm.geometry import Region
from mm.origins import Cropped, Drawn
from mm.session import Session, name_of
from mm.types import Image, Sampling, Text, ToolSpec, user

from .action_schema import Action, Point, Seen
from .crop import crop as enlarged
from .crop import inclusive_box, sturdy
from .depth import DepthMap, greys
from .draw import draw, sheet
from .grounding import Grounded, parse_grounding
from .regions import original
from .zoom_tool import BadCall

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

Rank = Callable[[Image, str], float]
"""How well a window of an image shows what is searched for; the higher the better."""

Reader = Callable[[Image], Sequence[Grounded]]
"""The lines of text in an image, in reading order: where each is, and what it says."""

Detect = Callable[[Image, str], Sequence[Grounded]]
"""Where an image shows something, the surest first."""

SIDE, STRIDE, ACROSS = 1 / 3, 2 / 9, 4
"""Windows of a search: 4 x 4, each a third of the image's sides, as VTS-V has them."""

_LEAST_CROP = 28
_POINT = 0.01
_LOCATE = Sampling(max_tokens=256)


def zoom_in(session: Session, image: Image, box: Region) -> Image:
    """Look at a part of an image, enlarged."""
    return enlarged(image, box, rule=session.vlm.traits.crop_rule)


def crop(image: Image, box: Region, padding: float = 0.05) -> Image:
    """Cut a part out of an image without enlarging it.

    Args:
        padding: how much to add on each side, as a share of the part's own, from 0 to 1.
    """
    if not 0 <= padding <= 1:
        raise BadCall(f'"padding" must be from 0 to 1, got {padding:g}.')
    across, down = padding * (box.x1 - box.x0), padding * (box.y1 - box.y0)
    padded = Region(
        max(box.x0 - across, 0.0),
        max(box.y0 - down, 0.0),
        min(box.x1 + across, 1.0),
        min(box.y1 + down, 1.0),
    )
    cut = sturdy(inclusive_box(padded, image.size), image.size, minimum=_LEAST_CROP)
    region = Region.from_pixels(cut, image.size)
    return Image(
        image.pixels.crop(cut), Cropped(image.id, region, (cut[2] - cut[0], cut[3] - cut[1]))
    )


def visual_search(
    session: Session, image: Image, what: str, *, rank: Rank | None = None, show: int = 2
) -> Seen:
    """Search an image for something small, window by window, and see the best windows enlarged.

    Args:
        what: what to search for, in a few words.

    Without a `rank` the model itself says of each window how likely it shows that.
    """
    rank = rank or partial(says_yes, session)
    windows = _windows(session, image)
    scores = [rank(enlarged(source, region), what) for _, source, region in windows]
    best = sorted(range(len(windows)), key=lambda at: -scores[at])[:show]
    seen: list[Image | str | Grounded] = [f"The likeliest windows for {quote(what)}, best first:"]
    for place, source, region in (windows[at] for at in best):
        seen += [Grounded(place, "window"), zoom_in(session, source, region)]
    return seen


def says_yes(session: Session, window: Image, what: str) -> float:
    """Log-odds by which the model says that `window` shows `what`, asked beside the branch.

    Raises:
        BadCall: the model cannot score its words, as over most servers.
        ModelError: the model failed.
    """
    question = user(window, f"Does this part of the image show {what}? Answer yes or no.")
    try:
        scores = session.vlm.score((*session.messages, question), ["yes", "no"])
    except CannotScore:
        raise BadCall(_unsearched(session)) from None
    yes, no = map(sum, scores.logprobs)
    aside = session.fork()
    aside.say(question, cost=scores.cost)
    aside.score("visual_search", yes - no)
    return yes - no


def _unsearched(session: Session) -> str:
    """What to do where no window can be scored; names no action that is not on offer."""
    offered = {p.name for m in session.messages for p in m.parts if isinstance(p, ToolSpec)}
    instead = "use zoom_in" if name_of(zoom_in) in offered else "answer from what you see"
    return f"visual_search does not work with this model: {instead}."


def mark(
    image: Image,
    boxes: list[Region] | None = None,
    points: list[Point] | None = None,
    labels: list[str] | None = None,
) -> Image:
    """Draw numbered boxes or points on an image, to count or compare what they mark.

    Args:
        labels: what to write on them instead of numbers, one for each, boxes first.
    """
    regions = [*(boxes or []), *(_around(point) for point in points or [])]
    if not regions:
        raise BadCall('Nothing to mark: give "boxes" or "points".')
    if labels and len(labels) != len(regions):
        raise BadCall(f"{len(regions)} marks need as many labels, got {len(labels)}.")
    return Image(draw(image, regions, labels=labels or None), Drawn(image.id, "marks"))


def enhance(
    image: Image,
    contrast: float = 1.0,
    rotate: Literal[0, 90, 180, 270] = 0,
    flip: Literal["none", "horizontal", "vertical"] = "none",
) -> Image:
    """Show an image again with more contrast, rotated or flipped.

    Args:
        contrast: 1 leaves it as it is, 2 doubles it; from 0.1 to 10.
        rotate: degrees clockwise.
        flip: horizontal changes left and right, vertical top and bottom.
    """
    from PIL import ImageEnhance

    if not 0.1 <= contrast <= 10:
        raise BadCall(f'"contrast" must be from 0.1 to 10, got {contrast:g}.')
    if (contrast, rotate, flip) == (1.0, 0, "none"):
        raise BadCall("This would change nothing: give contrast, rotate or flip.")
    pixels = (
        ImageEnhance.Contrast(image.pixels).enhance(contrast) if contrast != 1 else image.pixels
    )
    what = f"contrast {contrast:g}, rotated {rotate}, flipped {flip}"
    return Image(_turned(pixels, rotate, flip), Drawn(image.id, what))


def compare(
    image: Image, box: Region, other_box: Region, other_image: Image | None = None
) -> Image:
    """See two parts side by side: of one image, or of two.

    Args:
        other_box: the second part.
        other_image: the image that the second part is in, if it is another one.
    """
    parts = [enlarged(image, box), enlarged(other_image or image, other_box)]
    pixels = sheet(parts, ["first", "second"], columns=2, cell=448)
    return Image(pixels, Drawn(image.id, "two parts side by side"))


def depth_map(image: Image, *, estimate: Callable[[Image], DepthMap]) -> Seen:
    """See how far everything in an image is: light is near, dark is far, black is not known."""
    return [
        "Light is near, dark is far.",
        Image(greys(estimate(image)), Drawn(image.id, "depth")),
    ]


def read_text(image: Image, box: Region | None = None, *, reader: Reader) -> Seen:
    """Read the text in an image, or in a part of it, line by line."""
    part = crop(image, box, 0.0) if box else image
    cut = part.origin.region if box and isinstance(part.origin, Cropped) else None
    lines = [Grounded(g.region.within(cut) if cut else g.region, g.label) for g in reader(part)]
    return lines or "No text was found there."


def locate(session: Session, image: Image, what: str, *, detect: Detect | None = None) -> Seen:
    """Find where something is in an image: its boxes.

    Args:
        what: what to find, in a few words.

    Without a `detect` the model itself is asked for them.
    """
    found = (detect or partial(own_boxes, session))(image, what)
    return list(found) or f"No {quote(what)} was found."


def own_boxes(session: Session, image: Image, what: str) -> Sequence[Grounded]:
    """The boxes that the model itself writes for `what`, asked beside the branch, greedily."""
    aside = session.fork()
    key = session.vlm.traits.box_format.key
    number = session.images.index(image)
    aside.say(
        user(
            f"Locate {what} in image {number}. Reply with boxes only, as JSON with {key} and label."
        )
    )
    said = aside.generate(_LOCATE).message.parts
    text = "".join(part.text for part in said if isinstance(part, Text))
    seen = session.vlm.seen_size(image.size, image.kind)
    return parse_grounding(text, session.vlm.traits.box_format, seen)


def terminate(answer: str) -> str:
    """Give the final answer and end.

    Args:
        answer: the answer to the question.
    """
    return answer


ACTIONS: tuple[Action, ...] = (
    zoom_in,
    crop,
    visual_search,
    mark,
    enhance,
    locate,
    compare,
    terminate,
)
"""What needs nothing besides the model."""


def actions_with(
    *,
    estimate: Callable[[Image], DepthMap] | None = None,
    reader: Reader | None = None,
    detect: Detect | None = None,
) -> tuple[Action, ...]:
    """`ACTIONS`, and those for which a depth model, an OCR reader or a detector is given."""
    found = [partial(locate, detect=detect) if a is locate and detect else a for a in ACTIONS]
    if estimate:
        found.append(partial(depth_map, estimate=estimate))
    if reader:
        found.append(partial(read_text, reader=reader))
    return tuple(found)


def _place(at: int) -> Region:
    row, column = divmod(at, ACROSS)
    left, top = column * STRIDE, row * STRIDE
    return Region(left, top, min(left + SIDE, 1.0), min(top + SIDE, 1.0))


def _windows(session: Session, image: Image) -> list[tuple[Region, Image, Region]]:
    """Each window of `image` but those in the grey beside a crop: where it lies, and the image and
    the region that it is cut from, which are the original's."""
    found = []
    for place in map(_place, range(ACROSS * ACROSS)):
        with suppress(ValueError):  # it lies in the grey
            source = original(session.images, image, place, session.vlm.traits.crop_rule)
            found.append((place, *source))
    return found


def _around(point: Point) -> Region:
    """A small box around `point`, inside the image."""
    x, y = (min(max(v, _POINT), 1 - _POINT) for v in (point.x, point.y))
    return Region(x - _POINT, y - _POINT, x + _POINT, y + _POINT)


def _turned(pixels: Pixels, rotate: int, flip: str) -> Pixels:
    from PIL.Image import Transpose

    turns = {90: Transpose.ROTATE_270, 180: Transpose.ROTATE_180, 270: Transpose.ROTATE_90}
    flips = {"horizontal": Transpose.FLIP_LEFT_RIGHT, "vertical": Transpose.FLIP_TOP_BOTTOM}
    for done in (turns.get(rotate), flips.get(flip)):
        if done is not None:
            pixels = pixels.transpose(done)
    return pixels
