"""The look loop over a server that runs `tiny` by transformers alone: as over the engine here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import mm
from mm.types import Image, ToolCall
from training.benchmarks.server_speed import running
from training.tabletop.questions import stream
from vision import scale

SERVER = Path(__file__).parents[2] / "tiny_server.py"
FOLDER = "mm/bundled/tiny"

pytestmark = pytest.mark.torch  # its server is another process, and the model here


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mm.VLM]:
    log = tmp_path_factory.mktemp("served") / "log"
    with running([sys.executable, str(SERVER), FOLDER], log) as client:
        yield mm.connect("tiny", base_url=client.base_url, processor=FOLDER)


@pytest.mark.parametrize("number", [0, 1], ids=["until the budget", "until it is enough"])
def test_scale_looks_where_it_looks_here(served: mm.VLM, number: int) -> None:
    """The server's only part in it: pixels and text in, text and log-probabilities out."""
    sample = list(stream("search", 0, number + 1))[number].sample
    strategy = partial(scale, max_steps=2 + number)
    here, there = (mm.run(strategy, sample, vlm) for vlm in (mm.load("tiny"), served))
    assert there.error is None
    assert [_said(step) for step in there.steps] == [_said(step) for step in here.steps]
    assert _looks(there) > 0
    for ours, theirs in zip(here.steps, there.steps, strict=True):
        assert theirs.scores == pytest.approx(ours.scores, abs=0.02)


def _said(step: mm.Step) -> list[object]:
    return [
        part.pixels.tobytes() if isinstance(part, Image) else part for part in step.message.parts
    ]


def _looks(trace: mm.Trace) -> int:
    return sum(isinstance(part, ToolCall) for step in trace.steps for part in step.message.parts)
