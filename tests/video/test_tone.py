"""High dynamic range as screens show it: what is brighter than white keeps its differences."""

from __future__ import annotations

from collections.abc import Sequence

import av
import numpy as np
import pytest

from video.tone import HLG, PQ, to_rgb

BT709 = 1


def shown(signal: Sequence[float], transfer: int) -> list[int]:
    """The shade of each grey pixel of one frame; `signal` from 0 to 1."""
    grey = (np.array(signal) * 65535).round().astype(np.uint16)
    frame = av.VideoFrame.from_ndarray(np.repeat(grey[None, :, None], 3, axis=2), format="rgb48le")
    frame.color_trc, frame.color_primaries = transfer, BT709
    return np.asarray(to_rgb(frame))[0, :, 0].tolist()


@pytest.mark.parametrize(
    ("transfer", "white", "peak"),
    [
        pytest.param(PQ, 0.5807, 0.9026, id="PQ: 203 and 4000 nits"),
        pytest.param(HLG, 0.75, 1.0, id="HLG: 203 and 1000 nits"),
    ],
)
def test_highlights_roll_off(transfer: int, white: float, peak: float) -> None:
    rising = shown(np.linspace(0, 1, 64).tolist(), transfer)
    assert rising == sorted(rising)
    black, diffuse, bright, full = shown([0, white, (white + peak) / 2, peak], transfer)
    assert black == 0
    assert 235 < diffuse < bright < full == 255


@pytest.mark.parametrize("transfer", [PQ, HLG], ids=["PQ", "HLG"])
def test_a_highlight_changes_nothing_else(transfer: int) -> None:
    alone, beside = shown([0.4, 0.4], transfer), shown([0.4, 1.0], transfer)
    assert alone[0] == beside[0]


def test_what_is_darker_than_white_stays_as_it_is() -> None:
    """A tenth of diffuse white, 20.3 nits, is 89 in sRGB."""
    assert shown([0.3558], PQ) == [pytest.approx(89, abs=1)]
