"""Reading text with RapidOCR, whose package brings its models: nothing is downloaded.

Needs the extra `ocr`: pip install 'multimodal-reasoning[ocr]'.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

from mm.errors import UserError
from mm.geometry import Region
from mm.types import Image

from .grounding import Grounded

_reading = threading.Lock()


def read_lines(image: Image) -> Sequence[Grounded]:
    """The lines of text in `image` from top to bottom, each with the upright box around it.

    Raises:
        UserError: the extra `ocr` is not installed.
    """
    import numpy as np

    with _reading:
        found = _engine()(np.asarray(image.pixels)[:, :, ::-1])  # it reads BGR, as OpenCV does
    lines = []
    for corners, text in zip(_or_none(found.boxes), _or_none(found.txts), strict=True):
        (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
        try:
            region = Region.from_pixels((float(x0), float(y0), float(x1), float(y1)), image.size)
        except ValueError:  # all of it lies in the border that the detector adds
            continue
        lines.append(Grounded(region, text))
    return lines


def _or_none(found: Any) -> Any:
    return () if found is None else found


@cache
def _engine() -> Any:
    try:
        rapidocr = import_module("rapidocr")
    except ImportError as error:
        raise UserError(
            f"reading text needs {error.name}: pip install 'multimodal-reasoning[ocr]'"
        ) from None
    return rapidocr.RapidOCR(params={"Global.log_level": "critical"})
