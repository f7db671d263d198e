"""Depth maps from any depth-estimation checkpoint of transformers, without torchvision."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm.errors import ModelUnavailable, door, first_line
from mm.lru_cache import LRUCache
from mm.types import Image

from .depth import BadDepth, DepthMap, Kind, depth_map

if TYPE_CHECKING:
    import torch

    _Output = tuple[torch.Tensor, torch.Tensor | None]  # depth (1, h, w), angle of view

CACHED_BYTES = 2**28
"""What a model said of images that is remembered, at the model's own size."""

KIND_OF_TYPE: Mapping[str, Kind] = {
    "depth_pro": "metric",
    "dpt": "inverse",  # MiDaS and DPT: disparity up to scale and shift
    "glpn": "metric",
    "zoedepth": "metric",
}
"""What the numbers of each model class mean, where its config does not say."""

PREPARED = ("depth_pro",)
"""Classes whose images are prepared here, where their processor needs torchvision."""

ERROR = 0.05
"""How far metres that were estimated are off: nothing is called nearer for less. `tiny-depth`
orders 95 % of all pairs of things rightly, and 99 % of those that it finds so far apart."""

_ZOE_PADDING = 3


class DepthModel:
    """Estimates depth; remembers what it found in images it has seen. Any thread may ask.

    Args:
        model: a transformers model with a depth head.
        process: its image processor; None prepares images as its `preprocessor` fields say.
        preprocessor: the fields of its preprocessor_config.json.
        kind: what its numbers mean.
        name: for `DepthMap.source`.
    """

    def __init__(
        self,
        model: Any,
        process: Any | None,
        preprocessor: Mapping[str, Any],
        kind: Kind,
        name: str,
    ) -> None:
        self.kind: Kind = kind
        self.name = name
        self._model = model.eval()
        self._process = process
        self._preprocessor = preprocessor
        self._known: LRUCache[str, _Output] = LRUCache(CACHED_BYTES)
        self._lock = threading.Lock()

    def __call__(self, image: Image) -> DepthMap:
        """The depth of every pixel of `image`.

        Raises:
            BadDepth: the model finds the same depth everywhere, or none.
        """
        numbers = self._estimate(image).numpy()
        made = depth_map(numbers, self.kind, self.name, zero_is_known=True)
        return replace(made, error=ERROR)

    def _estimate(self, image: Image) -> torch.Tensor:
        """(H, W), float32, as transformers' own pipeline gives it, within what the network said."""
        with self._lock:  # neither the network nor the cache is for several threads
            depth, field_of_view = self._output(image)
        size = (image.size[1], image.size[0])
        if self._model.config.model_type == "zoedepth":
            return _unpadded(depth, size, self._preprocessor.get("do_pad", True))
        if self._model.config.model_type == "depth_pro":
            return _metres(depth, field_of_view, size)
        return _resized(depth, size)

    def _output(self, image: Image) -> _Output:
        """What the model says of `image`, at its own size."""
        import torch

        known = self._known.get(image.id)
        if known is None:
            with torch.inference_mode():
                outputs = self._model(pixel_values=self._pixels(image))
            angle = getattr(outputs, "field_of_view", None)
            known = (
                outputs.predicted_depth.float().cpu(),
                None if angle is None else angle.float().cpu(),
            )
            self._known.put(image.id, known, known[0].nbytes)
        return known

    def _pixels(self, image: Image) -> torch.Tensor:
        device = next(self._model.parameters()).device
        if self._process is None:
            return _prepared(image, self._preprocessor).to(device)
        width, height = image.size
        unfit = f"{self.name} takes no image of {width} x {height} pixels"
        with door(unfit, BadDepth, "give another size, or cut it into pieces"):
            pixels = self._process(images=image.pixels, return_tensors="pt").pixel_values
        return pixels.to(device)


def load_depth_model(
    name: str,
    *,
    kind: Kind | None = None,
    kind_if_unknown: Kind | None = None,
    device: str = "cpu",
) -> DepthModel:
    """The depth-estimation checkpoint in a folder, or of a hub id.

    Args:
        kind: what its numbers mean; refused where its class says something else.
        kind_if_unknown: the same, asked only where its class says nothing.

    Raises:
        ModelUnavailable: it cannot be loaded, has no depth head, its images cannot be prepared, its
            kind is not known, or it is another than `kind`.
    """
    from transformers import AutoConfig, AutoModelForDepthEstimation
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES as SUPPORTED,
    )

    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type not in SUPPORTED:
            raise ModelUnavailable(
                f"{name}: model type {config.model_type!r} estimates no depth; it must be one of "
                f"{', '.join(SUPPORTED)}"
            )
        found = _kind(name, config, kind, kind_if_unknown)
        process = _processor(name)
        if process is None and config.model_type not in PREPARED:
            raise ModelUnavailable(
                f"{name}: images for {config.model_type!r} are prepared by torchvision alone: give "
                f"another model, such as one of {', '.join(KIND_OF_TYPE)} or depth_anything"
            )
        model = AutoModelForDepthEstimation.from_pretrained(name).to(device)
        return DepthModel(model, process, _fields(name), found, name)
    except (OSError, ValueError, ImportError) as error:
        raise ModelUnavailable(f"depth model {name}: {first_line(error)}") from error


