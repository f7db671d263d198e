"""Which of a model's attention `attend` should follow: tried on images where the place is known.

    python -m training.benchmarks.calibrate --model FOLDER --write

For every layer, for the last token and for the question's words, as it is and divided by a generic
request's: how often the window it singles out holds the middle of the object asked about.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, cast, get_args

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import mm
from mm.geometry import Region
from mm.local.hf_vlm import HFVLM
from mm.types import Conversation
from mm.vlm import Aim, Attentive, Query
from training.tabletop.questions import stream
from vision.attend import TINY, generic, window

SHOWN = 8
CALIBRATION_SEED = 1 << 20
"""A test stream that no published table uses."""


@dataclass(frozen=True)
class Tried:
    """`found` is the share of items whose place `aim` found, `area` the mean share of the image
    that it took."""

    aim: Aim
    found: float
    area: float


def calibrate(vlm: Attentive, depth: int, items: int, base: int) -> list[Tried]:
    """Every aim of a decoder of `depth` layers on `items` questions, the best first."""
    layers = range(depth)
    aims = [Aim(k, q, r, base) for k, q, r in product(layers, get_args(Query), (False, True))]
    hits: dict[Aim, list[tuple[bool, float]]] = {aim: [] for aim in aims}
    questions = stream("read", CALIBRATION_SEED, items)
    for item in track(questions, "looking", total=items, console=Console(stderr=True)):
        size, wanted = item.sample.images[0].size, item.regions[0]
        for aim, attention in zip(aims, _maps(vlm, item.sample.prompt, layers), strict=True):
            found = window(attention, size, base).region
            hits[aim].append((_holds(found, wanted), found.area))
    tried = [Tried(aim, *(float(v) for v in np.mean(seen, axis=0))) for aim, seen in hits.items()]
    return sorted(tried, key=lambda t: (-t.found, t.area))


def _maps(vlm: Attentive, conversation: Conversation, layers: Sequence[int]) -> list[np.ndarray]:
    """The first image's map for each layer, query and kind, in the order of the aims."""
    asked = {q: vlm.attention(conversation, layers, query=q).maps for q in get_args(Query)}
    plain = {q: vlm.attention(generic(conversation), layers, query=q).maps for q in asked}
    return [
        asked[q][k][0] / (plain[q][k][0] + TINY) if relative else asked[q][k][0]
        for k, q, relative in product(range(len(layers)), asked, (False, True))
    ]


def _holds(window: Region, wanted: Region) -> bool:
    x, y = (wanted.x0 + wanted.x1) / 2, (wanted.y0 + wanted.y1) / 2
    return window.x0 <= x <= window.x1 and window.y0 <= y <= window.y1


def main(
    model: str = "tiny",
    items: Annotated[int, typer.Option(min=1, help="Questions.")] = 40,
    base: Annotated[
        int, typer.Option(min=1, help="Smallest window, in pixels of a 768-pixel image.")
    ] = 128,
    write: Annotated[
        bool, typer.Option("--write", help="Name the best in the config.json of a local folder.")
    ] = False,
    device: str | None = None,
    dtype: str | None = None,
) -> None:
    """Find the attention that `attend` should follow."""
    vlm = mm.load(model, device=device, dtype=dtype)
    if not isinstance(vlm, HFVLM):
        raise typer.BadParameter(f"{model} is of no listed family and shows no attention")
    config = Path(model) / "config.json"
    if write and not config.is_file():
        raise typer.BadParameter(f"--write needs a local folder with a config.json, got {model}")
    depth = vlm.engine.model.config.get_text_config().num_hidden_layers
    tried = calibrate(cast(Attentive, vlm), depth, items, base)
    Console().print(_table(tried[:SHOWN]))
    named = {"attend": asdict(tried[0].aim)}
    if write:
        merged = {**json.loads(config.read_text(encoding="utf-8")), **named}
        config.write_text(json.dumps(merged, indent=2) + "\n", encoding="utf-8")
        print(f"written to {config}")
    else:
        print(f"for the checkpoint's config.json: {json.dumps(named)[1:-1]}")


def _table(tried: Sequence[Tried]) -> Table:
    table = Table("layer", "attention of", "relative", "found %", "area %", box=None)
    for t in tried:
        aim = t.aim
        of = "the last token" if aim.query == "last" else "the words"
        relative = "yes" if aim.relative else "no"
        table.add_row(str(aim.layer), of, relative, f"{100 * t.found:.0f}", f"{100 * t.area:.1f}")
    return table


if __name__ == "__main__":
    typer.run(main)
