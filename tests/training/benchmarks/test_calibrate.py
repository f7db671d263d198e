"""Calibration finds the attention that knows the place, and writes it where `attend` reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import typer

import mm
from mm.scripted import ScriptedVLM
from mm.types import Conversation, Cost
from mm.vlm import Aim, AttentionMaps, Query
from training.benchmarks import calibrate
from training.tabletop.questions import stream
from vision.attend import GENERIC


class Knowing(ScriptedVLM):
    """Attends evenly, but for the words in layer 2, which attend to the object asked about."""

    def __init__(self, items: int) -> None:
        super().__init__([])
        asked = stream("read", calibrate.CALIBRATION_SEED, items)
        self._places = {item.sample.images[0].id: item.regions[0] for item in asked}

    def attention(
        self,
        conversation: Conversation,
        layers: Sequence[int],
        *,
        query: Query = "last",
        gradient: bool = False,
    ) -> AttentionMaps:
        maps = [np.full((8, 8), 1.0, np.float32) for _ in layers]
        place = self._places[conversation[-1].images[0].id]
        if conversation[-1].text != GENERIC and query == "words":
            x, y = (place.x0 + place.x1) / 2, (place.y0 + place.y1) / 2
            maps[2][int(y * 8), int(x * 8)] = 9.0
        return AttentionMaps(tuple((m,) for m in maps), Cost(calls=1))


@pytest.mark.torch
def test_the_attention_that_knows_comes_first() -> None:
    best, *rest = calibrate.calibrate(Knowing(6), 3, 6, 96)
    assert (best.aim.layer, best.aim.query) == (2, "words")
    assert best.found == 1.0
    assert best.area == pytest.approx((96 / 768) ** 2)
    assert all(t.found < 1 for t in rest if t.aim.layer != 2)


@pytest.mark.torch
def test_it_is_written_where_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(str(files("mm") / "bundled" / "tiny"), folder)
    config = json.loads((folder / "config.json").read_text())
    del config["attend"]
    (folder / "config.json").write_text(json.dumps(config))
    found = Aim(3, "words", relative=True, base=100)
    monkeypatch.setattr(calibrate, "calibrate", lambda *a: [calibrate.Tried(found, 1.0, 0.1)])
    calibrate.main(str(folder), write=True)
    assert mm.load(str(folder)).traits.aim == found


@pytest.mark.torch
def test_writing_needs_a_folder() -> None:
    with pytest.raises(typer.BadParameter, match="--write needs a local folder"):
        calibrate.main("tiny", write=True)