def _kind(name: str, config: Any, kind: Kind | None, kind_if_unknown: Kind | None) -> Kind:
    known = kind_of(config)
    if known is not None and kind not in (None, known):
        raise ModelUnavailable(
            f"{name}: the numbers of {config.model_type!r} are {known}, not {kind}: leave the kind "
            "out"
        )
    found = known or kind or kind_if_unknown
    if found is None:
        raise ModelUnavailable(
            f"{name}: whether a larger number of {config.model_type!r} is nearer or farther is not "
            "known: say it with --depth-kind metric, relative or inverse (in Python kind=)"
        )
    return found


def kind_of(config: Any) -> Kind | None:
    """What the numbers of a depth model mean; None where it is not known."""
    said = getattr(config, "depth_estimation_type", None)
    if said is not None:  # Depth Anything: "relative" is disparity, up to scale and shift
        return "metric" if said == "metric" else "inverse"
    backbone = getattr(config, "backbone_config", None)
    if getattr(backbone, "model_type", "").startswith("dinov2"):
        return None  # DINOv2's DPT heads were trained for metres or for disparity
    return KIND_OF_TYPE.get(config.model_type)


def _processor(name: str) -> Any | None:
    """The checkpoint's image processor where it has one that needs no torchvision."""
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(name, backend="pil")
    except (ImportError, ValueError):
        return None


def _fields(name: str) -> Mapping[str, Any]:
    import json

    from transformers.utils.hub import cached_file

    path = cached_file(
        name, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False
    )
    return json.loads(Path(path).read_text(encoding="utf-8")) if path else {}


def _prepared(image: Image, fields: Mapping[str, Any]) -> torch.Tensor:
    """(1, 3, H, W): normalised, then resized, as Depth Pro's processor does it."""
    import numpy as np
    import torch

    pixels = torch.from_numpy(np.asarray(image.pixels).copy()).permute(2, 0, 1).float()
    pixels = pixels * fields.get("rescale_factor", 1 / 255)
    mean = torch.tensor(fields.get("image_mean", [0.5] * 3))[:, None, None]
    spread = torch.tensor(fields.get("image_std", [0.5] * 3))[:, None, None]
    size = fields.get("size", {"height": 1536, "width": 1536})
    return torch.nn.functional.interpolate(
        ((pixels - mean) / spread)[None],
        size=(size["height"], size["width"]),
        mode="bilinear",
        align_corners=False,
    )


def _resized(depth: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """`depth` (1, h, w) at `size` (height, width), no number beyond the least and the largest."""
    import torch

    larger = torch.nn.functional.interpolate(
        depth[:, None], size=size, mode="bicubic", align_corners=False
    )[0, 0]
    known = depth[depth.isfinite()]
    # at an edge a cubic overshoots, also below 0, where no metres are
    return larger.clamp(known.min(), known.max()) if known.numel() else larger


def _unpadded(depth: torch.Tensor, size: tuple[int, int], padded: bool) -> torch.Tensor:
    """ZoeDepth's map without the border that its processor adds: 3 * sqrt(side / 2) pixels."""
    rows, columns = (int(math.sqrt(side / 2) * _ZOE_PADDING) if padded else 0 for side in size)
    whole = _resized(depth, (size[0] + 2 * rows, size[1] + 2 * columns))
    return whole[rows : rows + size[0], columns : columns + size[1]]


def _metres(
    inverse: torch.Tensor, field_of_view: torch.Tensor | None, size: tuple[int, int]
) -> torch.Tensor:
    """Depth Pro's metres from its canonical inverse depth and the angle of view, in degrees."""
    import torch

    if field_of_view is not None:
        angle = torch.deg2rad(field_of_view).reshape(-1, 1, 1)
        inverse = inverse * 2 * torch.tan(angle / 2)  # width / focal length
    shown = torch.nn.functional.interpolate(
        inverse[:, None], size=size, mode="bilinear", align_corners=False
    )[0, 0]
    return 1 / shown.clamp(1e-4, 1e4)
