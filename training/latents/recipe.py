"""What `mm train depth` is told."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mm.errors import UserError
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
    device: str | None = None
    access: Access = field(default=Access())

    def __post_init__(self) -> None:
        for name in ("latents", "batch", "epochs", "lora_rank", "learning_rate", "max_minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name} must be over 0 and finite, got {value}")
        if self.stage == 1 and (self.learned != "midi" or self.start):
            raise UserError("controls and --start are for --stage 2")
        if self.start and self.learned != "midi":
            raise UserError(f"--learned {self.learned} begins with no stage 1: leave --start out")

    @property
    def settings(self) -> dict[str, Any]:
        """What must be the same when a training goes on."""
        may_change = ("output", "device", "access", "max_minutes")
        known = {k: v for k, v in asdict(self).items() if k not in may_change}
        return json.loads(json.dumps(known, default=str))
