"""Where the depth of an image comes from: a file, a row, or a depth-estimation model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from mm.local.checkpoints import bundled_models
from mm.lru_cache import LRUCache
from mm.trace import Sample
from mm.types import Image

from .depth import BadDepth, DepthMap, Kind, resized
from .depth_files import open_depth

Estimate = Callable[[Sample, Image], DepthMap]
"""The depth map of an image of a sample, at the image's size."""

TAG = "depth"
"""The tag of a sample that names the depth map, a file, of its first image."""

TINY = "tiny-depth"
"""The bundled depth model."""


@dataclass(frozen=True)
class DepthSource:
    """Gives an image's depth: the sample's own map, else `file`, else what `model` estimates.

    Attributes:
        file: a depth map of the question's first image.
        scale: units a metre of whole numbers, as `open_depth` has it.
        kind: what a larger number means; None: metres in files, and what a model's class says.
        model: a depth-estimation checkpoint, a folder or a hub id; None takes the bundled one.
    """

    file: str | None = None
    scale: float | str | None = None
    kind: Kind | None = None
    model: str | None = None

    def __call__(self, sample: Sample, image: Image) -> DepthMap:
        """The depth map of `image`, which is one of the sample's.

        Raises:
            BadDepth: there is no map, it cannot be used, or it is another image's.
            ModelUnavailable: the model cannot be loaded.
        """
        own = sample.tags.get(TAG)
        named = str(own) if own else self.file
        if named and image == sample.images[0]:
            opened = open_depth(named, scale=self.scale, kind=self.kind or "metric")
            return resized(opened, image.size)
        return estimated(self.model or default_model(), image, kind=self.kind)


NO_MAP = (
    "no depth map: give one with --depth room.png --depth-scale 1000, or a depth model with "
    "--depth-model, such as depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf"
)


def default_model() -> str:
    """The bundled depth model.

    Raises:
        BadDepth: none is bundled.
    """
    if (_bundled(TINY) / "config.json").is_file():
        return TINY
    raise BadDepth(NO_MAP)


def check_default(depth: object, found: DepthMap, model: str) -> None:
    """Refuse the bundled depth model's map where nobody asked for it and `model` is another than
    the bundled one: it knows Tabletop alone, and its map of a photograph would look sound.

    Raises:
        BadDepth: so it is.
    """
    unasked = isinstance(depth, DepthSource) and depth.model is None and found.source == TINY
    if unasked and model not in bundled_models():
        raise BadDepth(f"{NO_MAP} (`tiny-depth` knows the bundled scenes alone)")


def _bundled(name: str) -> Path:
    return Path(str(files("mm"))) / "bundled" / name


_lock = threading.Lock()  # each model is loaded once
_models: LRUCache[tuple[str, Kind | None], Callable[[Image], DepthMap]] = LRUCache(4)


def estimated(model: str, image: Image, *, kind: Kind | None = None) -> DepthMap:
    """What the depth model, loaded once a process, finds for `image`; remembered by image.

    Raises:
        BadDepth: it finds the same depth everywhere.
        ModelUnavailable: it cannot be loaded.
    """
    with _lock:
        found = _models.get((model, kind))
        if found is None:
            found = _load(model, kind)
            _models.put((model, kind), found, 1)
    return found(image)


def _load(model: str, kind: Kind | None) -> Callable[[Image], DepthMap]:
    from .depth_model import load_depth_model

    bundled = _bundled(model)
    if not (bundled / "config.json").is_file():
        return load_depth_model(model, kind=kind)
    found = load_depth_model(str(bundled), kind=kind)
    found.name = model
    return found
