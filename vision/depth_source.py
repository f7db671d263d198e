"""Where the depth of an image comes from: a file, a row, or a depth-estimation model."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from mm.local.checkpoints import bundled_models
from mm.lru_cache import LRUCache
from mm.session import Strategy
from mm.trace import Sample
from mm.types import Image

from .depth import BadDepth, DepthMap, Kind, resized
from .depth_files import open_depth

Estimate = Callable[[Sample, Image], DepthMap | None]
"""The depth map of an image of a sample, at the image's size; None: nothing is told of it."""

DEPTH = "depth"
"""The option of a strategy that is told depth: an `Estimate`."""

TAG = "depth"
"""The tag of a sample that names the depth map, a file, of its first image."""

RATIONALE = "rationale"
"""The column of a row with what the depth shows, in words: `mm train depth` learns from it."""

TINY = "tiny-depth"
"""The bundled depth model."""


@dataclass(frozen=True)
class DepthSource:
    """Gives an image's depth: the sample's own map, else `file`, else what `model` estimates.

    Attributes:
        file: a depth map of the question's first image.
        scale: units a metre of whole numbers, as `open_depth` has it.
        kind: what a larger number means in files, and of a model whose class does not say; None:
            metres in files.
        model: a depth-estimation checkpoint, a folder or a hub id; None takes the bundled one.
        device: where it runs; None: on cuda where there is one.
    """

    file: str | None = None
    scale: float | str | None = None
    kind: Kind | None = None
    model: str | None = None
    device: str | None = field(default=None, compare=False)

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
        return self.loaded()(image)

    def loaded(self) -> Callable[[Image], DepthMap]:
        """The model, loaded once a process.

        Raises:
            BadDepth: none is named, and none is bundled.
            ModelUnavailable: it cannot be loaded.
        """
        return _loaded(self.model or default_model(), self.kind, self.device)


@dataclass(frozen=True)
class ChangedDepth:
    """The maps of another source, changed: a control. Where that tells nothing, nor does this.

    Attributes:
        source: gives the maps; it may be a changed one itself.
        change: such as `vision.depth.flipped`.
    """

    source: Estimate
    change: Callable[[DepthMap], DepthMap]

    def __call__(self, sample: Sample, image: Image) -> DepthMap | None:
        found = self.source(sample, image)
        return None if found is None else self.change(found)


def untold(sample: Sample, image: Image) -> None:
    """Tells of no image: a control."""


def bind_depth(strategy: Strategy, depth: Estimate) -> Strategy:
    """`strategy` with its depth from `depth`, and so the strategy in its brackets; as it is where
    neither takes any."""
    bound: dict[str, Any] = {}
    if DEPTH in inspect.signature(strategy).parameters:
        bound[DEPTH] = depth
    inner = strategy.keywords.get("strategy") if isinstance(strategy, partial) else None
    if inner is not None and (changed := bind_depth(inner, depth)) is not inner:
        bound["strategy"] = changed
    return partial(strategy, **bound) if bound else strategy


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
    while isinstance(depth, ChangedDepth):
        depth = depth.source
    unasked = isinstance(depth, DepthSource) and depth.model is None and found.source == TINY
    if unasked and model not in bundled_models():
        raise BadDepth(f"{NO_MAP} (`tiny-depth` knows the bundled scenes alone)")


def _bundled(name: str) -> Path:
    return Path(str(files("mm"))) / "bundled" / name


_lock = threading.Lock()  # each model is loaded once
_models: LRUCache[tuple[str, Kind | None, str], Callable[[Image], DepthMap]] = LRUCache(4)


def estimated(model: str, image: Image) -> DepthMap:
    """What the depth model, loaded once a process, finds for `image`; remembered by image.

    Raises:
        BadDepth: it finds the same depth everywhere.
        ModelUnavailable: it cannot be loaded.
    """
    return _loaded(model)(image)


def _loaded(
    model: str, kind: Kind | None = None, device: str | None = None
) -> Callable[[Image], DepthMap]:
    from mm.local.placement import device_named  # which imports torch

    place = str(device_named(device))
    with _lock:
        found = _models.get((model, kind, place))
        if found is None:
            found = _load(model, kind, place)
            _models.put((model, kind, place), found, 1)
    return found


def _load(model: str, kind: Kind | None, device: str) -> Callable[[Image], DepthMap]:
    from .depth_model import load_depth_model

    bundled = _bundled(model)
    if not (bundled / "config.json").is_file():
        return load_depth_model(model, kind_if_unknown=kind, device=device)
    found = load_depth_model(str(bundled), device=device)
    found.name = model
    return found
