"""A row as a model sees it: which text trains, which is only read, and what images cost."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.text import Text

from mm.tokens.builder import TokenBuilder
from mm.types import Conversation, Image

from .row import Row

THUMB = 160
"""The longer side of a thumbnail in HTML, in pixels; a terminal's has a tenth of it in cells."""


@dataclass(frozen=True)
class Piece:
    """Tokens in a row that have the same fate.

    Attributes:
        text: what they say; "" for an image.
        tokens: how many they are.
        trained: the model learns to write them.
        image: what stands there instead of text.
    """

    text: str
    tokens: int
    trained: bool = False
    image: Image | None = None


def pieces(builder: TokenBuilder, conversation: Conversation, row: Row) -> list[Piece]:
    """`conversation`, the whole of `row` or one side of it, cut where the fate of tokens changes.

    Raises:
        ValueError: it cannot be built.
    """
    tokens = builder.build(conversation, open_turn=False, exclude=row.untrained)
    spans = {span.start: span for span in tokens.images}
    found: list[Piece] = []
    at = 0
    for start in [*sorted(spans), len(tokens.ids)]:
        found += _spans(builder, tokens.ids[at:start], tokens.trained[at:start])
        at = start
        if span := spans.get(start):
            found.append(Piece("", span.stop - start, image=span.image))
            at = span.stop
    return found


def sides(row: Row) -> Iterator[tuple[str, Conversation]]:
    """What there is to learn from in `row`, named: all of it, or the good and the bad one."""
    if not row.chosen:
        yield "", row.messages
        return
    yield "chosen", row.messages + row.chosen
    yield "rejected", row.messages + row.rejected


def as_text(found: Sequence[Piece]) -> Text:
    """For a terminal: what trains is bold green, what is read is grey, images in blocks."""
    out = Text()
    for piece in found:
        if piece.image:
            width, height = piece.image.size
            out.append(f"\n[image {width}x{height}: {piece.tokens} visual tokens]\n", "cyan")
            out.append_text(_blocks(piece.image))
        else:
            out.append(piece.text, "bold green" if piece.trained else "bright_black")
    trained = sum(p.tokens for p in found if p.trained)
    seen = sum(p.tokens for p in found if p.image)
    total = sum(p.tokens for p in found)
    out.append(f"\n{total} tokens: {trained} trained, {seen} visual\n", "cyan")
    return out


def as_html(titled: Sequence[tuple[str, Sequence[Piece]]]) -> str:
    """A page: what trains is green, what is read is grey, images are thumbnails."""
    body = "".join(
        f"<h2>{html.escape(title)}</h2><pre>{''.join(map(_html, found))}</pre>"
        for title, found in titled
    )
    return (
        "<!doctype html><meta charset=utf-8><title>rows</title><style>"
        "body{font-family:system-ui;max-width:60rem;margin:2rem auto}pre{white-space:pre-wrap}"
        ".t{background:#c9f2cf;font-weight:600}.m{color:#777}img{vertical-align:middle}</style>"
        f"<p><span class=t>trained</span> <span class=m>read only</span></p>{body}\n"
    )


def _spans(builder: TokenBuilder, ids: Sequence[int], trained: Sequence[bool]) -> Iterator[Piece]:
    for fate, run in groupby(zip(ids, trained, strict=True), key=lambda pair: pair[1]):
        some = [id for id, _ in run]
        yield Piece(builder.tokenizer.decode(some, skip_special_tokens=False), len(some), fate)


def _blocks(image: Image) -> Text:
    """Two pixels a cell, one above the other."""
    small = image.pixels.copy()
    small.thumbnail((THUMB // 5, THUMB // 5))
    width, height = small.size
    out = Text()
    for y in range(0, height - 1, 2):
        for x in range(width):
            above, below = (small.getpixel((x, row)) for row in (y, y + 1))
            out.append("\N{UPPER HALF BLOCK}", f"{_hex(above)} on {_hex(below)}")
        out.append("\n")
    return out


def _hex(colour: object) -> str:
    assert isinstance(colour, tuple)
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _html(piece: Piece) -> str:
    if piece.image is None:
        kind = "t" if piece.trained else "m"
        return f"<span class={kind}>{html.escape(piece.text)}</span>"
    small = piece.image.pixels.copy()
    small.thumbnail((THUMB, THUMB))
    file = io.BytesIO()
    small.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    width, height = piece.image.size
    about = f"{width}x{height}, {piece.tokens} visual tokens"
    return f'<img src="data:image/png;base64,{data}" title="{about}"> <small>{about}</small>'
