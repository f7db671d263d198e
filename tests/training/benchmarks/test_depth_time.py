"""What `depth` adds is measured on like terms: no way profits from what the other left."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image as pil
from tiny_models import FAMILIES

import mm
from mm.engine.engine import Engine
from mm.errors import ModelError
from mm.local.hf_vlm import HFVLM
from mm.session import Session
from training.benchmarks import depth_time
from training.benchmarks.depth_time import WARM_UP, Answered, Timed, copied, row_of, times
from training.benchmarks.measure import processor
from training.evaluation.views import VIEWS
from vision.depth import depth_map

pytestmark = pytest.mark.torch

IMAGE = pil.linear_gradient("L").resize((64, 64)).convert("RGB")
MAP = depth_map(np.linspace(1, 2, 4096).reshape(64, 64), "metric")


def samples(count: int) -> list[mm.Sample]:
    return [mm.question("Which?", IMAGE, id=f"q{at}", choices=("K", "R")) for at in range(count)]


@pytest.fixture
def vlm() -> HFVLM:
    tiny = FAMILIES["qwen3_vl"]()
    return HFVLM(Engine(tiny.model, tiny.builder))


@pytest.fixture
def met(monkeypatch) -> list[tuple[str, str]]:
    """Which way answered with which image, in order."""
    found: list[tuple[str, str]] = []

    def way(name: str, session: Session, **options):
        found.append((name, session.images[0].id))
        if "depth" in options:
            assert options["depth"](session.sample, session.images[0]) is MAP
        session.say(mm.assistant("K"))
        return session.branch

    monkeypatch.setattr(depth_time, "direct", lambda session: way("direct", session))
    monkeypatch.setattr(depth_time, "depth_text", lambda session, **o: way("depth", session, **o))
    return found


def test_ways_take_turns_at_being_first_and_share_no_image(vlm, met):
    found = list(times(vlm, samples(WARM_UP + 2), lambda sample, image: MAP))
    assert len(found) == 2
    order = [name for name, _ in met]
    assert order == ["depth", "direct", "direct", "depth"] * 2
    assert not {i for n, i in met if n == "depth"} & {i for n, i in met if n == "direct"}
    assert all(0 < each.network < each.depth for each in found)


def test_a_copy_differs_in_one_pixel_alone():
    (sample,) = samples(1)
    one, other = (np.asarray(copied(sample, at).images[0].pixels) for at in (0, 1))
    assert (one != other).any(-1).sum() == 1
    assert copied(sample, 0).choices == sample.choices


def test_the_whole_strategy_is_timed(vlm, monkeypatch):
    monkeypatch.setattr(depth_time, "WARM_UP", 0)
    (found,) = times(vlm, samples(1), lambda sample, image: MAP)
    assert found.added > found.network > 0


def test_a_model_that_fails_is_not_timed(vlm):
    def lost(sample, image):
        raise ModelError("no map of it")

    with pytest.raises(ModelError, match="depth failed on q0: no map of it"):
        list(times(vlm, samples(1), lost))


def test_what_is_timed_is_given_as_it_is():
    (sample,) = samples(1)
    timed = Timed(lambda sample, image: None)
    assert timed(sample, sample.images[0]) is None
    assert timed.seconds > 0


def test_the_file_is_shown():
    found = [Answered(0.1 * n, 0.5 * n, 0.3 * n) for n in range(1, 8)]
    row = row_of(found)
    assert (row["images"], row["added"]["value"]) == (7, pytest.approx(1.6))
    file = {"model": "tiny", "cpu": "Cray-1", "threads": 2, "rows": [row]}
    (line,) = VIEWS["added"]([json.loads(json.dumps(file))])[2:]
    assert line == (
        "| `tiny`, Cray-1, 2 threads, 7 images | 0.400 | 2.000 | 1.600 (0.400-2.800) | 1.200 "
        "| 5.0 (5.0-5.0) |"
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [
        pytest.param(
            "vendor_id : X\nmodel name\t: AMD EPYC 9B14 \nmodel name\t: B\n", "AMD", id="x86"
        ),
        pytest.param("processor : 0\nCPU part : 0xd40\n", "", id="ARM names none"),
        pytest.param(None, "", id="no Linux"),
    ],
)
def test_the_processor_is_named(tmp_path, text, name):
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    found = processor(tmp_path / "cpuinfo")
    assert found == "AMD EPYC 9B14" if name else found != "" and "\n" not in found
