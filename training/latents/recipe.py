"""What `mm train depth` is told."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from mm.errors import UserError
from mm.families.image_budgets import ImageBudgets
from training.data import Access
from vision.depth import Kind

LATENTS = 10
"""Vectors in the context, where nobody says how many."""

Learned = Literal["midi", "constant", "none"]
Reads = Literal["model", "features"]


@dataclass(frozen=True)
class LatentsRecipe:
    """What `mm train depth` is told.

    Attributes:
        stage: 1 distils rationales into latents; 2 couples them to the model, with an adapter.
        start: stage 2: the folder of a stage 1; None begins with random weights.
        learned: "constant" and "none" are controls: vectors that see nothing, and none at all.
        reads: "model", the language model reads image, depth and question for the Mamba, with an
            adapter; "features", the Mamba reads them itself, as in the paper.
        learning_rate: None: 1e-3 below 100 million parameters, else 2e-5 (the paper's).
        hidden, layers: of the Mamba; None by the model's width.
        max_pixels, min_pixels, visual_tokens: of each image, as `mm.load` has them; ask what was
            trained under the same.
        format, ignore: how rows are written, and columns of theirs that are left unread.
    """

    data: Path
    output: Path
    stage: Literal[1, 2] = 1
    model: str = "tiny"
    start: str | None = None
    learned: Learned = "midi"
    reads: Reads = "model"
    latents: int = LATENTS
    hidden: int | None = None
    layers: int | None = None
    lora_rank: int = 16
    learning_rate: float | None = None
    epochs: float = 2.0
    batch: int = 16
    max_minutes: float | None = None
    seed: int = 0
    depth_scale: float | str | None = None
    depth_kind: Kind = "metric"
    max_pixels: int | None = None
    min_pixels: int | None = None
    visual_tokens: int | None = None
    format: str = "auto"
    ignore: tuple[str, ...] = ()
    device: str | None = None
    access: Access = field(default=Access())

    def __post_init__(self) -> None:
        for name in ("latents", "batch", "epochs", "lora_rank", "learning_rate", "max_minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name} must be over 0 and finite, got {value}")
        ImageBudgets(self.max_pixels, self.min_pixels, self.visual_tokens)  # refuses what cannot be
        if self.stage == 1 and (self.learned != "midi" or self.start):
            raise UserError("controls and --start are for --stage 2")
        if self.start and self.learned != "midi":
            raise UserError(f"--learned {self.learned} begins with no stage 1: leave --start out")

    @property
    def settings(self) -> dict[str, Any]:
        """What must be the same when a training goes on."""
        may_change = ("output", "device", "access", "max_minutes")
        return _written({k: v for k, v in asdict(self).items() if k not in may_change})

    def changed(self, before: Mapping[str, Any]) -> list[str]:
        """What differs from the settings `before`, in words; what these do not name was then at
        its default."""
        usual = _written({each.name: each.default for each in fields(self)})
        was = {name: before.get(name, usual[name]) for name in self.settings}
        return [
            f"{name} {was[name]!r}, not {value!r}"
            for name, value in self.settings.items()
            if was[name] != value
        ]


def _written(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` as a file has them."""
    return json.loads(json.dumps(settings, default=str))
