"""Depth maps that people bring: 16-bit PNG, NPY, NPZ and float TIFF."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mm.errors import door

from .depth import BadDepth, DepthMap, Kind, depth_map

if TYPE_CHECKING:
    import numpy as np

SCALES = {"nyu": 1000.0, "ssr": 1000.0, "tum": 5000.0, "kitti": 256.0}
"""Units a metre in the 16-bit PNGs of data sets, by name."""

_SUFFIXES = (".png", ".npy", ".npz", ".tif", ".tiff")


def open_depth(
    path: str | Path, *, scale: float | str | None = None, kind: Kind = "metric"
) -> DepthMap:
    """The depth map in a file; 0, NaN and infinity are "not known".

    Args:
        scale: units a metre of a 16-bit PNG, as a number or one of `SCALES`: nothing in the file
            says it, and it is never guessed. Other files hold metres unless it is given.
        kind: what a larger number means.

    Raises:
        BadDepth: the file cannot be read, has a scale to be named, or holds no depth map.
    """
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise BadDepth(f"{path}: give a depth map as one of {', '.join(_SUFFIXES)}")
    if not os.path.isfile(path):  # Path.is_file raises on a long name
        raise BadDepth(f"{path}: there is no such depth map")
    units = _scale(scale, path)
    values = _array(path)
    if values.dtype.kind not in "uif":
        raise BadDepth(f"{path}: depth is real numbers, found an array of {values.dtype}")
    if values.dtype.kind in "ui" and units is None and kind == "metric":
        names = ", ".join(f"{name} {units:g}" for name, units in SCALES.items())
        raise BadDepth(f"{path}: whole numbers need their scale, units a metre: one of {names}")
    return depth_map(values / (units or 1.0), kind, str(path))


def _scale(scale: float | str | None, path: Path) -> float | None:
    if scale is None:
        return None
    found = SCALES.get(str(scale).lower())
    try:
        units = found if found is not None else float(scale)
    except ValueError:
        units = 0.0
    if not 0 < units < float("inf"):
        raise BadDepth(
            f"{path}: the scale must be a positive number or one of {', '.join(SCALES)}, "
            f"got {scale!r}"
        )
    return units


def _array(path: Path) -> np.ndarray:
    """The numbers in a file, (H, W)."""
    with door(f"{path} cannot be read as a depth map", BadDepth):
        if path.suffix.lower() in (".npy", ".npz"):
            return _numpy(path)
        return _image(path)


def _numpy(path: Path) -> np.ndarray:
    import numpy as np

    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return np.squeeze(loaded)
    with loaded:
        names = loaded.files
        chosen = next(
            (n for n in ("depth", "arr_0") if n in names), names[0] if len(names) == 1 else ""
        )
        if not chosen:
            raise BadDepth(f"{path}: which of its arrays is the depth? {', '.join(names)}")
        return np.squeeze(loaded[chosen])


def _image(path: Path) -> np.ndarray:
    import numpy as np
    from PIL import Image

    with Image.open(path, formats=("PNG", "TIFF")) as image:
        if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
            return np.asarray(image)
        raise BadDepth(
            f"{path}: its pixels are of mode {image.mode}, 8 bits: expected 16-bit or float depth; "
            "a depth map drawn in colours or 8 bits has lost its numbers"
        )
